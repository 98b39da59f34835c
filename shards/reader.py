"""Reads shards: as a stream in order, or one sample by its index.

Both give `Record`s, which decode a media element when asked for it.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from shards.index import (
    IndexEntry,
    check_against_index,
    extent,
    parse_document,
    read_index,
    samples_of,
)
from shards.location import Location, ShardError
from shards.manifest import ManifestRow, read_manifest
from shards.media import read_image, read_mask, read_video
from shards.sample import Sample
from shards.tar import TarReader


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


def rows_of(directory: str | Path, split: str | None) -> list[ManifestRow]:
    """Manifest rows of a split (of all, for None); raises ShardError when there are none."""
    rows = read_manifest(directory)
    chosen = [row for row in rows if split is None or row.shard.rpartition("-")[0] == split]
    if not chosen:
        raise ShardError(
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

    Opening reads the indexes only. A record reads all its members, which lie side by side, with one `pread`
    or one request to a URL, from any process. What is read is compared with its checksums.

    Raises:
        ShardError: by opening or reading, where something is missing, damaged or there twice.
    """

    def __init__(self, directory: str | Path, split: str | None = None) -> None:
        self.location = Location(directory)
        self.rows = rows_of(directory, split)
        self._indexes = [read_index(directory, row).samples for row in self.rows]
        self._ends = list(itertools.accumulate(len(index) for index in self._indexes))
        self.keys = [entry.key for index in self._indexes for entry in index]
        self._number = {key: number for number, key in enumerate(self.keys)}
        if len(self._number) < len(self.keys):
            twice = next(key for number, key in enumerate(self.keys) if self._number[key] != number)
            raise ShardError(f"{directory}: {twice!r} is there twice; the indexes name it more than once")

    def __len__(self) -> int:
        return len(self.keys)

    def counts(self) -> list[int]:
        """Samples of each shard, in order."""
        return [len(index) for index in self._indexes]

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def entry(self, which: int | str) -> IndexEntry:
        """The index entry of a sample: lengths and places, without opening the tar."""
        shard, place = self._locate(which)
        return self._indexes[shard][place]

    def shard_of(self, which: int | str) -> str:
        """The name of the shard that a sample lies in."""
        return self.rows[self._locate(which)[0]].shard

    def _locate(self, which: int | str) -> tuple[int, int]:
        if isinstance(which, str):
            if which not in self._number:
                raise ShardError(f"{self.location}: no sample {which!r}")
            which = self._number[which]
        if not 0 <= which < len(self):
            raise IndexError(which)
        shard = bisect.bisect_right(self._ends, which)
        return shard, which - (self._ends[shard] - len(self._indexes[shard]))

    def sample(self, which: int | str) -> Sample:
        """What a sample says, without reading its media."""
        shard, place = self._locate(which)
        name, entry = self.rows[shard].shard, self._indexes[shard][place]
        path, (offset, size) = self.location.path(name), entry.members["json"]
        try:
            document = self.location.read(name, offset, size)
        except FileNotFoundError:
            raise ShardError(f"{path}: missing; the manifest names it") from None
        sample = parse_document(document, path, entry.key)
        check_against_index(sample, document, entry, path)
        return sample

    def __getitem__(self, which: int | str) -> Record:
        shard, place = self._locate(which)
        name, entry = self.rows[shard].shard, self._indexes[shard][place]
        path = self.location.path(name)
        first, last = extent(entry, path)

        @functools.cache
        def all_members() -> bytes:
            try:
                return self.location.read(name, first, last - first)
            except FileNotFoundError:
                raise ShardError(f"{path}: missing; the manifest names it") from None
            except ShardError as error:
                raise ShardError(f"{error}, inside {entry.key!r}") from error

        def read(suffix: str) -> bytes:
            offset, size = entry.members[suffix]
            return all_members()[offset - first : offset - first + size]

        document = read("json")
        sample = parse_document(document, path, entry.key)
        check_against_index(sample, document, entry, path)
        return Record(sample, read, path)
