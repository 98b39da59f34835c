"""The manifest of a shard folder: its shards and the checksums of all that is in them.

`manifest.jsonl` is written last, so a shard that it names is complete. A chain of checksums binds them: a row
of the manifest holds that of the manifest, of the index and of the tar; the index that of each sample's JSON;
the JSON those of its media. So a reader notices any damage in what it reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from shards.files import write_bytes
from shards.limits import MAX_INDEX_BYTES
from shards.location import Location, ShardError
from shards.sample import Sha256, Strict, explain

MANIFEST = "manifest.jsonl"

Bytes = Annotated[int, Field(ge=0, lt=1 << 62)]  # a size or an offset


class ManifestRow(Strict):
    """One line of the manifest; `index_sha256` is that of the index file, none in older folders."""

    shard: str
    sha256: Sha256
    samples: Bytes
    bytes: Bytes
    index_sha256: Sha256 | None = None


class _SealedRow(ManifestRow):
    """A row as it is written: with the sha256 of all rows, so that none can change or go unnoticed."""

    manifest_sha256: Sha256 | None = None


def seal(lines: Iterable[bytes]) -> str:
    """The checksum that every row carries: sha256 of the rows without it, each on a line."""
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _line(row: ManifestRow) -> bytes:
    value = row.model_dump(mode="json", exclude={"manifest_sha256"}, exclude_none=True)
    return (json.dumps(value, sort_keys=True) + "\n").encode()


def write_manifest(directory: Path, rows: list[ManifestRow]) -> None:
    """Write the manifest, sorted by shard name, atomically."""
    ordered = sorted(rows, key=lambda row: row.shard)
    digest = seal(map(_line, ordered))
    lines = [json.loads(_line(row)) | {"manifest_sha256": digest} for row in ordered]
    write_bytes(directory / MANIFEST, "".join(json.dumps(x, sort_keys=True) + "\n" for x in lines).encode())


def read_manifest(directory: str | Path) -> list[ManifestRow]:
    """The manifest's rows.

    Raises:
        ShardError: the folder or URL has none, a line is malformed, a shard is named twice, or its name is
            not that of a tar in the folder.
    """
    location = Location(directory)
    path = location.path(MANIFEST)
    try:
        data = location.read(MANIFEST, limit=MAX_INDEX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(
            f"{directory}: no {MANIFEST} here; is this a shard folder, and has packing finished?"
        ) from None
    rows: list[_SealedRow] = []
    names: set[str] = set()
    # Lines end in \n alone: a damaged end of line must not pass as another kind of it.
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else [], 1):
        try:
            row = _SealedRow.model_validate_json(line)
        except ValidationError as error:
            raise ShardError(f"{path}:{number}: {explain(error)}") from None
        if Path(row.shard).name != row.shard or not row.shard.isprintable() or "\\" in row.shard:
            raise ShardError(f"{path}:{number}: shard name {row.shard!r} leaves the folder")
        if not row.shard.endswith(".tar"):
            raise ShardError(f"{path}:{number}: shard name {row.shard!r} does not end in .tar")
        if row.shard in names:
            raise ShardError(f"{path}:{number}: names {row.shard} a second time")
        names.add(row.shard)
        rows.append(row)
    seals = {row.manifest_sha256 for row in rows}
    plain = [ManifestRow(**row.model_dump(exclude={"manifest_sha256"})) for row in rows]
    if seals - {None} and seals != {seal(map(_line, plain))}:
        raise ShardError(
            f"{path}: damaged, its rows are not those that were written (manifest_sha256); "
            f"run `python -m shards index {directory}`"
        )
    return plain
