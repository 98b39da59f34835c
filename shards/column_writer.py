"""Writes the columns of a folder from its indexes, once, beside the shards or in a cache; and opens them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from shards.columns import (
    ELEMENT,
    HEADER,
    KIND,
    KINDS,
    LARGE,
    NONE,
    PLACE,
    SHARD,
    SMALL,
    VERSION,
    Columns,
    ColumnsError,
    Element,
    Label,
    SampleKind,
    checksum,
    header_seal,
)
from shards.files import naming
from shards.index import IndexEntry, StoredEntry, extent, read_index
from shards.limits import MAX_INDEX_BYTES
from shards.location import Location, ShardError
from shards.manifest import MANIFEST, ManifestRow, read_manifest
from shards.resources import cache_root
from shards.sample import KEY_PATTERN, SUFFIX, tags_of
from shards.tar import BLOCK

log = logging.getLogger(__name__)

PREFIX = "columns-"
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def columns_name(manifest: str) -> str:
    """The folder of the columns of a manifest of this sha256."""
    return f"{PREFIX}{manifest[:16]}"


def cache_folder() -> Path:
    """Where the columns of URLs, and of folders that cannot be written to, are kept on this machine."""
    return cache_root() / "columns"


def kind_of(entry: IndexEntry, path: str) -> SampleKind:
    """What a sample has in common with others.

    Raises:
        ShardError: its text or targets name elements that it does not have, or name one twice.
    """
    order = tags_of(entry.text)
    for names in (order, entry.targets):
        if len(set(names)) < len(names) or not set(names) <= set(entry.media):
            raise ShardError(
                f"{path}: its index is damaged: {entry.key!r} names elements that it does not have"
            )
    elements = tuple(
        Element(name, *what, entry.fps.get(name), entry.frame_of.get(name))
        for name, what in sorted(entry.media.items())
    )
    masked = "<mask" in entry.text  # as `DatasetConfig.masked` has it
    return SampleKind(Label(entry.task, entry.split, masked), elements, tuple(order), tuple(entry.targets))


def _end_of(entry: StoredEntry, block: int, path: str) -> int:
    """The block of a tar at which a sample ends that begins at `block`.

    Raises:
        ShardError: its members are not those of its media, or do not lie one after the other from there on.
    """
    extent(entry, path)
    expected = {"json", *(name + SUFFIX[what[0]] for name, what in entry.media.items())}
    if set(entry.members) != expected:
        raise ShardError(f"{path}: its index is damaged: media and members of {entry.key!r} disagree")
    for offset, size in sorted(entry.members.values()):
        if offset % BLOCK or offset <= block * BLOCK:  # a header comes before
            block = 1 << 32
        block = max(block, -(-(offset + size) // BLOCK))
    if block >= 1 << 32 or not re.match(KEY_PATTERN, entry.key):
        raise ShardError(f"{path}: its index is damaged where {entry.key!r} lies")
    return block


class ColumnWriter:
    """Writes columns shard by shard, in the order of the manifest.

    Args:
        folder: a new one, to be renamed when it is complete.
        manifest: sha256 of the manifest's file.
    """

    def __init__(self, folder: Path, manifest: str) -> None:
        self.folder, self.manifest = folder, manifest
        folder.mkdir(parents=True)
        self._files: dict[str, IO[bytes]] = {name: (folder / f"{name}.npy").open("wb") for name in LARGE}
        for name, handle in self._files.items():
            handle.write(bytes(LARGE[name]))
        self._digests = {name: hashlib.sha256() for name in LARGE}
        self._labels: dict[Label, int] = {}
        self._kinds: dict[SampleKind, int] = {}
        self._kind_labels: list[int] = []
        self._shards: list[tuple[int, int, int, int, int]] = []
        self._names: list[bytes] = []
        self._counts: list[NDArray[np.int64]] = []
        self._hashes: dict[str, list[NDArray[np.uint64]]] = {}  # of keys, by the split in their shard's name
        self._written = self._text = 0

    def number_of(self, kind: SampleKind) -> int:
        """The number of a kind, a new one where there was none."""
        if kind not in self._kinds:
            self._kinds[kind] = len(self._kinds)
            self._kind_labels.append(self._labels.setdefault(kind.label, len(self._labels)))
        return self._kinds[kind]

    def add(self, shard: str, entries: Iterable[StoredEntry], path: str) -> None:
        """Add the samples of a shard; raises ShardError for members that do not lie one after the other."""
        kinds, places, texts, block, at = [], [], [], 0, 0
        for entry in entries:
            end = _end_of(entry, block, path)
            kinds.append(self.number_of(kind_of(entry, path)))
            text = f"{entry.key}\n{entry.text}".encode()
            places.append((int((entry.json_sha256 or "0")[:16], 16), block, at))
            texts.append(text)
            block, at = end, at + len(text)
        hashes = np.fromiter((checksum(text.partition(b"\n")[0]) for text in texts), np.uint64, len(texts))
        self.add_arrays(
            shard, np.array(kinds, "<u4"), np.array(places, PLACE), b"".join(texts), block, hashes
        )

    def add_arrays(
        self,
        shard: str,
        kinds: NDArray[np.uint32],
        places: NDArray[Any],
        texts: bytes,
        blocks: int,
        hashes: NDArray[np.uint64],
    ) -> None:
        """As `add`, of what it makes of the entries.

        Args:
            kinds: u32 [samples], see `number_of`. places: `PLACE` [samples]. texts: keys and texts.
            blocks: of the tar, up to the end of the last sample. hashes: u64 [samples], of the keys.
        """
        parts = {"kind": kinds.tobytes(), "place": places.tobytes(), "text": texts}
        for name, data in parts.items():
            self._files[name].write(data)
            self._digests[name].update(data)
        self._written, self._text = self._written + len(kinds), self._text + len(texts)
        planned, stored = checksum(parts["kind"]), checksum(parts["place"], parts["text"])
        self._shards.append((self._written, self._text, blocks, planned, stored))
        self._names.append(shard.encode())
        self._counts.append(np.bincount(np.array(self._kind_labels, np.int64)[kinds], minlength=1))
        self._hashes.setdefault(shard.rpartition("-")[0], []).append(hashes)

    def close(self) -> None:
        """Write the tables and the header.

        Raises:
            ShardError: a split has a key twice.
        """
        self._end_file("kind", np.dtype("<u4"), self._written)
        self._end_file("place", PLACE, self._written)
        self._end_file("text", np.dtype("u1"), self._text)
        counts = np.zeros((len(self._counts), len(self._labels)), "<u4")
        for row, some in zip(counts, self._counts, strict=True):
            row[: len(some)] = some
        names, kinds, elements = self._tables()
        tables = {
            "shards": np.array(self._shards, SHARD),
            "names": np.array(self._names, f"S{max(map(len, self._names), default=1)}"),
            "counts": counts,
            "kinds": kinds,
            "elements": elements,
        }
        hashes = {name: digest.hexdigest() for name, digest in self._digests.items()}
        for name in SMALL:
            np.save(self.folder / f"{name}.npy", tables[name])
            hashes[name] = hashlib.sha256(tables[name].tobytes()).hexdigest()
        header = {
            "version": VERSION,
            "manifest": self.manifest,
            "samples": self._written,
            "labels": [[label.task, label.split, label.masked] for label in self._labels],
            "names": names,
            "repeated": self._repeated(),
            "sha256": hashes,
        }
        header["header_sha256"] = header_seal(header)
        (self.folder / HEADER).write_text(json.dumps(header, indent=1, sort_keys=True) + "\n")

    def _end_file(self, name: str, dtype: np.dtype[Any], rows: int) -> None:
        """Write the header before the rows that were written, and close the file."""
        with self._files[name] as handle:
            handle.seek(0)
            about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows,)}
            np.lib.format.write_array_header_1_0(handle, about)
            if handle.tell() != LARGE[name]:
                raise AssertionError(f"{name}.npy has a header of {handle.tell()} bytes")

    def _tables(self) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
        """Names of elements, and the tables `kinds` and `elements`."""
        names: dict[str, int] = {}
        rows: list[tuple[Any, ...]] = []
        ends = []
        for kind in self._kinds:
            for e in kind.elements:
                of, frame = e.frame_of or ("", 0)
                rows.append(
                    (
                        e.fps or 0.0,
                        e.frames,
                        frame,
                        e.height,
                        e.width,
                        names.setdefault(e.name, len(names)),
                        KINDS.index(e.kind),
                        kind.order.index(e.name) if e.name in kind.order else NONE,
                        kind.targets.index(e.name) if e.name in kind.targets else NONE,
                        names.setdefault(of, len(names)) if e.frame_of else NONE,
                        0,
                    )
                )
            ends.append(len(rows))
        kinds = np.zeros(len(ends), KIND)
        kinds["label"], kinds["elements"] = self._kind_labels, ends
        return list(names), kinds, np.array(rows, ELEMENT)

    def _repeated(self) -> str | None:
        """A key of two splits; ShardError for one that a split has twice."""
        for parts in self._hashes.values():
            if key := self._twice(parts):
                raise ShardError(f"{key!r} is there twice; the indexes name it more than once")
        return self._twice([part for parts in self._hashes.values() for part in parts])

    def _twice(self, parts: list[NDArray[np.uint64]]) -> str | None:
        """A key whose hash is there twice."""
        hashes = np.sort(np.concatenate([*parts, np.zeros(0, np.uint64)]))
        again = hashes[1:][hashes[1:] == hashes[:-1]]
        if not len(again):
            return None
        places = np.load(self.folder / "place.npy", mmap_mode="r")
        texts = np.load(self.folder / "text.npy", mmap_mode="r")
        keys = (
            bytes(texts[base + start : base + start + 128]).partition(b"\n")[0]
            for (first, base), (last, _) in itertools.pairwise([(0, 0), *(s[:2] for s in self._shards)])
            for start in places["text"][first:last].tolist()
        )
        return next(key.decode() for key in keys if checksum(key) == int(again[0]))


def _read_manifest(location: Location) -> str:
    """sha256 of the manifest's bytes, which need not be parsed where there are columns of it."""
    try:
        data = location.read(MANIFEST, limit=MAX_INDEX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        read_manifest(location.folder)  # says what is wrong
        raise
    return hashlib.sha256(data).hexdigest()


def open_columns(directory: str | Path) -> Columns:
    """The columns of a shard folder or URL; made from its indexes where there are none that are whole.

    They are made once, while other processes wait: beside the shards, or where that cannot be written to (a
    URL, a read-only disk) in `cache_folder()`.

    Raises:
        ShardError: the manifest or an index is missing or damaged, or a key is there twice.
    """
    location = Location(directory)
    manifest = _read_manifest(location)
    name = columns_name(manifest)
    folders = (
        [cache_folder() / name] if location.remote else [Path(location.folder) / name, cache_folder() / name]
    )
    if isinstance(found := _find(folders, manifest), Columns):
        return found
    with alone(folders[0].parent):
        if isinstance(found := _find(folders, manifest), Columns):  # another process made them
            return found
        if found is not None:
            log.warning("%s; the columns are made again from the indexes", found)
        return _make(location, folders, manifest)


def _find(folders: list[Path], manifest: str) -> Columns | ColumnsError | None:
    """The first that are there and whole, or what is wrong with those that are not."""
    fault = None
    for folder in folders:
        if folder.is_dir():
            try:
                return Columns(folder, manifest)
            except ColumnsError as error:
                fault = error
    return fault


def columns_faults(directory: str | Path) -> Iterator[str]:
    """What is wrong with the columns beside the shards, if there are any; one line per fault."""
    location = Location(directory)
    manifest = _read_manifest(location)
    folder = Path(location.folder) / columns_name(manifest)
    if not location.remote and folder.is_dir():
        try:
            yield from Columns(folder, manifest).faults()
        except ColumnsError as error:
            yield f"{error}; remove the folder, it is made again"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a local folder against other processes, which wait; some network file systems cannot."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(location: Location, folders: list[Path], manifest: str) -> Columns:
    rows = read_manifest(location.folder)
    for number, folder in enumerate(folders):
        temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with naming(folder, temporary):
                write_columns(temporary, location, rows, manifest)
                _put(temporary, folder)
        except OSError as error:
            if error.errno in READ_ONLY and number + 1 < len(folders):
                log.info("%s: cannot be written to; its columns go to %s", folder.parent, folders[-1])
                continue
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return Columns(folder, manifest)
    raise AssertionError("unreachable")


def write_columns(folder: Path, location: Location, rows: list[ManifestRow], manifest: str) -> None:
    """Write the columns of a folder of shards into a new folder; raises ShardError as `open_columns`."""
    writer = ColumnWriter(folder, manifest)
    for row in rows:
        index = read_index(location.folder, row)
        writer.add(row.shard, index.samples, location.path(row.shard))
    try:
        writer.close()
    except ShardError as error:
        raise ShardError(f"{location}: {error}") from None


def _put(temporary: Path, folder: Path) -> None:
    """Give finished columns their name, in place of damaged ones; columns of older manifests go."""
    for path in temporary.iterdir():
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    for old in folder.parent.glob(f"{PREFIX}*"):
        beside = folder.parent.joinpath(MANIFEST).exists()  # in the cache lie those of other folders
        if old.name == folder.name or beside:
            shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(FileExistsError):  # of a process that could not be waited for
        temporary.rename(folder)
