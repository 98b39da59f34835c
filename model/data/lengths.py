"""Lengths of samples where no shards say them, for plans made before there is data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.errors import SettingError
from shards.limits import in_range

Ints = NDArray[np.int64]
MOST_TOKENS = 1 << 30


@dataclass(frozen=True)
class Lengths:
    """Tokens of a sample where no shards say it, for plans made before there is data.

    L = copies x frames x frame + text, each drawn from a range of whole numbers, ends included. Several
    entries of a row are drawn with their `weight`.
    """

    frame: tuple[int, ...]  # tokens of a latent frame
    frames: tuple[int, ...] = (1, 1)  # latent frames
    copies: int = 1  # elements of the sequence, source and target
    text: tuple[int, ...] = (12, 119)
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("frame", "frames", "text"):
            ends = getattr(self, name)
            if len(ends) != 2 or not 0 < ends[0] <= ends[1]:
                raise SettingError(f"{name}: least and most, from 1 on, got {ends}")
            in_range(name, ends[1], 1, MOST_TOKENS)
        in_range("copies", self.copies, 1, MOST_TOKENS)
        if not 0 < self.weight < math.inf:
            raise SettingError("copies and weight must be positive")

    def draw(self, count: int, random: np.random.Generator) -> Ints:
        """int64 [count]."""
        frame, frames, text = (
            random.integers(low, high, count, endpoint=True)
            for low, high in (self.frame, self.frames, self.text)
        )
        return self.copies * frames * frame + text


def draw_lengths(kinds: Sequence[Lengths], count: int, random: np.random.Generator) -> Ints:
    """int64 [count]: each of one of the `kinds`, by their weights."""
    weights = np.array([k.weight for k in kinds])
    chosen = random.choice(len(weights), count, p=weights / weights.sum())
    return np.stack([k.draw(count, random) for k in kinds])[chosen, np.arange(count)]
