"""A clip through an editor that takes pictures, frame by frame, and through one that takes clips, at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from benchmark.core.item import BenchmarkError, Item, Loaded
from benchmark.systems.item_fields import WORDS, Fields, Shape


def takes_stills(names: Iterable[str]) -> bool:
    """Whether an editor that is given these fields takes pictures and no clips."""
    held = set(names)
    return "image" in held and "video" not in held


def words_of(item: Item, names: Iterable[str]) -> dict[str, str | None]:
    """The item's words among these fields: an edit depends on no others."""
    return {name: Fields.words(item, name) for name in names if name in WORDS}


def edited_frames(
    item: Item,
    loaded: Loaded,
    shape: Shape,
    seed: int,
    still: bool,
    call: Callable[[Fields], np.ndarray],
) -> np.ndarray:
    """uint8 RGB [T, H, W, 3] that an editor made of an item.

    Args:
        still: each frame is edited on its own, with the same seed; else the clip at once.
        call: gives uint8 RGB [T, H, W, 3] of fields.

    What filled up the clip's length is cut off again. Raises BenchmarkError where frames differ in size.
    """
    if not still:
        fields = Fields(item, loaded, shape, seed)
        made = call(fields)
        return made[: fields.kept] if len(made) == len(fields.source) else made
    count = min(len(loaded.source), shape.longest or len(loaded.source))
    frames = [call(Fields(item, loaded, shape, seed, frame))[0] for frame in range(count)]
    if len({frame.shape for frame in frames}) != 1:
        raise BenchmarkError("made frames of different sizes")
    return np.stack(frames)
