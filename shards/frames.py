"""Which frames to take of many, and how far two of them are apart: one rule each for all packages."""

from __future__ import annotations

import math

import numpy as np

# Of the shorter side: what counts as a speck or a hole of a change, and the band around one that is neither
# inside nor outside.
RING = 0.02
LEVELS = 24  # of 255: by how much a channel differs where something was changed, beyond what coding does
BLUR = 1.0  # pixels, of a Gaussian before that comparison


def evenly_spaced(count: int, num: int) -> np.ndarray:
    """`num` indices into `count` things: the first, the last and evenly between; int64 [num], not decreasing.

    Some come twice where there are fewer things than indices; `np.unique` of the result has each once.
    """
    indices: np.ndarray = np.linspace(0, count - 1, num).round().astype(int)
    return indices


def psnr(mse: float, peak: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error; infinite where there is none.

    `peak` is the width of the range of values: 255 for 8 bits, 2 for [-1, 1].
    """
    return 10 * math.log10(peak**2 / mse) if mse else math.inf


def ring_brush(size: tuple[int, ...]) -> np.ndarray:
    """A disc whose radius is `RING` of the shorter side of (height, width), one pixel at least."""
    import cv2

    reach = max(1, round(RING * min(size)))
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))


def differing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """bool [T, H, W]: where frames uint8 [T, H, W, 3] differ by `LEVELS`, without specks and holes.

    Both are blurred first, then opened and closed by `ring_brush`, so that noise is no change.
    """
    import cv2

    brush = ring_brush(a.shape[1:3])
    masks = []
    for first, second in zip(a, b, strict=True):
        soft = [cv2.GaussianBlur(f.astype(np.float32), (0, 0), BLUR) for f in (first, second)]
        raw = (np.abs(soft[0] - soft[1]).max(-1) >= LEVELS).astype(np.uint8)
        raw = cv2.morphologyEx(raw, cv2.MORPH_OPEN, brush)
        masks.append(cv2.morphologyEx(raw, cv2.MORPH_CLOSE, brush) > 0)
    return np.stack(masks)
