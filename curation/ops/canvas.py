"""Pictures on canvases of the sizes that a model draws at, without stretching them.

A picture is scaled by one factor for both sides, the rest of the canvas continues its edge, and what a model
draws there is cut away again: so the result keeps its registration with the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

SizeRule = Callable[[int, int], tuple[int, int]]  # (height, width) of an input -> (height, width) drawn


@dataclass(frozen=True)
class Placement:
    """Where a picture lies on a canvas.

    Attributes:
        canvas: uint8 [H, W, 3].
        top, left: of the picture, in pixels; height, width: what it was scaled to.
        shape: (height, width) of the picture before.
    """

    canvas: np.ndarray
    top: int
    left: int
    height: int
    width: int
    shape: tuple[int, int]

    def restore(self, drawn: np.ndarray) -> np.ndarray:
        """The part of a drawn canvas uint8 [H, W, 3] that the picture had, in the picture's own size."""
        part = drawn[self.top : self.top + self.height, self.left : self.left + self.width]
        return _scaled(part, self.shape)


def place(image: np.ndarray, size: tuple[int, int]) -> Placement:
    """An image uint8 [H, W, 3] in the middle of a canvas of `size` (height, width), as large as fits."""
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (
        min(limit, max(1, round(side * scale))) for side, limit in zip(image.shape, size, strict=False)
    )
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    room = ((top, size[0] - height - top), (left, size[1] - width - left), (0, 0))
    canvas = np.pad(_scaled(image, (height, width)), room, mode="edge")
    return Placement(canvas, top, left, height, width, (image.shape[0], image.shape[1]))


def stable_sizes(rule: SizeRule, multiple: int, area: int) -> Iterator[tuple[int, int]]:
    """All (height, width) of about `area` pixels, sides a `multiple`, that a model's size rule keeps.

    Sides are at most four times as long as the other one.
    """
    longest = int(2 * area**0.5) // multiple + 1
    for down in range(1, longest + 1):
        # both neighbours of the exact quotient: rules round, floor or round up
        exact = area / (down * multiple) / multiple
        for across in {int(exact), int(exact) + 1}:
            size = (down * multiple, across * multiple)
            if across and max(size) <= 4 * min(size) and rule(*size) == size:
                yield size


def closest_size(shape: tuple[int, ...], sizes: Iterator[tuple[int, int]]) -> tuple[int, int]:
    """The one of `sizes` of which a picture of `shape` fills the largest share.

    Raises ValueError when there are no sizes.
    """
    ratio = shape[1] / shape[0]
    return max(sizes, key=lambda size: min(ratio * size[0] / size[1], size[1] / (ratio * size[0])))


def _scaled(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An image resized to `shape` (height, width); smoothed when it becomes smaller."""
    if image.shape[:2] == tuple(shape):
        return image
    how = cv2.INTER_AREA if shape[0] < image.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(image, (shape[1], shape[0]), interpolation=how)
