"""Proves that a shard folder is what its manifest says: checksums, schema, decodable media, matching sizes.

Every fault is reported by the name of the shard, the sample and the element; none hides another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards.column_writer import columns_faults
from shards.encoded import encoded_faults
from shards.index import damaged_media, entry_in_tar, read_index, samples_of
from shards.location import WEB, Location, ShardError
from shards.manifest import MANIFEST, ManifestRow, read_manifest
from shards.media import MediaError, name_of, read_image, read_mask, read_video
from shards.sample import Media, Sample
from shards.scores import scores_faults
from shards.tar import Member, TarReader

ENCODING = "encoding.json"  # what `model precompute` writes first


@dataclass
class Report:
    """What `verify` counted, and every fault it found."""

    shards: int = 0
    samples: int = 0
    media: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)


def verify(directory: str | Path, *, decode: bool = True) -> Report:
    """Check every shard of a folder against its manifest, index and samples, and its columns.

    A folder of encoded samples is checked against its indexes: see `shards.encoded`.
    With `decode=False` the media are compared by checksum only. A URL is read once from end to end; on the
    web, which does not list its files, those that the manifest does not name go unseen. Raises ShardError
    when there is no readable manifest; every other fault goes into the report.
    """
    location, report = Location(directory), Report()
    folder = Path(location.folder)
    if not location.remote and (folder / ENCODING).is_file() and not (folder / MANIFEST).exists():
        report.shards = len(list(folder.glob("*.index.json")))
        report.faults += encoded_faults(folder)
        return report
    rows = read_manifest(directory)
    if not rows:
        report.faults.append(f"{directory}/manifest.jsonl: names no shard")
    named = {row.shard for row in rows}
    there = {} if location.protocol in WEB else location.sizes()
    for name in there:
        if name.endswith(".tar") and "/" not in name and name not in named and not name.startswith("."):
            report.faults.append(f"{location.path(name)}: not named by the manifest")
    keys: dict[str, str] = {}
    for row in rows:
        report.shards += 1
        report.bytes += row.bytes
        report.faults += list(_shard_faults(location, row, there.get(row.shard), report, keys, decode))
    report.faults += list(columns_faults(directory))
    report.faults += list(scores_faults(directory))
    return report


def _shard_faults(
    location: Location,
    row: ManifestRow,
    size: int | None,
    report: Report,
    keys: dict[str, str],
    decode: bool,
) -> Iterator[str]:
    path = location.path(row.shard)
    if size not in (None, row.bytes):
        yield f"{path}: has {size} bytes, the manifest says {row.bytes}"
    entries = []
    try:
        with location.open(row.shard) as handle:
            tar = TarReader(handle, path)
            for sample, members in samples_of(tar):
                report.samples += 1
                report.media += len(sample.media)
                entries.append(entry_in_tar(sample, members, path))
                if sample.key in keys:
                    yield f"{path}: {sample.key} is also in {keys[sample.key]}"
                keys[sample.key] = row.shard
                if row.shard.rpartition("-")[0] != sample.split:
                    yield f"{path}: {sample.key} belongs to split {sample.split}"
                for fault in _media_faults(sample, members, decode):
                    yield f"{path}: {sample.key}.{fault}"
    except FileNotFoundError:
        yield f"{path}: missing"
        return
    except ShardError as error:
        yield str(error)
        return
    if tar.sha256 != row.sha256:
        yield f"{path}: its sha256 is not the manifest's"
    if len(entries) != row.samples:
        yield f"{path}: holds {len(entries)} samples, the manifest says {row.samples}"
    try:
        index = read_index(location.folder, row)
    except ShardError as error:
        yield str(error)
        return
    # An older index has no checksums of the JSON, or no frame rates; it is compared without them.
    lacks: dict[str, Any] = {}
    if not any(entry.json_sha256 for entry in index.samples):
        lacks["json_sha256"] = None
    if not any(entry.fps for entry in index.samples):
        lacks["fps"] = {}
    if index.samples != [entry.model_copy(update=lacks) for entry in entries]:
        yield f"{path}: its index does not match it; run `python -m shards index {location}`"


def _media_faults(sample: Sample, members: dict[str, Member], decode: bool) -> Iterator[str]:
    for file in damaged_media(sample, members):
        yield f"{file}: its sha256 is not the sample's"
    for media in sample.media.values() if decode else ():
        data = members[media.file].data
        try:
            yield from _geometry_faults(media, data)
        except MediaError as error:
            yield f"{media.file}: {str(error).removeprefix(name_of(data) + ': ')}"
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
