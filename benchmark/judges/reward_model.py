"""A reward model grades an edit by source, result and instruction, in several dimensions at once.

The model is a class that a metrics file names, so that a published one is used through its own package:

    models:
      vefx: {class_path: mine.Vefx, init_args: {path: folder}}
    metrics:
      - {class_path: benchmark.judges.reward_model.RewardModel, init_args: {model: vefx, dimension: IF}}

`mine.Vefx` would hand both videos to `vefx_reward.VEFXReward` (Visko-Platform/VEFX-Bench), whose dimensions
are IF, RQ and EE, from 1 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from benchmark.core.item import Reference, RunStopped, Unscored
from benchmark.core.once import Once, content_key


class Rewards(Protocol):
    """A reward model."""

    @property
    def identity(self) -> Any:
        """What a stored score depends on: name, revision and settings; JSON values."""
        ...

    def rewards(
        self, source: np.ndarray, result: np.ndarray, fps: float, instruction: str
    ) -> Mapping[str, float]:
        """Grades by dimension of an edit; both videos are uint8 RGB [T, H, W, 3] of one size and length."""
        ...


@dataclass(frozen=True)
class RewardModel:
    """One dimension of a reward model's grades; columns that share a model share its answer.

    Args:
        model: see `Rewards`.
        dimension: of the grades, as the model calls it.
        low, high: of a grade; one beyond is no score.
    """

    model: Rewards
    dimension: str
    low: float = 1.0
    high: float = 4.0
    label: str = ""
    unit: str = ""
    higher_is_better: bool = True
    version: int = 1
    range: ClassVar[tuple[float, float]] = (1.0, 4.0)
    reads: ClassVar[tuple[str, ...]] = ("instruction",)

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise RunStopped(f"reward model: low {self.low:g} is to be below high {self.high:g}")
        object.__setattr__(self, "range", (self.low, self.high))
        if not self.label:
            object.__setattr__(self, "label", f"Reward {self.dimension}")

    @property
    def name(self) -> str:
        """The column."""
        return f"reward_{self.dimension.lower()}"

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        instruction = reference.prompts.get("instruction")
        if not instruction:
            return Unscored("the item has no instruction")
        key = (id(self.model), instruction, content_key(result))
        told = GRADES.once(
            reference,
            key,
            lambda: self.model.rewards(reference.source, result, reference.geometry.fps, instruction),
        )
        if self.dimension not in told:
            there = ", ".join(told) or "none"
            raise RunStopped(f"reward model: no dimension {self.dimension!r}; it has {there}")
        value = float(told[self.dimension])
        if not math.isfinite(value) or not self.low <= value <= self.high:
            return Unscored(f"{value:g} is no grade from {self.low:g} to {self.high:g}")
        return value


GRADES: Once[Mapping[str, float]] = Once()
