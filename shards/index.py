"""The index of each shard: which samples it has and where they lie.

It can be rebuilt from the tars, and the manifest (`shards.manifest`) with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from shards.files import write_bytes
from shards.limits import MAX_INDEX_BYTES
from shards.location import Location, ShardError
from shards.manifest import Bytes, ManifestRow, read_manifest, write_manifest
from shards.media import fit_size
from shards.sample import (
    Frames,
    Kind,
    Sample,
    SampleError,
    Sha256,
    Side,
    Strict,
    explain,
    parse_sample,
    tags_of,
)
from shards.tar import MAX_EXTENSION, Member, TarReader

MAX_HEADERS = 2 * MAX_EXTENSION  # bytes between two members that belong together


class IndexEntry(Strict):
    """What a planner must know of a sample without opening the tar."""

    key: str
    split: str
    task: str
    text: str
    targets: list[str]
    media: dict[str, tuple[Kind, Frames, Side, Side]]  # name -> kind, frames, height, width
    frame_of: dict[str, tuple[str, int]] = Field(
        {}
    )  # image -> the video of which it is a frame, and which one
    fps: dict[str, float] = Field({})  # of every element that has a rate; none in older folders


class StoredEntry(IndexEntry):
    """One sample of a shard's index file, which also says where its members lie."""

    members: dict[str, tuple[Bytes, Bytes]]  # member suffix ("json", "video1.mp4") -> byte offset, size
    tokens: Bytes
    json_sha256: Sha256 | None = None  # of the JSON member; none in older folders


class ShardIndex(Strict):
    """The index file of one shard; `sha256` is that of the tar it was made from."""

    shard: str
    sha256: Sha256
    samples: list[StoredEntry]


