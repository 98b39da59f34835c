"""Reads shards: as a stream in order, or one sample by its index.

Both give `Record`s, which decode a media element when asked for it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from shards.column_writer import open_columns
from shards.columns import checksum
from shards.index import IndexEntry, check_against_index, parse_document, read_index, samples_of
from shards.location import Location, ShardError
from shards.manifest import ManifestRow, read_manifest
from shards.media import read_image, read_mask, read_video
from shards.sample import SUFFIX, Sample
from shards.tar import BLOCK, TarReader

HEAD = 64 << 10  # bytes of a sample in which its JSON lies, as a rule


class Record:
    """A sample and access to its media. Nothing is decoded before it is asked for.

    Args:
        read: gives the bytes of a member by its suffix, e.g. "video1.mp4".
        where: the tar, for messages.
    """

    def __init__(self, sample: Sample, read: Callable[[str], bytes], where: str = "") -> None:
        self.sample = sample
        self._read = read
        self._where = where
        self._checked: set[str] = set()

    @property
    def key(self) -> str:
        return self.sample.key

    def bytes(self, name: str) -> bytes:
        """The encoded file of a media element; ShardError for one that is damaged or not there."""
        media = self.sample.media.get(name)
        if media is None:
            raise ShardError(f"{self.key}: no media element {name!r}; it has {', '.join(self.sample.media)}")
        data = self._read(media.file)
        if name not in self._checked and media.sha256 is not None:
            if hashlib.sha256(data).hexdigest() != media.sha256:
                where = f"{self._where}: " if self._where else ""
                raise ShardError(
                    f"{where}{self.sample.member(name)}: damaged, its sha256 is not the sample's"
                )
            self._checked.add(name)
        return data

    def video(self, name: str) -> tuple[np.ndarray, float]:
        """uint8 RGB [T, H, W, 3] and the frame rate."""
        return read_video(self.bytes(name))

    def mask(self, name: str = "mask") -> np.ndarray:
        """bool [T, H, W]."""
        return read_mask(self.bytes(name))

    def image(self, name: str) -> np.ndarray:
        """uint8 RGB [H, W, 3]."""
        return read_image(self.bytes(name))

    def pixels(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames start:stop of any element as uint8 RGB [T, H, W, 3].

        An image has one frame, a mask is white on black.
        """
        kind = self.sample.media[name].kind if name in self.sample.media else "video"
        if kind == "image":
            return self.image(name)[None][start:stop]
        if kind == "mask":
            marked = self.mask(name)[start:stop]
            return np.repeat(np.where(marked, np.uint8(255), np.uint8(0))[..., None], 3, axis=-1)
        return read_video(self.bytes(name), start, stop)[0]


class NoSplitError(ShardError):
    """A shard folder without shards of the split that is asked for."""


def rows_of(directory: str | Path, split: str | None) -> list[ManifestRow]:
    """Manifest rows of a split (of all, for None); raises NoSplitError when there are none."""
    rows = read_manifest(directory)
    chosen = [row for row in rows if split is None or row.shard.rpartition("-")[0] == split]
    if not chosen:
        raise NoSplitError(
            f"{directory}: no {split or ''} shards; it holds {', '.join(r.shard for r in rows) or 'none'}"
        )
    return chosen


def stream(directory: str | Path, split: str | None = None) -> Iterator[Record]:
    """Read all samples in shard order, one pass over each tar, from a folder or URL.

    Each sample is compared with the index before it is yielded, and each tar with the manifest at its end.

    Raises:
        ShardError: a file is missing or damaged, or a tar holds other samples than the index promises.
    """
    location = Location(directory)
    for row in rows_of(directory, split):
        path = location.path(row.shard)
        entries = read_index(directory, row).samples
        count = 0
        try:
            with location.open(row.shard) as handle:
                tar = TarReader(handle, path)
                for sample, members in samples_of(tar):
                    if count == len(entries):
                        raise ShardError(f"{path}: {sample.key} is in the tar but not in its index")
                    check_against_index(sample, members["json"].data, entries[count], path)
                    count += 1
                    files = {suffix: member.data for suffix, member in members.items()}
                    yield Record(sample, files.__getitem__, path)
        except FileNotFoundError:
            raise ShardError(f"{path}: missing; the manifest names it") from None
        if count != len(entries):
            raise ShardError(f"{path}: holds {count} samples, its index promises {len(entries)}")
        if (tar.sha256, tar.bytes) != (row.sha256, row.bytes):
            raise ShardError(f"{path}: damaged, its sha256 or size is not the manifest's")


