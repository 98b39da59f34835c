"""Reads shards: as a stream in order, or one sample by its index.

Both give `Record`s, which decode a media element when asked for it.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shards.index import IndexEntry, ManifestRow, read_index, read_manifest
from shards.location import Location, ShardError
from shards.media import read_image, read_mask, read_video
from shards.sample import Sample, parse_sample


class Record:
    """A sample and access to its media. Nothing is decoded before it is asked for."""

    def __init__(self, sample: Sample, read: Callable[[str], bytes]) -> None:
        self.sample = sample
        self._read = read

    @property
    def key(self) -> str:
        return self.sample.key

    def bytes(self, name: str) -> bytes:
        """The encoded file of a media element."""
        if name not in self.sample.media:
            raise ShardError(f"{self.key}: no media element {name!r}; it has {', '.join(self.sample.media)}")
        return self._read(self.sample.media[name].file)

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
    """Read all samples in shard order, one pass over each tar, from a folder or URL."""
    location = Location(directory)
    for row in rows_of(directory, split):
        path = location.path(row.shard)
        try:
            with location.open(row.shard) as handle, tarfile.open(fileobj=handle, mode="r|") as tar:
                members = ((m.name.partition("."), _data(tar, m)) for m in tar)
                for key, group in itertools.groupby(members, key=lambda item: item[0][0]):
                    files = {name[2]: data for name, data in group}
                    if "json" not in files:
                        raise ShardError(f"{path}: {key} has no {key}.json")
                    yield Record(parse_sample(files["json"], f"{path}: {key}.json"), files.__getitem__)
        except (tarfile.TarError, OSError) as error:
            raise ShardError(f"{path}: {error}") from None


def _data(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    handle: Any = tar.extractfile(member)
    data: bytes = handle.read()
    if len(data) != member.size:
        raise tarfile.ReadError(f"truncated inside {member.name}")
    return data


class ShardSet:
    """Random access to the samples of a shard folder or URL (one split, or all), by number or by key.

    Opening reads the indexes only. A record reads all its members, which lie side by side, with one `pread`
    or one request to a URL, from any process.
    """

    def __init__(self, directory: str | Path, split: str | None = None) -> None:
        self.location = Location(directory)
        self.rows = rows_of(directory, split)
        self._indexes = [read_index(directory, row).samples for row in self.rows]
        self._ends = list(itertools.accumulate(len(index) for index in self._indexes))
        self.keys = [entry.key for index in self._indexes for entry in index]
        self._number = {key: number for number, key in enumerate(self.keys)}

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

    def __getitem__(self, which: int | str) -> Record:
        shard, place = self._locate(which)
        name, entry = self.rows[shard].shard, self._indexes[shard][place]
        path = self.location.path(name)
        first = min(offset for offset, _ in entry.members.values())
        last = max(offset + size for offset, size in entry.members.values())

        @functools.cache
        def all_members() -> bytes:
            try:
                return self.location.read(name, first, last - first)
            except FileNotFoundError:
                raise ShardError(f"{path}: missing; the manifest names it") from None
            except ShardError as error:
                raise ShardError(f"{error}, inside {entry.key}") from error

        def read(suffix: str) -> bytes:
            offset, size = entry.members[suffix]
            return all_members()[offset - first : offset - first + size]

        return Record(parse_sample(read("json"), f"{path}: {entry.key}.json"), read)