@dataclass(frozen=True)
class TokenGeometry:
    """How many pixels and frames one vision token covers; the paper's VAE with 1x2x2 patches by default."""

    temporal: int = 4
    spatial: int = 16
    min_area: int = 256 * 256
    max_area: int = 512 * 512

    def tokens(self, frames: int, height: int, width: int) -> int:
        """Vision tokens of one element: the first frame alone, then one latent per `temporal` frames."""
        h, w = fit_size(height, width, min_area=self.min_area, max_area=self.max_area, multiple=self.spatial)
        return (1 + -(-(frames - 1) // self.temporal)) * (h // self.spatial) * (w // self.spatial)


def entry_of(
    sample: Sample, members: dict[str, tuple[int, int]], geometry: TokenGeometry, document: bytes
) -> StoredEntry:
    """Index entry of a sample; `tokens` counts vision tokens only, since text depends on a tokenizer.

    Args:
        members: byte offset and size of each.
        document: the JSON member.

    Raises:
        SampleError: no size near that of an element is allowed.
    """
    media = {n: (m.kind, m.frames, m.height, m.width) for n, m in sorted(sample.media.items())}
    try:
        tokens = sum(geometry.tokens(*media[name][1:]) for name in tags_of(sample.text))
    except ValueError as error:
        raise SampleError(f"{sample.key}: {error}") from None
    return StoredEntry(
        key=sample.key,
        split=sample.split,
        task=sample.task,
        text=sample.text,
        targets=sample.targets,
        media=media,
        members=dict(sorted(members.items())),
        tokens=tokens,
        json_sha256=hashlib.sha256(document).hexdigest(),
        frame_of=frames_of(sample),
        fps=rates_of(sample),
    )


def frames_of(sample: Sample) -> dict[str, tuple[str, int]]:
    """Of each image that is a frame of a video of the sample, that video and the frame's number."""
    return {
        name: (media.frame_of.element, media.frame_of.frame)
        for name, media in sorted(sample.media.items())
        if media.frame_of is not None
    }


def rates_of(sample: Sample) -> dict[str, float]:
    """Frames per second of each element that has a rate."""
    return {name: media.fps for name, media in sorted(sample.media.items()) if media.fps is not None}


def index_name(shard: str) -> str:
    """`train-000000.tar` -> `train-000000.index.json`."""
    return shard.removesuffix(".tar") + ".index.json"


def index_path(directory: Path, shard: str) -> Path:
    """The index of a shard in the same folder."""
    return directory / index_name(shard)


def write_index(directory: Path, index: ShardIndex) -> str:
    """Write one shard's index, atomically; returns its sha256 for the manifest."""
    value = index.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(index_path(directory, index.shard), text.encode())
    return hashlib.sha256(text.encode()).hexdigest()


_INDEX: TypeAdapter[ShardIndex] = TypeAdapter(ShardIndex)


def read_index(directory: str | Path, row: ManifestRow) -> ShardIndex:
    """A shard's index.

    Raises:
        ShardError: it is missing, damaged, made from another tar, or of another length than promised.
    """
    location, name = Location(directory), index_name(row.shard)
    path, remedy = location.path(name), f"run `python -m shards index {directory}`"
    try:
        data = location.read(name, limit=MAX_INDEX_BYTES)
        index = _INDEX.validate_json(data)
    except FileNotFoundError:
        raise ShardError(f"{path}: missing; {remedy}") from None
    except ValidationError as error:
        raise ShardError(f"{path}: {explain(error)}; {remedy}") from None
    if index.sha256 != row.sha256 or index.shard != row.shard:
        raise ShardError(f"{path}: was made from another {row.shard}; {remedy}")
    if row.index_sha256 is not None and hashlib.sha256(data).hexdigest() != row.index_sha256:
        raise ShardError(f"{path}: its sha256 is not the manifest's; {remedy}")
    if len(index.samples) != row.samples:
        raise ShardError(
            f"{path}: names {len(index.samples)} samples, the manifest promises {row.samples}; {remedy}"
        )
    return index


def samples_of(tar: TarReader) -> Iterator[tuple[Sample, dict[str, Member]]]:
    """The samples of a tar in order, each with its members by suffix ("json", "video1.mp4").

    Raises:
        ShardError: naming the tar and the member, for a damaged tar, a member without its sample, a sample
            whose members are missing, repeated, not contiguous or superfluous, or JSON that is no sample.
    """
    seen: set[str] = set()
    group: dict[str, Member] = {}
    last = ""
    for member in tar:
        key, _, suffix = member.name.partition(".")
        if "/" in member.name or not suffix or not key:
            raise ShardError(f"{tar.path}: member {member.name!r} is not {{key}}.{{element}}")
        if key != last:
            if group:
                yield _sample_of(tar.path, last, group), group
            if key in seen:
                raise ShardError(f"{tar.path}: the members of {key!r} are not contiguous")
            seen.add(key)
            group, last = {}, key
        if suffix in group:
            raise ShardError(f"{tar.path}: {member.name!r} is there twice")
        group[suffix] = member
    if group:
        yield _sample_of(tar.path, last, group), group


def _sample_of(path: str, key: str, members: dict[str, Member]) -> Sample:
    if "json" not in members:
        raise ShardError(f"{path}: {key!r} has no {key + '.json'!r}")
    sample = parse_document(members["json"].data, path, key)
    expected = {"json", *(m.file for m in sample.media.values())}
    if sample.key != key or expected != set(members):
        odd = sorted(expected ^ set(members)) or [f"key {sample.key}"]
        raise ShardError(f"{path}: {key!r} and its members disagree about {', '.join(map(repr, odd))}")
    return sample


def parse_document(data: bytes, path: str, key: str) -> Sample:
    """The sample of a JSON member; raises ShardError naming the tar, the member and the field at fault."""
    try:
        return parse_sample(data, f"{path}: {key}.json")
    except SampleError as error:
        raise ShardError(str(error)) from None


def damaged_media(sample: Sample, members: dict[str, Member]) -> list[str]:
    """Files whose sha256 is not the one that the sample gives, where it gives one."""
    return [
        media.file
        for media in sample.media.values()
        if media.sha256 is not None and hashlib.sha256(members[media.file].data).hexdigest() != media.sha256
    ]


def check_against_index(sample: Sample, document: bytes, entry: IndexEntry, path: str) -> None:
    """Raise ShardError where a sample's JSON is not the one that the index was made from.

    The columns say nothing of members, and have part of the checksum (`shards.columns.Columns.stored`).
    """
    media = {name: (m.kind, m.frames, m.height, m.width) for name, m in sample.media.items()}
    pairs = {
        "key": (sample.key, entry.key),
        "split": (sample.split, entry.split),
        "task": (sample.task, entry.task),
        "text": (sample.text, entry.text),
        "targets": (sample.targets, entry.targets),
        "media": (media, entry.media),
        "frame_of": (frames_of(sample), entry.frame_of),
        "fps": (rates_of(sample), entry.fps or rates_of(sample)),
    }
    if isinstance(entry, StoredEntry):
        pairs["members"] = ({"json", *(m.file for m in sample.media.values())}, set(entry.members))
    for field, (here, indexed) in pairs.items():
        if here != indexed:
            raise ShardError(f"{path}: {sample.key}.json and the index disagree about its {field}")
    expected = entry.json_sha256 if isinstance(entry, StoredEntry) else None
    if expected is not None and hashlib.sha256(document).hexdigest() != expected:
        raise ShardError(f"{path}: {sample.key}.json: damaged, its sha256 is not the index's")


def extent(entry: StoredEntry, path: str) -> tuple[int, int]:
    """Byte offsets at which the members of a sample begin and end; they lie side by side, headers between.

    Raises:
        ShardError: the index places them elsewhere, or has no JSON member.
    """
    first = min((offset for offset, _ in entry.members.values()), default=0)
    last = max((offset + size for offset, size in entry.members.values()), default=0)
    room = sum(size + MAX_HEADERS for _, size in entry.members.values())
    if "json" not in entry.members or last - first > room:
        raise ShardError(f"{path}: its index is damaged: the members of {entry.key!r} are not side by side")
    return first, last


def entry_in_tar(sample: Sample, members: dict[str, Member], path: str) -> StoredEntry:
    """`entry_of` of a sample that was read from a tar; raises ShardError."""
    places = {suffix: (member.offset, len(member.data)) for suffix, member in members.items()}
    try:
        return entry_of(sample, places, TokenGeometry(), members["json"].data)
    except SampleError as error:
        raise ShardError(f"{path}: {error}") from None


def rebuild(directory: str | Path, accept_loss: bool = False) -> list[ManifestRow]:
    """Rebuild every index and the manifest from the tars of a folder.

    Args:
        accept_loss: keep what remains where samples that the manifest or an index names are gone. A damaged
            tar is then left out, and renamed to `NAME.tar.damaged`.

    Raises:
        ShardError: a tar is damaged, two hold one key, or samples would be lost; nothing was written then.
    """
    directory = Path(directory)
    tars = [path for path in sorted(directory.glob("*.tar")) if not path.name.startswith(".")]
    if not tars:
        raise ShardError(f"{directory}: holds no .tar shard")
    indexes: dict[str, tuple[ShardIndex, int]] = {}
    damaged: dict[Path, ShardError] = {}
    shard_of: dict[str, str] = {}
    for path in tars:
        try:
            indexes[path.name] = _index_of(path)
        except ShardError as error:
            damaged[path] = error
            continue
        for entry in indexes[path.name][0].samples:
            other = shard_of.setdefault(entry.key, path.name)
            if other != path.name:
                raise ShardError(f"{path}: {entry.key} is also in {other}; remove one of the two")
    choice = "or pass --accept_loss true to keep what remains; nothing was changed"
    if damaged and not accept_loss:
        more = f" ({len(damaged)} tars are damaged)" if len(damaged) > 1 else ""
        raise ShardError(f"{next(iter(damaged.values()))}{more}; restore it from a copy, {choice}")
    losses = list(_losses(directory, {name: index for name, (index, _) in indexes.items()}))
    if losses and not accept_loss:
        raise ShardError(f"{directory}: samples would be lost: {'; '.join(losses)}; restore them, {choice}")
    for path in damaged:
        path.rename(path.with_name(path.name + ".damaged"))
    rows = []
    for name, (index, size) in indexes.items():
        digest = write_index(directory, index)
        rows.append(
            ManifestRow(
                shard=name,
                sha256=index.sha256,
                samples=len(index.samples),
                bytes=size,
                index_sha256=digest,
            )
        )
    write_manifest(directory, rows)
    return rows


def _index_of(path: Path) -> tuple[ShardIndex, int]:
    """The index that a tar should have, and its size; ShardError when it is damaged."""
    entries = []
    with Location(path.parent).open(path.name) as handle:
        tar = TarReader(handle, str(path))
        for sample, members in samples_of(tar):
            for file in damaged_media(sample, members):
                raise ShardError(f"{path}: {sample.key}.{file}: its sha256 is not the sample's")
            entries.append(entry_in_tar(sample, members, str(path)))
    return ShardIndex(shard=path.name, sha256=tar.sha256, samples=entries), tar.bytes


def _losses(directory: Path, present: dict[str, ShardIndex]) -> Iterator[str]:
    """What the manifest and the indexes of a folder promise and its tars lack, one phrase per shard.

    Files that are damaged themselves promise nothing: to rebuild them is what `rebuild` is for.
    """
    keys = {entry.key for index in present.values() for entry in index.samples}
    rows: dict[str, ManifestRow] = {}
    with contextlib.suppress(ShardError):
        rows = {row.shard: row for row in read_manifest(directory)}
    beside = {path.name.removesuffix(".index.json") + ".tar" for path in directory.glob("*.index.json")}
    for shard in sorted({*rows, *beside}):
        row, older, now = rows.get(shard), _older_index(directory, shard), present.get(shard)
        if row is not None and older is not None and row.index_sha256 not in (None, older[1]):
            older = None
        if now is not None and now.sha256 in (row and row.sha256, older and older[0].sha256):
            continue  # the very tar that was promised
        lost = sorted({entry.key for entry in older[0].samples} - keys) if older else []
        total = max(row.samples if row else 0, len(older[0].samples) if older else 0)
        fewer = row.samples - (len(now.samples) if now else 0) if row and not older else 0
        if lost or fewer > 0:
            names = f" ({', '.join(map(repr, lost[:3]))}{', ...' * (len(lost) > 3)})" if lost else ""
            yield f"{len(lost) or fewer} of the {total} of {shard}{names}"


def _older_index(directory: Path, shard: str) -> tuple[ShardIndex, str] | None:
    """The index that is there and its sha256; None where it cannot be read."""
    try:
        data = Location(directory).read(index_name(shard), limit=MAX_INDEX_BYTES)
        return _INDEX.validate_json(data), hashlib.sha256(data).hexdigest()
    except (FileNotFoundError, ShardError, ValidationError):
        return None
