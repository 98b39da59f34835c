"""Latents and token states of a shard's samples, made beforehand: a second tar of the same keys.

One per shard, named after it and its sha256, with one safetensors member per sample, so that a folder holds
those of any number of shard folders, can be filled by many processes, and is never out of date unnoticed.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from shards.files import atomic_path, sha256_of, write_bytes
from shards.index import ManifestRow, index_name, index_path
from shards.location import Location, ShardError
from shards.sample import Sha256, Strict, explain
from shards.writer import add_member


class EncodedEntry(Strict):
    """Where the member of a sample lies, and how many tokens its pieces of text have, in order."""

    offset: int
    size: int
    texts: list[int]


class EncodedIndex(Strict):
    """The index beside one tar of encoded samples.

    `source` is the sha256 of the shard it was made from, `encoding` that of the description of what made it,
    `sha256` its own.
    """

    shard: str
    source: Sha256
    encoding: Sha256
    sha256: Sha256
    samples: dict[str, EncodedEntry]


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
                offset, size = add_member(tar, f"{key}.safetensors", data)
                entries[key] = EncodedEntry(offset=offset, size=size, texts=texts)
        digest = sha256_of(temporary)
    index = EncodedIndex(shard=name, source=row.sha256, encoding=encoding, sha256=digest, samples=entries)
    write_bytes(index_path(folder, name), index.model_dump_json().encode() + b"\n")
    return index


def read_encoded_index(folder: str | Path, row: ManifestRow, encoding: str) -> EncodedIndex | None:
    """The index of the encoded samples of a shard, None if they are not there.

    Raises:
        ShardError: it is malformed, or its samples were encoded otherwise.
    """
    location, name = Location(folder), index_name(encoded_name(row))
    try:
        index = EncodedIndex.model_validate_json(location.read(name))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ShardError(f"{location.path(name)}: {explain(error)}; remove it and encode again") from None
    if (index.source, index.encoding) != (row.sha256, encoding):
        raise ShardError(
            f"{location.path(name)}: was encoded with other settings; remove it and encode again"
        )
    return index


class EncodedSet:
    """Encoded samples of some shards of a folder, by key.

    Raises:
        ShardError: a shard's are not there.
    """

    def __init__(self, folder: str | Path, rows: Iterable[ManifestRow], encoding: str) -> None:
        self.location = Location(folder)
        self._entries: dict[str, tuple[str, EncodedEntry]] = {}
        for row in rows:
            index = read_encoded_index(folder, row, encoding)
            if index is None:
                raise ShardError(
                    f"{self.location.path(encoded_name(row))}: {row.shard} is not encoded yet; run "
                    "`python -m model encode`"
                )
            self._entries |= {key: (index.shard, entry) for key, entry in index.samples.items()}

    def texts(self, key: str) -> list[int]:
        """Tokens of each piece of a sample's text; none for a sample that was left out."""
        return self._entries[key][1].texts if key in self._entries else []

    def read(self, key: str) -> bytes:
        """The safetensors file of a sample; raises ShardError for one that was left out."""
        if key not in self._entries:
            raise ShardError(f"{self.location}: {key} was left out when the others were encoded")
        shard, entry = self._entries[key]
        try:
            return self.location.read(shard, entry.offset, entry.size)
        except FileNotFoundError:
            raise ShardError(f"{self.location.path(shard)}: missing; its index is there") from None
