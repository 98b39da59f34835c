"""Latents and token states of a shard's samples, made beforehand: a second tar of the same keys.

One per shard, named after it and its sha256, with one safetensors member per sample, so that a folder holds
those of any number of shard folders, can be filled by many processes, and is never out of date unnoticed.
"""

from __future__ import annotations

import functools
import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from shards.files import atomic_path, sha256_of, write_bytes
from shards.index import index_name, index_path
from shards.limits import MAX_INDEX_BYTES
from shards.location import Location, ShardError
from shards.manifest import Bytes, ManifestRow
from shards.sample import Sha256, Strict, explain
from shards.tar import TarReader
from shards.writer import add_member

SUFFIX = ".safetensors"
KEPT = 4  # indexes of shards that a process holds


class EncodedEntry(Strict):
    """Where the member of a sample lies, and how many tokens its pieces of text have, in order."""

    offset: Bytes
    size: Bytes
    texts: list[Bytes]
    sha256: Sha256 | None = None  # of the member; none in older folders


class EncodedIndex(Strict):
    """The index beside one tar of encoded samples.

    `source` is the sha256 of the shard it was made from, `encoding` that of the description of what made it,
    `sha256` its own; `index_sha256` is that of the index without this field, none in older folders.
    """

    shard: str
    source: Sha256
    encoding: Sha256
    sha256: Sha256
    samples: dict[str, EncodedEntry]
    index_sha256: Sha256 | None = None

    def seal(self) -> str:
        """What `index_sha256` should be."""
        return hashlib.sha256(self.model_dump_json(exclude={"index_sha256"}).encode()).hexdigest()


def encoded_name(row: ManifestRow) -> str:
    """`train-000000.tar` -> `train-000000-<16 digits of its sha256>.tar`."""
    return f"{row.shard.removesuffix('.tar')}-{row.sha256[:16]}.tar"


def write_encoded(
    folder: Path, row: ManifestRow, encoding: str, samples: Iterable[tuple[str, bytes, list[int]]]
) -> EncodedIndex:
    """Write (key, safetensors file, tokens of each piece of text) of the samples of a shard, atomically.

    The index is written last: with it, the tar is complete.
    """
    name, entries = encoded_name(row), {}
    with atomic_path(folder / name) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
            for key, data, texts in samples:
                offset, size = add_member(tar, f"{key}{SUFFIX}", data)
                own = hashlib.sha256(data).hexdigest()
                entries[key] = EncodedEntry(offset=offset, size=size, texts=texts, sha256=own)
        digest = sha256_of(temporary)
    index = EncodedIndex(shard=name, source=row.sha256, encoding=encoding, sha256=digest, samples=entries)
    index = index.model_copy(update={"index_sha256": index.seal()})
    write_bytes(index_path(folder, name), index.model_dump_json().encode() + b"\n")
    return index


def read_encoded_index(folder: str | Path, row: ManifestRow, encoding: str) -> EncodedIndex | None:
    """The index of the encoded samples of a shard, None if they are not there.

    Raises:
        ShardError: it is malformed, or its samples were encoded otherwise.
    """
    location, name = Location(folder), index_name(encoded_name(row))
    try:
        index = _parse(location.read(name, limit=MAX_INDEX_BYTES), location.path(name))
    except FileNotFoundError:
        return None
    if index.shard != encoded_name(row):
        raise ShardError(
            f"{location.path(name)}: is the index of {index.shard!r}; remove it and encode again"
        )
    if (index.source, index.encoding) != (row.sha256, encoding):
        raise ShardError(
            f"{location.path(name)}: was encoded with other settings; remove it and encode again"
        )
    return index


def _parse(data: bytes, path: str) -> EncodedIndex:
    try:
        index = EncodedIndex.model_validate_json(data)
    except ValidationError as error:
        raise ShardError(f"{path}: {explain(error)}; remove it and encode again") from None
    if index.index_sha256 not in (None, index.seal()):
        raise ShardError(f"{path}: damaged, its sha256 is not its own; remove it and encode again")
    return index


