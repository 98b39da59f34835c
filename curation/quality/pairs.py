"""A sample as the pair that signals look at: source beside target, and where the edit is."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from curation.ops.masks import dilate
from shards.reader import Record
from shards.sample import Sample, split_text, tags_of

LOOKED_AT = 16  # frames of a pair whose pictures are compared, evenly spread
MARGIN = 0.03  # of the height: pixels so near the mask are neither inside nor outside the edit
DIFFERS = 12.0  # CIELAB distance of pixels that differ visibly, and not by compression
GLOBAL = 0.6  # an estimated edit that covers a larger share of the picture is one of all of it


@dataclass(frozen=True)
class Elements:
    """Which elements of a sample make its pair; `source` and `mask` are None where there is none."""

    source: str | None
    target: str
    mask: str | None


def elements_of(sample: Sample) -> Elements:
    """The first target, the first element of its kind that the text places and that is no target, a mask."""
    target = sample.targets[0]
    kind = sample.media[target].kind
    sources = [n for n in tags_of(sample.text) if sample.media[n].kind == kind and n not in sample.targets]
    masks = [name for name, media in sorted(sample.media.items()) if media.kind == "mask"]
    return Elements(sources[0] if sources else None, target, masks[0] if masks else None)


def instruction_of(sample: Sample) -> str:
    """The words of a sample's text, without its elements."""
    return " ".join(words for kind, words in split_text(sample.text) if kind == "text")


class Pair:
    """The pixels of a pair, decoded once, and what several signals need of them.

    Attributes:
        task, instruction: of the sample.
        source: uint8 [T, H, W, 3], None where there is no source; target: uint8 [T, H, W, 3].
        mask: bool [T, H, W], where the sample says that the edit is; None without one of the target's shape.
        fps: frames a second of the target, 0 for a picture.
    """

    def __init__(
        self,
        target: np.ndarray,
        source: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        fps: float = 0.0,
        task: str = "",
        instruction: str = "",
    ) -> None:
        self.source, self.target, self.fps, self.task, self.instruction = (
            source,
            target,
            fps,
            task,
            instruction,
        )
        self.mask = mask if mask is not None and mask.shape == target.shape[:3] and mask.any() else None

    @property
    def is_aligned(self) -> bool:
        """Whether there is a source of the target's size and length, to be compared pixel by pixel."""
        return self.source is not None and self.source.shape == self.target.shape

    @property
    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """Source and target of an aligned pair, uint8 [T, H, W, 3]."""
        if self.source is None:
            raise ValueError("the pair has no source")
        return self.source, self.target

    @functools.cached_property
    def times(self) -> list[int]:
        """Up to `LOOKED_AT` frames, evenly spread, as their numbers."""
        last = len(self.target) - 1
        return np.unique(np.linspace(0, last, LOOKED_AT).round().astype(int)).tolist()

    @functools.cached_property
    def lab(self) -> tuple[np.ndarray, np.ndarray]:
        """Source and target at `times` in CIELAB, float32 [N, H, W, 3], of an aligned pair."""
        source, target = (np.stack([to_lab(video[t]) for t in self.times]) for video in self.both)
        return source, target

    @functools.cached_property
    def apart(self) -> np.ndarray:
        """CIELAB distance of source and target at `times`, float32 [N, H, W], over 3x3 pixels."""
        source, target = self.lab
        return np.stack([cv2.blur(one, (3, 3)) for one in np.linalg.norm(source - target, axis=-1)])

    @functools.cached_property
    def edit(self) -> np.ndarray | None:
        """Where the edit is, bool [T, H, W]: the mask, or what differs visibly; None where nearly all does.

        Estimated from pixels `DIFFERS` apart in CIELAB, without specks and with their holes closed.
        """
        if self.mask is not None:
            return self.mask
        source, target = self.both
        size = 3 + 2 * (target.shape[1] // 240)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        found = []
        for before, after in zip(source, target, strict=True):
            apart = cv2.blur(np.linalg.norm(to_lab(before) - to_lab(after), axis=-1), (3, 3))
            marked = cv2.morphologyEx((apart > DIFFERS).astype(np.uint8), cv2.MORPH_OPEN, kernel)
            found.append(cv2.morphologyEx(marked, cv2.MORPH_CLOSE, kernel, iterations=2) > 0)
        where = np.stack(found)
        return None if where.mean() > GLOBAL else where

    @functools.cached_property
    def outside(self) -> np.ndarray | None:
        """What should have stayed, bool [T, H, W]; None where the edit is of the whole picture."""
        if self.edit is None:
            return None
        margin = max(2, round(MARGIN * self.target.shape[1]))
        outside = np.stack([~dilate(one, margin) for one in self.edit])
        return outside if outside.mean() > 0.02 else None


def to_lab(frame: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] in CIELAB, float32, lightness 0 to 100."""
    return np.asarray(cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def read_pair(record: Record) -> Pair:
    """The pair of a sample, decoded. Raises ShardError or MediaError for media that are damaged."""
    sample = record.sample
    names = elements_of(sample)
    return Pair(
        target=record.pixels(names.target),
        source=record.pixels(names.source) if names.source else None,
        mask=record.mask(names.mask) if names.mask else None,
        fps=sample.media[names.target].fps or 0.0,
        task=sample.task,
        instruction=instruction_of(sample),
    )
