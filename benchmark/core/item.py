"""What passes between suites, metrics and reports: an item, its decoded frames, a score that is missing.

A suite yields `Item`s; `Item.load` decodes one; metrics see the frames as a `Reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np

from benchmark.core.optical_flow import backward_flow
from shards.errors import EditVerseError
from shards.frames import ring_brush
from shards.media import Size, resize

Mode = Literal["official", "corrected"]  # as the published code computes, or without its faults


class BenchmarkError(EditVerseError, ValueError):
    """A request that cannot be carried out; the message names the file or setting and what to do."""


class NoTarget(BenchmarkError):
    """A metric that compares with the wanted result was asked about an item that has none."""


class RunStopped(BenchmarkError):
    """What no item can be scored without is missing (weights, an endpoint): it ends the run, not an item."""


@dataclass(frozen=True)
class Unscored:
    """A score that could not be obtained, and why. Never replaced by a number, left out of every mean.

    `usage` is what asking for it took, as `Worded.usage`. `retry` says that it is a failure and no finding:
    the next run asks again (a service that was down), where it otherwise keeps the reason (no mask). `kind`
    is the failure's: `timeout`, `transport`, `server`, `busy`, `quota`, `request`, `filter`, `refusal`,
    `answer` of somebody who was asked; `edit` of an editor; `error` is what a metric raised that no input
    accounts for.
    """

    reason: str
    usage: Mapping[str, int] = field(default_factory=dict, compare=False)
    retry: bool = False
    kind: str = ""


class Worded(float):
    """A score and what was said about it, such as a judge's words; they are kept and shown beside it.

    `usage` counts what asking for it took: `requests`, `prompt_tokens`, `completion_tokens`. `repeats` are
    the values that the score is the mean of, where the same was asked several times.
    """

    words: str
    usage: Mapping[str, int]
    repeats: tuple[float, ...]

    def __new__(
        cls,
        value: float,
        words: str,
        usage: Mapping[str, int] | None = None,
        repeats: tuple[float, ...] = (),
    ) -> Self:
        made = super().__new__(cls, value)
        made.words, made.usage, made.repeats = words, dict(usage or {}), repeats
        return made

    def __reduce__(self) -> tuple[type, tuple[float, str, Mapping[str, int], tuple[float, ...]]]:
        return type(self), (float(self), self.words, self.usage, self.repeats)


@dataclass(frozen=True)
class Geometry:
    """Frames, size (pixels) and rate (frames per second) at which the rows of an item are compared."""

    frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True)
class Loaded:
    """An item's decoded media.

    Attributes:
        source: uint8 RGB [T, H, W, 3], what is to be edited.
        target: uint8 RGB [T, H, W, 3], the result that is wanted; None when nobody knows it.
        mask: bool [T, H, W], the region that the edit concerns; None when the item has none.
        fps: frames per second of all three.
        inputs: the encoded files that an editor is given besides the text: element name -> bytes.
    """

    source: np.ndarray
    target: np.ndarray | None
    mask: np.ndarray | None
    fps: float
    inputs: dict[str, bytes]


@dataclass(frozen=True)
class Item:
    """One thing to be edited.

    Attributes:
        id: unique in its suite.
        task: such as object_removal.
        category: a finer group inside the task, such as the wording.
        text: the instruction, with tags.
        content: sha256 over the media that the scores depend on (source, target, mask).
        clip, pair: which source clip and which edit pair it comes from; intervals are clustered by these.
        native: frames, size and rate of the media themselves; None for an unreadable item.
        load: decodes the media; raises ValueError naming the file at fault.
        prompts: what metrics may compare with, by name: `target` and `source` describe the videos,
            `instruction` is the text without tags.
        fault: why the item cannot be used, when that is known before loading.
        facets: what else items are grouped by in tables, such as their orientation.
        result: where a folder of finished results has this item's, relative to the folder.
        beside: where it may have the source that the result was made of; "" for none.
        encoded: the source as it is stored, for who does not want it in memory as a whole: a file, a folder
            of pictures, or a file's bytes; raises as `load` does. None where only `load` has it.
    """

    id: str
    task: str
    category: str
    text: str
    content: str
    clip: str
    pair: str
    native: Geometry | None
    load: Callable[[], Loaded] = field(compare=False)
    prompts: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None
    facets: Mapping[str, str] = field(default_factory=dict)
    result: str = ""
    beside: str = ""
    encoded: Callable[[], Path | bytes] | None = field(default=None, compare=False)

    @property
    def words(self) -> Mapping[str, str]:
        """What metrics may compare with or ask by: `prompts`, and `text`, the instruction with its tags."""
        return {"text": self.text, **self.prompts}


def same_times(frames: np.ndarray, fps: float, geometry: Geometry) -> np.ndarray:
    """The frames shown at the times of `geometry`'s frames; axis 0 is time. The last one is held."""
    index = np.round(np.arange(geometry.frames) * fps / geometry.fps).astype(int)
    return frames[np.clip(index, 0, len(frames) - 1)]


