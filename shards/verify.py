"""Proves that a shard folder is what its manifest says: checksums, schema, decodable media, matching sizes.

Every fault is reported by the name of the shard, the sample and the element; none hides another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.files import sha256_of
from shards.index import ManifestRow, ShardError, read_index, read_manifest, scan
from shards.media import MediaError, name_of, read_image, read_mask, read_video
from shards.sample import Media, Sample


@dataclass
class Report:
    """What `verify` counted, and every fault it found."""

    shards: int = 0
    samples: int = 0
    media: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)


def verify(directory: str | Path, *, decode: bool = True) -> Report:
    """Check every shard of a folder against its manifest, index and samples.

    With `decode=False` the media are compared by checksum only. Raises ShardError when there is no readable
    manifest; every other fault goes into the report.
    """
    directory = Path(directory)
    report = Report()
    rows = read_manifest(directory)
    if not rows:
        report.faults.append(f"{directory}/manifest.jsonl: names no shard")
    named = {row.shard for row in rows}
    for path in sorted(directory.glob("*.tar")):
        if path.name not in named:
            report.faults.append(f"{path}: not named by the manifest")
    keys: dict[str, str] = {}
    for row in rows:
        report.shards += 1
        report.bytes += row.bytes
        report.faults += list(_shard_faults(directory, row, report, keys, decode))
    return report


def _shard_faults(
    directory: Path, row: ManifestRow, report: Report, keys: dict[str, str], decode: bool
) -> Iterator[str]:
    path = directory / row.shard
    if not path.is_file():
        yield f"{path}: missing"
        return
    if path.stat().st_size != row.bytes:
        yield f"{path}: has {path.stat().st_size} bytes, the manifest says {row.bytes}"
    if sha256_of(path) != row.sha256:
        yield f"{path}: its sha256 is not the manifest's"
    try:
        found = scan(path)
    except ShardError as error:
        yield str(error)
        return
    if len(found) != row.samples:
        yield f"{path}: holds {len(found)} samples, the manifest says {row.samples}"
    try:
        if read_index(directory, row).samples != [entry for _, entry in found]:
            yield f"{path}: its index does not match it; run `python -m shards index {directory}`"
    except ShardError as error:
        yield str(error)
    with path.open("rb") as handle:
        for sample, entry in found:
            report.samples += 1
            if sample.key in keys:
                yield f"{path}: {sample.key} is also in {keys[sample.key]}"
            keys[sample.key] = row.shard
            if row.shard.rpartition("-")[0] != sample.split:
                yield f"{path}: {sample.key} belongs to split {sample.split}"
            data = {}
            for name, media in sample.media.items():
                offset, size = entry.members[media.file]
                handle.seek(offset)
                data[name] = handle.read(size)
            report.media += len(data)
            for fault in _media_faults(sample, data, decode):
                yield f"{path}: {sample.key}.{fault}"


def _media_faults(sample: Sample, data: dict[str, bytes], decode: bool) -> Iterator[str]:
    for name, media in sample.media.items():
        if media.sha256 is not None and hashlib.sha256(data[name]).hexdigest() != media.sha256:
            yield f"{media.file}: its sha256 is not the sample's"
        if decode:
            try:
                yield from _geometry_faults(media, data[name])
            except MediaError as error:
                yield f"{media.file}: {str(error).removeprefix(name_of(data[name]) + ': ')}"
    videos = [m for m in sample.media.values() if m.kind == "video"]
    for media in sample.media.values():
        if media.kind == "mask" and videos:
            first = videos[0]
            if (media.frames, media.height, media.width) != (first.frames, first.height, first.width):
                yield f"{media.file}: does not match {first.file} in size or frame count"


def _geometry_faults(media: Media, data: bytes) -> Iterator[str]:
    fps: float | None = None
    if media.kind == "video":
        pixels, fps = read_video(data)
    elif media.kind == "mask":
        pixels = read_mask(data)
    else:
        pixels = read_image(data)[None]
    frames, height, width = pixels.shape[:3]
    if (frames, height, width) != (media.frames, media.height, media.width):
        yield (
            f"{media.file}: is {frames} frames of {width}x{height}, "
            f"the sample says {media.frames} of {media.width}x{media.height}"
        )
    if fps is not None and media.fps is not None and not np.isclose(fps, media.fps, rtol=1e-3):
        yield f"{media.file}: has {fps:.3f} fps, the sample says {media.fps:.3f}"