def encoded_faults(folder: Path) -> Iterator[str]:
    """Compare every tar of encoded samples in a folder with its index; one line per fault."""
    for path in sorted(folder.glob("*.index.json")):
        try:
            index = _parse(Location(folder).read(path.name, limit=MAX_INDEX_BYTES), str(path))
            if index_name(index.shard) != path.name:
                yield f"{path}: is the index of {index.shard!r}"
                continue
            tar_path = folder / index.shard
            with Location(folder).open(index.shard) as handle:
                tar = TarReader(handle, str(tar_path))
                members = [(m.name, m.offset, len(m.data), hashlib.sha256(m.data).hexdigest()) for m in tar]
        except FileNotFoundError:
            yield f"{folder / index.shard}: missing; its index is there"
            continue
        except ShardError as error:
            yield str(error)
            continue
        if tar.sha256 != index.sha256:
            yield f"{tar_path}: its sha256 is not the index's"
        expected = [(key + SUFFIX, e.offset, e.size) for key, e in index.samples.items()]
        if [member[:3] for member in members] != expected:
            yield f"{tar_path}: holds other samples than its index"
        for (name, *_, digest), entry in zip(members, index.samples.values(), strict=False):
            if entry.sha256 not in (None, digest):
                yield f"{tar_path}: {name}: damaged, its sha256 is not the index's"


class EncodedSet:
    """Encoded samples of some shards of a folder, by shard and key.

    Held are the shards' names, and the indexes of the `KEPT` shards that were read last.

    Raises:
        ShardError: a shard's are not there. Of a URL that is seen when they are read.
    """

    def __init__(self, folder: str | Path, rows: Iterable[ManifestRow], encoding: str) -> None:
        self.location, self.encoding = Location(folder), encoding
        rows = list(rows)
        for row in rows if not self.location.remote else ():
            if not (Path(folder) / index_name(encoded_name(row))).exists():
                raise self._missing(row.shard, encoded_name(row))
        # arrays, so that what many processes share stays shared
        self._shards, self._sources = (
            np.array([text.encode() for text in column])
            for column in ([row.shard for row in rows], [row.sha256 for row in rows])
        )
        self._index = functools.lru_cache(maxsize=KEPT)(self._read_index)

    def _missing(self, shard: str, encoded: str) -> ShardError:
        return ShardError(
            f"{self.location.path(encoded)}: {shard} is not encoded yet; run `python -m model precompute`"
        )

    def _read_index(self, shard: str) -> EncodedIndex:
        (found,) = np.flatnonzero(self._shards == shard.encode())
        row = ManifestRow(shard=shard, sha256=self._sources[found].decode(), samples=0, bytes=0)
        index = read_encoded_index(self.location.folder, row, self.encoding)
        if index is None:
            raise self._missing(shard, encoded_name(row))
        return index

    def texts(self, shard: str, key: str) -> list[int]:
        """Tokens of each piece of a sample's text; none for a sample that was left out.

        Raises:
            ShardError: the index is damaged, or was encoded with other settings.
        """
        entry = self._index(shard).samples.get(key)
        return entry.texts if entry else []

    def read(self, shard: str, key: str) -> bytes:
        """The safetensors file of a sample; raises ShardError for one that was left out or is damaged."""
        index = self._index(shard)
        entry = index.samples.get(key)
        if entry is None:
            raise ShardError(f"{self.location}: {key} was left out when the others were encoded")
        try:
            data = self.location.read(index.shard, entry.offset, entry.size)
        except FileNotFoundError:
            raise ShardError(f"{self.location.path(index.shard)}: missing; its index is there") from None
        if entry.sha256 not in (None, hashlib.sha256(data).hexdigest()):
            raise ShardError(
                f"{self.location.path(index.shard)}: {key} is damaged; remove it and encode again"
            )
        return data
