"""How things are timed, and the moving pictures that they are timed on.

A figure is the median of a few repetitions after one that is not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Figure:
    """One line of a table: milliseconds or seconds per `unit`, if timed, and a rate or result in words."""

    what: str
    median: float | None
    best: float | None
    unit: str
    rate: str = ""


def timed(work: Callable[[], object], quick: bool, budget: float = 2.0, most: int = 7) -> list[float]:
    """Seconds of each repetition: 3 (1 when quick) to `most`, until `budget` seconds are spent."""
    if not quick:
        work()
    seconds: list[float] = []
    while len(seconds) < (1 if quick else 3) or (not quick and len(seconds) < most and sum(seconds) < budget):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return seconds


def per(what: str, seconds: list[float], count: int, unit: str, rate: str = "") -> Figure:
    """Milliseconds per one of `count`; `rate` may hold {} for the number per second."""
    median = statistics.median(seconds) / count
    return Figure(
        what, 1000 * median, 1000 * min(seconds) / count, f"ms/{unit}", rate.format(f"{1 / median:.4g}")
    )


def scene(frames: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A textured plate, still as a static camera's, with sensor noise; a disc crosses it.

    Returns source and target uint8 [T, H, W, 3] and mask bool [T, H, W]. Noise keeps the encoder honest.
    """
    import cv2

    rng = np.random.default_rng(seed)
    plate = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 3)
    plate = cv2.normalize(plate, None, 20, 235, cv2.NORM_MINMAX)
    y, x = np.mgrid[:height, :width]
    mask = np.stack(
        [
            (x - width * (0.2 + 0.6 * t / max(1, frames - 1))) ** 2 + (y - height / 2) ** 2
            < (height / 5) ** 2
            for t in range(frames)
        ]
    )
    noise = rng.normal(0, 2, (frames, height, width, 3))
    target = np.clip(plate + noise, 0, 255).astype(np.uint8)
    source = target.copy()
    source[mask] = (200, 60, 40)
    return source, target, mask
