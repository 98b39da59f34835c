"""Tars of samples as WebDataset has them: the files of one name, one after the other, are a sample."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from pydantic import JsonValue

from curation.datasets.layouts.archives import Archive, ArchiveMember, members_of
from curation.datasets.layouts.records import Record
from curation.datasets.layouts.rows import PART_ROWS, Blob, Part
from shards.errors import EditVerseError
from shards.limits import parse_json
from shards.location import ShardError

TEXTS = ("txt", "text", "caption", "json", "cls")  # suffixes of what is read at once
MAX_TEXT_BYTES = 1 << 20  # of a caption or JSON
KEY = "__key__"  # in a record: the key of the sample, as webdataset calls it


def tar_parts(archive: Archive) -> Iterator[Part]:
    """A tar in parts of `PART_ROWS` samples, and one with a fault where it cannot be read to its end.

    The headers of all its members are read; at a URL that is most of the file.
    """
    about: dict[str, JsonValue] = {"archive": _plain(archive), "table": archive.name}
    path = archive.volumes[0][0] if archive.volumes else archive.name
    start, stop, samples, key, fault = 0, 0, 0, "", ""
    try:
        for member in members_of(archive):
            if sample_key(member.name) != key:
                key = sample_key(member.name)
                if samples == PART_ROWS:
                    yield Part(f"{archive.name}:{start}", path, start, member.header, about)
                    start, samples = member.header, 0
                samples += 1
            stop = member.offset + member.size
    except ShardError as error:
        fault = str(error)
    if samples:
        yield Part(f"{archive.name}:{start}", path, start, stop, about)
    if fault:
        yield Part(f"{archive.name}:end", path, fault=fault)


def read_samples(part: Part) -> Iterator[Record]:
    """The samples of a part by suffix, and their key under `KEY`.

    Texts are read (bytes; of a JSON its value, None where it is none); media stay where they lie.
    """
    archive = _archive(part.about["archive"])
    sample: Record = {}
    for member in _members(archive, part):
        key = sample_key(member.name)
        if sample and sample[KEY] != key:
            yield sample
            sample = {}
        suffix = posixpath.basename(member.name).partition(".")[2].lower()
        blob = archive.blob(member.offset, member.size, f"{archive.name}:{member.name}")
        sample |= {KEY: key, suffix: _value(blob, suffix, member.size)}
    if sample:
        yield sample


def sample_key(name: str) -> str:
    """The key of a file: its name to the first dot of its last part."""
    folder, base = posixpath.split(posixpath.normpath(name))
    return posixpath.join(folder, base.partition(".")[0])


def _members(archive: Archive, part: Part) -> Iterator[ArchiveMember]:
    for member in members_of(archive, part.start):
        if member.header >= part.stop:
            return
        yield member
        if member.offset + member.size >= part.stop:  # before tarfile looks at what may be damaged
            return


def _value(blob: Blob, suffix: str, size: int) -> Any:
    if suffix not in TEXTS or not 0 < size <= MAX_TEXT_BYTES:
        return blob if size else None
    data = blob.read()
    if suffix != "json":
        return data
    try:
        return parse_json(data, blob.name)
    except EditVerseError:
        return None


def _plain(archive: Archive) -> JsonValue:
    return [archive.name, [[path, size] for path, size in archive.volumes], archive.fault]


def _archive(value: Any) -> Archive:
    name, volumes, fault = value
    return Archive(name, tuple((path, size) for path, size in volumes), fault)
