"""From uint8 frames to what a network takes: crops, and which frames of a video."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.core.item import Mode

BATCH = 16  # frames that pass a network together; bounds the memory of long videos


def crops(frame: np.ndarray, mode: Mode) -> list[np.ndarray]:
    """What of a frame [H, W, 3] is shown to a network that crops the middle square.

    `official` is the frame itself, of which the crop hides 44 % at 16:9. `corrected` is as few squares of the
    shorter side, evenly spaced along the longer one, as cover all of it.
    """
    height, width = frame.shape[:2]
    side, length = min(height, width), max(height, width)
    if mode == "official" or side == length:
        return [frame]
    number = math.ceil(length / side)
    starts = [round(n * (length - side) / (number - 1)) for n in range(number)]
    if width > height:
        return [frame[:, s : s + side] for s in starts]
    return [frame[s : s + side] for s in starts]


def batches(items: Sequence[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    """Consecutive slices of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def sampled(frames: int, number: int, mode: Mode) -> list[int]:
    """Which `number` frames of a video stand for it: starts of equal intervals (official), or their middles.

    The official starts never reach the last eighth of a video.
    """
    shift = 0.0 if mode == "official" else 0.5
    return [int((i + shift) * frames / number) for i in range(number)]


def unit(features: Tensor) -> Tensor:
    """Divided by their length along the last axis."""
    return features / torch.linalg.vector_norm(features, dim=-1, keepdim=True)


class Remembered:
    """Features of the last few clips, by the content of their frames."""

    def __init__(self, most: int = 4) -> None:
        self.most, self._held = most, OrderedDict[bytes, Tensor]()

    def __call__(self, frames: Sequence[np.ndarray], compute: Callable[[list[np.ndarray]], Tensor]) -> Tensor:
        """`compute(frames)`, or what it gave for the same frames."""
        digest = hashlib.sha256()
        for frame in frames:
            digest.update(repr(frame.shape).encode())
            digest.update(np.ascontiguousarray(frame).data)
        key = digest.digest()
        if key not in self._held:
            self._held[key] = compute(list(frames))
            if len(self._held) > self.most:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]
