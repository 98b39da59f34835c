"""The manifest of a shard folder and the index of each shard; both can be rebuilt from the tars.

`manifest.jsonl` is written last, so a shard that it names is complete.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shards.files import sha256_of, write_bytes
from shards.location import Location, ShardError
from shards.media import fit_size
from shards.sample import Kind, Sample, SampleError, Sha256, Strict, explain, parse_sample, tags_of

MANIFEST = "manifest.jsonl"


class ManifestRow(Strict):
    """One line of the manifest."""

    shard: str
    sha256: Sha256
    samples: int
    bytes: int


class IndexEntry(Strict):
    """One sample of a shard: where its members lie, and what a planner must know without opening the tar."""

    key: str
    split: str
    task: str
    text: str
    targets: list[str]
    media: dict[str, tuple[Kind, int, int, int]]  # name -> kind, frames, height, width
    members: dict[str, tuple[int, int]]  # member suffix ("json", "video1.mp4") -> byte offset, size
    tokens: int


class ShardIndex(Strict):
    """The index file of one shard; `sha256` is that of the tar it was made from."""

    shard: str
    sha256: Sha256
    samples: list[IndexEntry]


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


def entry_of(sample: Sample, members: dict[str, tuple[int, int]], geometry: TokenGeometry) -> IndexEntry:
    """Index entry of a sample; `tokens` counts vision tokens only, since text depends on a tokenizer."""
    media = {n: (m.kind, m.frames, m.height, m.width) for n, m in sorted(sample.media.items())}
    return IndexEntry(
        key=sample.key,
        split=sample.split,
        task=sample.task,
        text=sample.text,
        targets=sample.targets,
        media=media,
        members=dict(sorted(members.items())),
        tokens=sum(geometry.tokens(*media[name][1:]) for name in tags_of(sample.text)),
    )


def index_name(shard: str) -> str:
    """`train-000000.tar` -> `train-000000.index.json`."""
    return shard.removesuffix(".tar") + ".index.json"


def index_path(directory: Path, shard: str) -> Path:
    """The index of a shard in the same folder."""
    return directory / index_name(shard)


def write_manifest(directory: Path, rows: list[ManifestRow]) -> None:
    """Write the manifest, sorted by shard name, atomically."""
    ordered = sorted(rows, key=lambda row: row.shard)
    lines = [json.dumps(row.model_dump(mode="json"), sort_keys=True) + "\n" for row in ordered]
    write_bytes(directory / MANIFEST, "".join(lines).encode())


def write_index(directory: Path, index: ShardIndex) -> None:
    """Write one shard's index, atomically."""
    text = json.dumps(index.model_dump(mode="json"), sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(index_path(directory, index.shard), text.encode())


def read_manifest(directory: str | Path) -> list[ManifestRow]:
    """The manifest's rows; raises ShardError when the folder or URL has none or a line is malformed."""
    location = Location(directory)
    path = location.path(MANIFEST)
    try:
        text = location.read(MANIFEST).decode()
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(
            f"{directory}: no {MANIFEST} here; is this a shard folder, and has packing finished?"
        ) from None
    except UnicodeDecodeError as error:
        raise ShardError(f"{path}: {error}") from None
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = ManifestRow.model_validate_json(line)
        except ValidationError as error:
            raise ShardError(f"{path}:{number}: {explain(error)}") from None
        if Path(row.shard).name != row.shard:
            raise ShardError(f"{path}:{number}: shard name {row.shard!r} leaves the folder")
        rows.append(row)
    return rows


_INDEX: TypeAdapter[ShardIndex] = TypeAdapter(ShardIndex)


def read_index(directory: str | Path, row: ManifestRow) -> ShardIndex:
    """A shard's index; raises ShardError when it is missing, malformed, or made from another tar."""
    location, name = Location(directory), index_name(row.shard)
    path, remedy = location.path(name), f"run `python -m shards index {directory}`"
    try:
        index = _INDEX.validate_json(location.read(name))
    except FileNotFoundError:
        raise ShardError(f"{path}: missing; {remedy}") from None
    except ValidationError as error:
        raise ShardError(f"{path}: {explain(error)}; {remedy}") from None
    if index.sha256 != row.sha256:
        raise ShardError(f"{path}: was made from another {row.shard}; {remedy}")
    return index


def scan(path: Path, geometry: TokenGeometry | None = None) -> list[tuple[Sample, IndexEntry]]:
    """Read the samples of a tar in order, with the place of every member.

    Raises ShardError naming the tar and the member for a truncated tar, a member without its sample, a
    sample whose members are missing, not contiguous or superfluous, or JSON that is no sample.
    """
    geometry = geometry or TokenGeometry()
    found: list[tuple[Sample, IndexEntry]] = []
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    documents: dict[str, bytes] = {}
    last = ""
    try:
        with tarfile.open(path, "r:") as tar:
            size = path.stat().st_size
            for member in tar:
                key, _, suffix = member.name.partition(".")
                if not member.isfile() or "/" in member.name or not suffix:
                    raise ShardError(f"{path}: member {member.name!r} is not {{key}}.{{element}}")
                if member.offset_data + member.size > size:
                    raise ShardError(f"{path}: truncated inside {member.name}")
                if key != last and key in groups:
                    raise ShardError(f"{path}: the members of {key} are not contiguous")
                if suffix in groups.setdefault(key, {}):
                    raise ShardError(f"{path}: {member.name} is there twice")
                groups[key][suffix] = (member.offset_data, member.size)
                last = key
                if suffix == "json":
                    handle: Any = tar.extractfile(member)
                    documents[key] = handle.read()
            if size % 512 or size < tar.offset + 512:
                raise ShardError(f"{path}: truncated, the end-of-archive blocks are missing")
    except (tarfile.TarError, EOFError) as error:
        raise ShardError(f"{path}: not a complete tar ({error})") from None
    for key, members in groups.items():
        if key not in documents:
            raise ShardError(f"{path}: {key} has no {key}.json")
        try:
            sample = parse_sample(documents[key], f"{path}: {key}.json")
        except SampleError as error:
            raise ShardError(str(error)) from None
        wanted = {"json", *(m.file for m in sample.media.values())}
        if sample.key != key or wanted != set(members):
            odd = sorted(wanted ^ set(members)) or [f"key {sample.key}"]
            raise ShardError(f"{path}: {key} and its members disagree about {', '.join(odd)}")
        found.append((sample, entry_of(sample, members, geometry)))
    return found


def rebuild(directory: str | Path) -> list[ManifestRow]:
    """Rebuild every index and the manifest from the tars of a folder."""
    directory = Path(directory)
    tars = sorted(directory.glob("*.tar"))
    if not tars:
        raise ShardError(f"{directory}: holds no .tar shard")
    rows = []
    for path in tars:
        entries = [entry for _, entry in scan(path)]
        row = ManifestRow(
            shard=path.name, sha256=sha256_of(path), samples=len(entries), bytes=path.stat().st_size
        )
        write_index(directory, ShardIndex(shard=row.shard, sha256=row.sha256, samples=entries))
        rows.append(row)
    write_manifest(directory, rows)
    return rows
