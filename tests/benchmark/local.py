"""Metrics that need no network, for runs whose judge is what is tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmark.core.item import Reference


@dataclass(frozen=True)
class Brightness:
    """Mean grey level of the result; reads nothing of the source."""

    name: str = "brightness"
    label: str = "brightness"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 255.0)
    version: int = 1
    needs_source: ClassVar[bool] = False

    def __call__(self, reference: Reference, result: np.ndarray) -> float:
        """Grey levels."""
        return float(result.mean())


@dataclass(frozen=True)
class Faulty:
    """Reads the source, and holds a programming error."""

    name: str = "faulty"
    label: str = "faulty"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    version: int = 1

    def __call__(self, reference: Reference, result: np.ndarray) -> float:
        """Raises KeyError once the source is there."""
        return {"size": float(reference.source.size)}["sise"]


class TinyReward:
    """A random linear layer on mean colours of source and result, in the form of a reward model."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.layer = np.random.default_rng(seed).normal(size=(3, 6))
        self.calls = 0

    @property
    def identity(self) -> dict[str, int]:
        """Its seed."""
        return {"tiny reward": self.seed}

    def rewards(
        self, source: np.ndarray, result: np.ndarray, fps: float, instruction: str
    ) -> dict[str, float]:
        """Grades from 1 to 4."""
        self.calls += 1
        seen = np.concatenate([video.mean((0, 1, 2)) / 255 for video in (source, result)])
        grades = 1 + 3 / (1 + np.exp(-self.layer @ seen))
        return dict(zip(("IF", "RQ", "EE"), grades.tolist(), strict=True))
