"""What a clip must be like to be worth any work: long, large, moving, sharp, not black, not frozen, new."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

SMALL = (48, 64)  # height, width at which motion is measured
WIDTH = 320  # pixels at which sharpness is measured, whatever the clip's size
BLACK = 12.0  # levels; a frame whose brightest hundredth is darker is black
STILL = 0.25  # levels; mean difference of frames that are the same picture
LOOKED_AT = 8  # frames
BLOCK = 64  # frames that are measured at once


@dataclass(frozen=True)
class ClipFilter:
    """Thresholds of a clip as it is used; shares go from 0 to 1, levels from 0 to 255.

    Attributes:
        motion: least mean difference of frames half a second apart.
        sharpness: least variance of the Laplacian of a frame scaled to 320 pixels' width.
        black: largest share of black frames.
        frozen: largest share of frames that repeat the one before.
        alike: bits of 64 by which the perceptual hashes of two clips' frames may differ for the later clip to
            be a near duplicate; -1 keeps them all.
    """

    min_seconds: float = 0.5
    min_side: int = 64
    motion: float = 0.3
    sharpness: float = 10.0
    black: float = 0.1
    frozen: float = 0.5
    alike: int = 4


@dataclass(frozen=True)
class Measures:
    """What is measured of a clip's frames, in the units of `ClipFilter`; `hashes` are perceptual ones."""

    motion: float
    sharpness: float
    black: float
    frozen: float
    hashes: list[str]


@dataclass(frozen=True)
class ClipStats:
    """All that the filter goes by: measures, the length in seconds and the shorter side in pixels."""

    measures: Measures
    seconds: float
    side: int


def measure(frames: np.ndarray, fps: float) -> Measures:
    """What the thresholds are about, of frames uint8 [T, H, W, 3]; little more memory than these take."""
    import imagehash
    from PIL import Image

    apart = max(1, min(len(frames) - 1, round(fps / 2)))
    held = np.empty((0, *SMALL, 3), np.float32)  # small frames that later ones are compared with
    moved, changed, black = list[float](), list[float](), list[bool]()
    for first in range(0, len(frames), BLOCK):
        block = frames[first : first + BLOCK]
        small = np.stack([cv2.resize(f, SMALL[::-1], interpolation=cv2.INTER_AREA) for f in block])
        black += (np.percentile(small.max(-1), 99, axis=(1, 2)) < BLACK).tolist()
        new, small = len(held), np.concatenate([held, small.astype(np.float32)])
        changed += _differences(small[max(0, new - 1) :], 1)
        moved += _differences(small[max(0, new - apart) :], apart)
        held = small[-apart:]
    some = np.unique(np.linspace(0, len(frames) - 1, LOOKED_AT).astype(int))
    height = max(1, round(frames.shape[1] * WIDTH / frames.shape[2]))
    grey = [
        cv2.resize(cv2.cvtColor(frames[t], cv2.COLOR_RGB2GRAY), (WIDTH, height), interpolation=cv2.INTER_AREA)
        for t in some
    ]
    marks = (0, len(frames) // 2, len(frames) - 1)
    return Measures(
        motion=round(float(np.mean(moved)) if moved else 0.0, 3),
        sharpness=round(float(np.median([cv2.Laplacian(g, cv2.CV_32F).var() for g in grey])), 2),
        black=round(float(np.mean(black)), 4),
        frozen=round(float(np.mean(np.array(changed) < STILL)) if changed else 1.0, 4),
        hashes=[str(imagehash.phash(Image.fromarray(frames[t]))) for t in marks],
    )


def _differences(small: np.ndarray, apart: int) -> list[float]:
    """Mean difference of every frame from that `apart` frames earlier."""
    differences: list[float] = np.abs(small[apart:] - small[:-apart]).mean((1, 2, 3)).tolist()
    return differences


def reason(stats: ClipStats, limits: ClipFilter) -> str:
    """Why a clip is not worth work; "" when it is."""
    measures = stats.measures
    reasons = (
        (stats.seconds < limits.min_seconds, "clip too short"),
        (stats.side < limits.min_side, "picture too small"),
        (measures.black > limits.black, "black frames"),
        (measures.frozen > limits.frozen, "frozen frames"),
        (measures.motion < limits.motion, "hardly any motion"),
        (measures.sharpness < limits.sharpness, "not sharp"),
    )
    return next((why for fails, why in reasons if fails), "")


def alike(a: list[str], b: list[str], bits: int) -> bool:
    """Whether all hashes of two clips differ by at most `bits`."""
    pairs = zip(a, b, strict=True)
    return all((int(x, 16) ^ int(y, 16)).bit_count() <= bits for x, y in pairs)


class DuplicateIndex:
    """Clips by their hashes, so that near duplicates are found without comparing all with all.

    Hashes that differ in at most `bits` places agree in one of `bits` + 1 bands of their bits.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        edges = np.linspace(0, 64, bits + 2).astype(int)  # none of -1
        self.bands = [(int(low), (1 << int(high - low)) - 1) for low, high in itertools.pairwise(edges)]
        self.held: dict[tuple[int, int], list[tuple[str, list[str]]]] = {}

    def is_duplicate(self, key: str, hashes: list[str]) -> bool:
        """Whether a clip with another key was seen that shows the same; if not, this one is remembered."""
        first = int(hashes[0], 16)
        places = [(number, first >> low & full) for number, (low, full) in enumerate(self.bands)]
        for place in places:
            for other, theirs in self.held.get(place, []):
                if other != key and alike(hashes, theirs, self.bits):
                    return True
        for place in places:
            self.held.setdefault(place, []).append((key, hashes))
        return False
