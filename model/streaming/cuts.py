"""Where a video changes from one shot to another.

The measure is that of PySceneDetect's ContentDetector, in the lines below rather than by the library, which
curation uses: it is no part of what an edit needs installed, its import takes half as long as the search of
250 frames, and its detector has no `PROMINENCE`, without which fast pans are cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

from shards.media import shrunk_size

THRESHOLD = 27.0  # of 255, the default of PySceneDetect's ContentDetector
PROMINENCE = 2.0  # times the change on either side: a fast pan changes every frame, a cut one
SIDE = 64  # pixels of the longer side that frames are compared at


def find_cuts(pictures: Iterable[np.ndarray]) -> list[int]:
    """Numbers of the frames that begin a new shot; never 0.

    The change of a frame is the mean difference of hue, saturation and value to the frame before, as in
    PySceneDetect's ContentDetector; a cut is above its threshold and stands out from the changes beside it.

    Args:
        pictures: uint8 RGB [H, W, 3], all of one size; they are shrunk to `SIDE`, one at a time.
    """
    before: np.ndarray | None = None
    changes: list[float] = []
    for picture in pictures:
        shown = cv2.cvtColor(_thumbnail(picture), cv2.COLOR_RGB2HSV)
        if before is not None:
            changes.append(float(cv2.absdiff(shown, before).mean()))
        before = shown
    cuts = []
    for number, change in enumerate(changes, 1):
        beside = changes[number - 2 : number - 1] + changes[number : number + 1]
        if change >= THRESHOLD and all(change >= PROMINENCE * other for other in beside):
            cuts.append(number)
    return cuts


def thumbnail_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which a frame of this size is compared: the longer side `SIDE` at most."""
    return shrunk_size(size, SIDE)


def _thumbnail(picture: np.ndarray) -> Any:
    height, width = thumbnail_size(picture.shape[:2])
    if (height, width) == picture.shape[:2]:
        return picture
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
