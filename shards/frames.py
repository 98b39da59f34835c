"""Which frames to take of many, and how far two of them are apart: one rule each for all packages."""

from __future__ import annotations

import math

import numpy as np


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
