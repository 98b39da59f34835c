"""Items of benchmarks that come as a list and a folder of media: what all such suites have in common."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmark.item import BenchmarkError, Geometry, Item, Loaded
from benchmark.metrics.config import content_of
from benchmark.systems import geometry_of, read_frames
from shards.media import MediaError

RATE = 10.0  # of sources that are pictures: nobody says one


def read_list(path: Path, what: str) -> tuple[Any, str, list[str]]:
    """(value, sha256, remarks) of a JSON or YAML file; of keys that are there twice the first counts.

    Raises BenchmarkError naming the file, and saying by `what` what it should be.
    """
    twice: Counter[str] = Counter()

    def first_ones(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            twice.update([key] if key in found else [])
            found.setdefault(key, value)
        return found

    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
        value = (
            yaml.safe_load(text)
            if path.suffix in (".yaml", ".yml")
            else json.loads(text, object_pairs_hook=first_ones)
        )
    except FileNotFoundError:
        raise BenchmarkError(f"{path}: not found; it should be {what}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BenchmarkError(f"{path}: cannot be read ({error}); it should be {what}") from error
    remarks = [f"{path.name}: {key} is listed {n + 1} times; the first counts" for key, n in twice.items()]
    return value, hashlib.sha256(data).hexdigest(), remarks


def media_item(
    id: str,
    task: str,
    text: str,
    root: Path,
    media: Mapping[str, str],
    result: str,
    prompts: Mapping[str, str],
    category: str = "",
    facets: Mapping[str, str] | None = None,
) -> Item:
    """An item whose source is the first of its media.

    Args:
        media: paths relative to `root` by element name.
        result: see `Item.result`.
        category, facets, prompts: see `Item`.

    A medium that is missing or unreadable is the item's fault.
    """
    facets = facets or {}
    places = {name: root / path for name, path in media.items()}
    source = next(iter(places.values()))
    digests: dict[str, str] = {}
    native: Geometry | None = None
    fault = None
    try:
        for name, place in places.items():
            digest = content_of(str(place))
            if digest is None:
                raise BenchmarkError(f"{place} is missing; its suite's documentation says where to get it")
            digests[name] = digest
        native = geometry_of(source, RATE)
    except (BenchmarkError, MediaError, OSError, ValueError) as error:
        fault = str(error)

    def load() -> Loaded:
        if fault is not None:
            raise BenchmarkError(fault)
        assert native is not None
        try:
            inputs = {name: place.read_bytes() for name, place in places.items() if place.is_file()}
            return Loaded(read_frames(source), None, None, native.fps, inputs)
        except (OSError, ValueError) as error:
            raise BenchmarkError(str(error)) from error

    content = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    clip = next(iter(digests.values()), id)
    return Item(id, task, category, text, content, clip, id, native, load, prompts, fault, facets, result)


def faulty(id: str, reason: str, result: str) -> Item:
    """An item whose entry in the list cannot be used."""

    def load() -> Loaded:
        raise BenchmarkError(reason)

    return Item(id, "unusable", "", "", "", id, id, None, load, {}, reason, {}, result)