class ShardSet:
    """Random access to the samples of a shard folder or URL (one split, or all), by number or by key.

    Opening maps the columns of its index (`shards.columns`), which all processes of a machine share; nothing
    is held per sample, unless samples are asked for by key. A sample with all its members is one `pread`, or
    one request to a URL, from any process. What is read is compared with its checksums.

    Attributes:
        shards: int64, the numbers in the columns of the split's shards.

    Raises:
        ShardError: by opening or reading, where something is missing, damaged or there twice.
    """

    def __init__(self, directory: str | Path, split: str | None = None) -> None:
        self.location = Location(directory)
        self.columns = open_columns(directory)
        if split is None and self.columns.repeated is not None:
            raise ShardError(
                f"{directory}: {self.columns.repeated!r} is there twice; the indexes name it more than once"
            )
        names = self.columns.names.tolist()
        self.split = split
        self.shards = np.array(
            [i for i, name in enumerate(names) if split in (None, name.decode().rpartition("-")[0])], np.int64
        )
        if not len(self.shards):
            rows_of(directory, split)  # says what it holds instead
        sizes = np.diff(self.columns.shards["samples"].astype(np.int64), prepend=0)[self.shards]
        self._ends = np.cumsum(sizes)

    @property
    def rows(self) -> list[ManifestRow]:
        """The manifest's rows of the split, read anew."""
        return rows_of(self.location.folder, self.split)

    @functools.cached_property
    def keys(self) -> list[str]:
        """All keys in order; kept, so not for millions of samples."""
        return [key for shard in self.shards.tolist() for key in self.columns.keys(shard)]

    @functools.cached_property
    def _number(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self.keys)}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def counts(self) -> list[int]:
        """Samples of each shard, in order."""
        return np.diff(self._ends, prepend=0).tolist()

    def first(self, number: int) -> int:
        """Number of the first sample of the shard `number` of `shards`."""
        return int(self._ends[number - 1]) if number else 0

    def kind_of(self, which: int) -> int:
        """The number of a sample's kind, see `shards.columns.Columns.kind`."""
        shard, place = self._locate(which)
        return int(self.columns.kinds(shard)[place])

    def text_count(self, tokenizer: str, which: int) -> int | None:
        """Tokens of a sample's text, None where they were not counted with this tokenizer."""
        return self.columns.text_count(tokenizer, *self._locate(which))

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def entry(self, which: int | str) -> IndexEntry:
        """The index entry of a sample, without opening the tar."""
        return self.columns.entry(*self._locate(which))

    def shard_of(self, which: int | str) -> str:
        """The name of the shard that a sample lies in."""
        return self._name(self._locate(which)[0])

    def _name(self, shard: int) -> str:
        name: bytes = self.columns.names[shard]
        return name.decode()

    def _locate(self, which: int | str) -> tuple[int, int]:
        """Number of its shard in the columns, and its place there."""
        if isinstance(which, str):
            if which not in self._number:
                raise ShardError(f"{self.location}: no sample {which!r}")
            which = self._number[which]
        if not 0 <= which < len(self):
            raise IndexError(which)
        number = int(np.searchsorted(self._ends, which, side="right"))
        return int(self.shards[number]), which - self.first(number)

    def size(self, which: int | str) -> int:
        """Bytes that a sample takes in its tar, headers included."""
        first, last, _ = self.columns.stored(*self._locate(which))
        return (last - first) * BLOCK

    def sample(self, which: int | str) -> Sample:
        """What a sample says, without reading its media where its JSON lies before them."""
        shard, place = self._locate(which)
        first, last, _ = self.columns.stored(shard, place)
        if (last - first) * BLOCK > HEAD:
            head = self._read(shard, place, HEAD)
            with contextlib.suppress(ShardError):  # the JSON is longer, or not the first
                member = next(iter(TarReader(io.BytesIO(head), self.location.path(self._name(shard)), 0)))
                if member.name.endswith(".json"):
                    return self._check(shard, place, member.data)
        return self[which].sample

    def _check(self, shard: int, place: int, document: bytes) -> Sample:
        """The sample of a JSON member, which must be the one that the index was made from."""
        path, entry = self.location.path(self._name(shard)), self.columns.entry(shard, place)
        sample = parse_document(document, path, entry.key)
        check_against_index(sample, document, entry, path)
        expected = self.columns.stored(shard, place)[2]
        if expected and checksum(document) != expected:
            raise ShardError(f"{path}: {sample.key}.json: damaged, its sha256 is not the index's")
        return sample

    def _read(self, shard: int, place: int, most: int | None = None) -> bytes:
        """A sample's part of the tar, or the first `most` bytes of it."""
        first, last, _ = self.columns.stored(shard, place)
        name, size = self._name(shard), (last - first) * BLOCK
        try:
            return self.location.read(name, first * BLOCK, size if most is None else min(most, size))
        except FileNotFoundError:
            raise ShardError(f"{self.location.path(name)}: missing; the manifest names it") from None
        except ShardError as error:
            key, _ = self.columns.key_and_text(shard, place)
            raise ShardError(f"{error}, inside {key!r}") from error

    def __getitem__(self, which: int | str) -> Record:
        shard, place = self._locate(which)
        path, start = self.location.path(self._name(shard)), self.columns.stored(shard, place)[0] * BLOCK
        tar = TarReader(io.BytesIO(self._read(shard, place)), path, start)
        members = {member.name: member for member in tar}
        entry = self.columns.entry(shard, place)
        expected = {f"{entry.key}.json", *(f"{entry.key}.{n}{SUFFIX[m[0]]}" for n, m in entry.media.items())}
        if set(members) != expected:
            odd = ", ".join(sorted(map(repr, expected ^ set(members))))
            raise ShardError(f"{path}: {entry.key!r} and its members disagree about {odd}")
        sample = self._check(shard, place, members[f"{entry.key}.json"].data)
        return Record(sample, lambda suffix: members[f"{entry.key}.{suffix}"].data, path)

    def members(self, which: int | str) -> dict[str, tuple[int, int]]:
        """Byte offset and size in the tar of each member of a sample, by suffix ("json", "video1.mp4")."""
        shard, place = self._locate(which)
        start = self.columns.stored(shard, place)[0] * BLOCK
        tar = TarReader(io.BytesIO(self._read(shard, place)), self.location.path(self._name(shard)), start)
        return {member.name.partition(".")[2]: (member.offset, len(member.data)) for member in tar}
