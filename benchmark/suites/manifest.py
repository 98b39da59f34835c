"""Items of benchmarks that come as a list and a folder of media: what all such suites have in common."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from benchmark.core.fingerprint import content_of
from benchmark.core.item import BenchmarkError, Geometry, Item, Loaded
from benchmark.core.media import geometry_of, locate, read_frames, reading_mode
from shards.errors import EditVerseError
from shards.files import OutsideError
from shards.hashing import digest
from shards.limits import MAX_JSON_BYTES, parse_json, parse_yaml, read_bytes

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
        data = read_bytes(path, MAX_JSON_BYTES)
        value = (
            parse_yaml(data.decode("utf-8"), str(path))
            if path.suffix in (".yaml", ".yml")
            else parse_json(data, str(path), object_pairs_hook=first_ones)
        )
    except FileNotFoundError:
        raise BenchmarkError(f"{path}: not found; it should be {what}") from None
    except (OSError, ValueError, EditVerseError) as error:
        raise BenchmarkError(f"{path}: cannot be read ({error}); it should be {what}") from error
    remarks = [f"{path.name}: {key} is listed {n + 1} times; the first counts" for key, n in twice.items()]
    return value, hashlib.sha256(data).hexdigest(), remarks


def unlike_published(path: Path, count: int, name: str, published: int) -> list[str]:
    """A remark where a list is not as long as the published one."""
    if count == published:
        return []
    return [
        f"{path.name} lists {count} edits, {name} has {published}: means over it do not compare with "
        "published ones"
    ]


def wrong_entry(path: Path, id: str, error: ValidationError) -> str:
    """What is wrong with an entry, by its field."""
    first = error.errors(include_url=False)[0]
    return f"{path.name}: entry {id}: {'.'.join(map(str, first['loc']))}: {first['msg']}"


class Media:
    """A list's media under `root`; each is hashed and measured once, however many items name it.

    What lies outside of `root` is refused: lists come from elsewhere, and what they name is shown to a judge
    and on the page.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.mode = root, reading_mode()
        self.content, self.geometry = functools.cache(self._content), functools.cache(self._geometry)

    def place(self, path: str) -> Path:
        """Where a medium lies; OutsideError for one that is not under `root`."""
        return locate(self.root, path)

    def exists(self, path: str) -> bool:
        """Whether there is something at a place under `root`; one outside of it is no such place."""
        try:
            return self.place(path).exists()
        except OutsideError:
            return False

    def _content(self, path: str) -> str:
        digest = content_of(str(self.place(path)))
        if digest is None:
            raise BenchmarkError(
                f"{self.root / path} is missing; its suite's documentation says where to get it"
            )
        return digest

    def _geometry(self, path: str) -> Geometry:
        return geometry_of(self.place(path), RATE, self.mode)

    def frames(self, path: str) -> np.ndarray:
        """uint8 RGB [T, H, W, 3], read as the mode says in which the list was opened."""
        return read_frames(self.place(path), self.mode)


def media_item(
    id: str,
    task: str,
    text: str,
    kept: Media,
    media: Mapping[str, str],
    result: str,
    prompts: Mapping[str, str],
    category: str = "",
    facets: Mapping[str, str] | None = None,
    target: str | None = None,
    beside: str = "",
) -> Item:
    """An item whose source is the first of its media.

    Args:
        media: paths below the root of `kept`, by element name.
        result, beside: see `Item`.
        category, facets, prompts: see `Item`.
        target: path of the result that is wanted, where one is known.

    A medium that is missing or unreadable is the item's fault; one that the text does not name is the
    suite's, a BenchmarkError.
    """
    unnamed = [name for name in media if f"<{name}>" not in text]
    if unnamed:
        raise BenchmarkError(f"{id}: media has {unnamed[0]!r}, but the text names no <{unnamed[0]}>")
    facets = facets or {}
    source = next(iter(media.values()))
    digests: dict[str, str] = {}
    native: Geometry | None = None
    fault = None
    try:
        for name, path in media.items():
            digests[name] = kept.content(path)
        if target is not None:
            digests["target"] = kept.content(target)
        native = kept.geometry(source)
    except (EditVerseError, OSError, ValueError) as error:
        fault = str(error)

    def load() -> Loaded:
        if fault is not None:
            raise BenchmarkError(fault)
        assert native is not None
        try:
            places = {name: kept.place(path) for name, path in media.items()}
            inputs = {name: place.read_bytes() for name, place in places.items() if place.is_file()}
            wanted = None if target is None else kept.frames(target)
            return Loaded(kept.frames(source), wanted, None, native.fps, inputs)
        except (EditVerseError, OSError, ValueError) as error:
            raise BenchmarkError(str(error)) from error

    def encoded() -> Path:
        if fault is not None:
            raise BenchmarkError(fault)
        return kept.place(source)

    content = digest(digests, "spaced")
    clip = next(iter(digests.values()), source)  # edits of one source that is missing belong together too
    return Item(
        id,
        task,
        category,
        text,
        content,
        clip,
        id,
        native,
        load,
        prompts,
        fault,
        facets,
        result,
        beside,
        encoded,
    )


def faulty(id: str, reason: str, result: str) -> Item:
    """An item whose entry in the list cannot be used."""

    def load() -> Loaded:
        raise BenchmarkError(reason)

    return Item(id, "unusable", "", "", "", id, id, None, load, {}, reason, {}, result)
