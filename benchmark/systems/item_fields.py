"""What an item offers an editor, by name, and texts with those names in braces.

`{instruction}` is an item's words, `{video}` its frames, `{mask?}` its mask or nothing where it has none,
`{target_prompt|instruction}` the first of the two that there is. A text that is one field alone stands for
the field itself, in a longer text the field is written out. The same names serve the arguments of a
pipeline, a program's command line and a server's form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmark.core.item import BenchmarkError, Item, Loaded, shrink_mask
from benchmark.suites import instruction_of
from shards.limits import shown
from shards.media import read_image, read_mask, read_video, resize

WORDS = {"text": "text", "instruction": "instruction", "target_prompt": "target", "source_prompt": "source"}
NUMBERS = ("frames", "height", "width", "fps", "seed")
MEDIA = ("video", "image", "mask", "masked", "region", "references", "reference")
PICTURES = (b"\x89PNG", b"\xff\xd8", b"RIFF")  # what a picture's bytes begin with: PNG, JPEG, WebP
GREY = 127  # of masked media inside their mask
PLACE = re.compile(r"\{([a-z_]+(?:\|[a-z_]+)*)(\?)?\}")


class MissingField(BenchmarkError):
    """An item lacks what an editor needs."""


@dataclass(frozen=True)
class Shape:
    """The sizes and lengths that an editor takes; what an item has is brought to them.

    Attributes:
        multiple: sides divide by it.
        area: pixels of a frame at most; larger frames are scaled down. None takes any.
        stride: lengths are 1 + stride x k; a shorter clip is filled up with its last frame, and what was
            made of it is cut again.
        longest: frames at most; of a longer clip the first ones are edited, and the page says so.
    """

    multiple: int = 1
    area: int | None = None
    stride: int = 1
    longest: int | None = None

    def __post_init__(self) -> None:
        for name in ("multiple", "area", "stride", "longest"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise BenchmarkError(f"shape: {name} is {shown(value)}, a number of at least 1 is needed")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) nearest to a frame's own, with the aspect kept to the multiple."""
        scale = min(1.0, math.sqrt((self.area or math.inf) / (height * width)))
        sides = [max(1, round(side * scale / self.multiple)) * self.multiple for side in (height, width)]
        while self.area and sides[0] * sides[1] > self.area and max(sides) > self.multiple:
            sides[sides.index(max(sides))] -= self.multiple
        return sides[0], sides[1]

    def length(self, frames: int) -> int:
        """Frames that the editor is given for a clip of so many."""
        longest = self.longest or frames + self.stride
        return 1 + min(-(-(frames - 1) // self.stride), (longest - 1) // self.stride) * self.stride


class Fields:
    """An item's fields at the shape that an editor takes.

    `video` and `image` (its first frame, or the one at hand) are uint8 RGB. `mask` is bool, True where the
    words ask for a change, and missing where the words give no mask; `masked` is grey inside it; `region` is
    the mask that the suite knows, whether or not the words give it: an editor that takes it is told more than
    the words. These three move with `video`, and are stills for an editor that takes `image` alone.
    `references` are the pictures that are not edited, a list, and `reference` the first.
    """

    def __init__(self, item: Item, loaded: Loaded, shape: Shape, seed: int, frame: int | None = None) -> None:
        """`frame` makes stills of the clip: the fields of that frame alone."""
        self.item, self.loaded, self.shape, self.seed, self.frame = item, loaded, shape, seed, frame

    @cached_property
    def source(self) -> np.ndarray:
        """uint8 RGB [T, H, W, 3], as the editor takes it."""
        return self._fitted(self.loaded.source)

    def _fitted(self, frames: np.ndarray) -> np.ndarray:
        return resize(frames[self._times(len(frames))], self.shape.size(*frames.shape[1:3]))

    def _times(self, count: int) -> np.ndarray:
        if self.frame is not None:
            return np.array([min(self.frame, count - 1)])
        return np.minimum(np.arange(self.shape.length(count)), count - 1)

    @property
    def kept(self) -> int:
        """Frames of a result that are the source's; the rest filled up its length."""
        return min(len(self.source), len(self.loaded.source))

    @cached_property
    def mask(self) -> np.ndarray | None:
        """bool [T, H, W] of the mask that the words give; a picture's is held for all frames."""
        data = next((data for name, data in self.loaded.inputs.items() if name.startswith("mask")), None)
        if data is None:
            return None
        drawn = data.startswith(PICTURES)
        return self._held(read_image(data)[None, ..., 0] > GREY if drawn else read_mask(data))

    @cached_property
    def region(self) -> np.ndarray | None:
        """bool [T, H, W] of the mask that the suite knows, or that the words give."""
        return self.mask if self.loaded.mask is None else self._held(self.loaded.mask)

    def _held(self, mask: np.ndarray) -> np.ndarray:
        times = np.minimum(self._times(len(self.loaded.source)), len(mask) - 1)
        return shrink_mask(mask[times], self.source.shape[1:3])

    @cached_property
    def references(self) -> list[np.ndarray]:
        """uint8 RGB [H, W, 3] of the pictures beside what is edited, and of further videos' first frames."""
        found = []
        for name, data in list(self.loaded.inputs.items())[1:]:
            if name.startswith("image"):
                found.append(read_image(data))
            elif name.startswith("video"):
                found.append(read_video(data)[0][0])
        return found

    def get(self, name: str) -> Any:
        """The value of a field; None where the item lacks it."""
        if name in WORDS:
            return self.words(self.item, name)
        if name in ("frames", "height", "width"):
            return int(self.source.shape[("frames", "height", "width").index(name)])
        if name in ("fps", "seed"):
            return self.loaded.fps if name == "fps" else self.seed
        if name in ("video", "image"):
            return self.source if name == "video" else self.source[0]
        if name in ("references", "reference"):
            found = self.references
            return (found if name == "references" else found[0]) if found else None
        mask = self.region if name == "region" else self.mask
        if mask is not None and name == "masked":
            mask = np.where(mask[..., None], np.uint8(GREY), self.source)
        return mask if mask is None or self.frame is None else mask[0]

    @staticmethod
    def words(item: Item, name: str) -> str | None:
        """An item's words by the field's name; "" counts as missing."""
        if name == "text":
            return item.text or None
        told = item.prompts.get(WORDS[name])
        return told or (instruction_of(item.text) if name == "instruction" else None) or None


def placeholders(value: Any, extra: Iterable[str] = ()) -> list[str]:
    """The fields that a text, or the texts of a list or a mapping, name; in their order, each once.

    Raises BenchmarkError for a name that is no field and none of `extra`.
    """
    known = (*WORDS, *NUMBERS, *MEDIA, *extra)
    found = [name for text in _texts(value) for names, _ in PLACE.findall(text) for name in names.split("|")]
    if unknown := next((name for name in found if name not in known), None):
        raise BenchmarkError(f"{{{unknown}}}: no such field; there are {', '.join(known)}")
    return list(dict.fromkeys(found))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def filled(value: Any, get: Callable[[str], Any]) -> Any:
    """A text with its fields filled in, or the value of the one field that it is; other values as they are.

    None where a field is missing that may be (`{mask?}`).

    Raises:
        MissingField: one that may not is.
        BenchmarkError: a field amid words that cannot be written out.
    """
    if not isinstance(value, str):
        return value
    if alone := PLACE.fullmatch(value):
        return _chosen(alone, get)
    parts, end = [], 0
    for place in PLACE.finditer(value):
        found = _chosen(place, get)
        if found is None:
            return None
        if not isinstance(found, str | int | float):
            raise BenchmarkError(f"{value!r}: {place[0]} cannot stand amid words")
        parts += [value[end : place.start()], f"{found:g}" if isinstance(found, float) else str(found)]
        end = place.end()
    return "".join([*parts, value[end:]])


def _chosen(place: re.Match[str], get: Callable[[str], Any]) -> Any:
    for name in place[1].split("|"):
        found = get(name)
        if found is not None:
            return found
    if place[2]:
        return None
    raise MissingField(f"the item has no {place[1].replace('|', ' or ').replace('_', ' ')}, which it needs")
