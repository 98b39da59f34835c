"""What a score depends on besides the item, and the hashes of files.

Scores are stored under it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any


def fingerprint(value: Any) -> Any:
    """What a score depends on besides the item: a metric's settings and networks, as JSON values.

    A file or a folder of weights that is named counts by its content.
    """
    if hasattr(value, "identity"):
        return fingerprint(value.identity)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: fingerprint(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__qualname__, **fields}
    if hasattr(value, "describe"):  # an annotator of the curation
        return fingerprint(value.describe())
    if isinstance(value, dict):
        return {str(k): fingerprint(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [fingerprint(v) for v in value]
    if isinstance(value, str) and value and (digest := _weights(value)):
        return digest
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} has no identity, so its scores cannot be stored")


@lru_cache(maxsize=64)
def _weights(path: str) -> str | None:
    """`content_of`, once per process: weights are large, and do not change under a run."""
    return content_of(path)


def content_of(path: str) -> str | None:
    """sha256 of a file, or of all files of a folder; None where there is neither."""
    place = Path(path)
    if len(path) > 1000 or "\0" in path or not (place.is_file() or place.is_dir()):
        return None
    digest = hashlib.sha256()
    for file in sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