def shrink_mask(mask: np.ndarray, size: Size) -> np.ndarray:
    """Resize a bool mask [T, H, W]; a pixel is inside when any part of its area was (area > 0)."""
    import cv2

    height, width = size
    if mask.shape[1:] == (height, width):
        return mask
    shrinks = height * width < mask.shape[1] * mask.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return np.stack([cv2.resize(m.astype(np.float32), (width, height), interpolation=how) > 0 for m in mask])


def beyond(mask: np.ndarray) -> np.ndarray:
    """bool [T, H, W]: what lies beyond a mask of that shape, widened by `ring_brush`."""
    import cv2

    brush = ring_brush(mask.shape[1:])
    return np.stack([cv2.dilate(m.astype(np.uint8), brush) == 0 for m in mask])


class Reference:
    """An item's source, target and mask at the geometry of the results, and its prompts, for the metrics.

    Everything derived (outside region, flow of the target) is computed once, and serves every row.
    """

    def __init__(
        self,
        media: Loaded | Callable[[], Loaded],
        geometry: Geometry,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        """`media` is decoded when something of it is asked for."""
        self._media, self.geometry, self.prompts = media, geometry, prompts or {}

    @cached_property
    def _loaded(self) -> Loaded:
        return self._media if isinstance(self._media, Loaded) else self._media()

    @property
    def original(self) -> np.ndarray:
        """The source as it is, for what the published code takes frame by frame."""
        return self._loaded.source

    @property
    def inputs(self) -> Mapping[str, bytes]:
        """The encoded files that an editor is given, by element name."""
        return self._loaded.inputs

    def _at(self, frames: np.ndarray) -> np.ndarray:
        size = (self.geometry.height, self.geometry.width)
        return resize(same_times(frames, self._loaded.fps, self.geometry), size)

    @cached_property
    def source(self) -> np.ndarray:
        """uint8 RGB [T, H, W, 3] that is edited."""
        return self._at(self._loaded.source)

    @cached_property
    def wanted(self) -> np.ndarray | None:
        """uint8 RGB [T, H, W, 3] that is wanted, if that is known."""
        return None if self._loaded.target is None else self._at(self._loaded.target)

    @cached_property
    def mask(self) -> np.ndarray | None:
        """bool [T, H, W], the region that the edit concerns, if there is one."""
        if self._loaded.mask is None:
            return None
        size = (self.geometry.height, self.geometry.width)
        return shrink_mask(same_times(self._loaded.mask, self._loaded.fps, self.geometry), size)

    @property
    def target(self) -> np.ndarray:
        """uint8 RGB [T, H, W, 3] that is wanted; raises `NoTarget` where the item has none."""
        if self.wanted is None:
            raise NoTarget("the item has no target to compare with")
        return self.wanted

    @cached_property
    def inside(self) -> np.ndarray | Unscored:
        """bool [T, H, W]: the mask; unscored without a mask or when it is empty."""
        if self.mask is None:
            return Unscored("the item has no mask")
        return self.mask if self.mask.any() else Unscored("the mask is empty at this size")

    @cached_property
    def outside(self) -> np.ndarray | Unscored:
        """bool [T, H, W]: beyond the mask widened by `RING` of the shorter side (one pixel at least).

        Curated pairs are blended at the mask's border and both videos are compressed in blocks, so the band
        next to the mask says nothing about either side.
        """
        if self.mask is None:
            return Unscored("the item has no mask")
        outside = beyond(self.mask)
        return outside if outside.any() else Unscored("the widened mask covers everything")

    @cached_property
    def target_flow(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Backward flow and visibility of the target for each frame from the second; see metrics/warp.py."""
        return [backward_flow(a, b) for a, b in zip(self.target[:-1], self.target[1:], strict=True)]


SOURCE, MODEL, MODEL_RAW, TARGET = "source", "model", "model_raw", "target"
