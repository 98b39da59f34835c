"""Motion alignment of V2VBench: does the result move as its source does?

The published code takes GMFlow, which no package has; numbers by another flow do not compare with its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from benchmark.core.item import Mode, Reference, Unscored
from benchmark.features.flow import Dis


class Flow(Protocol):
    """`Dis` or `Raft`."""

    def between(self, frames: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class MotionAlignment:
    """Minus the mean distance, in pixels, between the flow of the result and the flow of its source.

    Over all pixels and pairs of neighbouring frames. `official` refuses a result of another length or size
    than its source, with which the published code ends; `corrected` brings the source to the result's.
    """

    model: Flow = field(default_factory=Dis)
    name: str = "motion_alignment"
    label: str = "Motion alignment"
    mode: Mode = "corrected"
    unit: str = "px"
    higher_is_better: bool = True
    range: tuple[float, float] = (-math.inf, 0.0)
    version: int = 1
    unlike_published: ClassVar[tuple[str, ...]] = (
        "by another flow than the published GMFlow, which no package has: its numbers do not compare",
    )

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        source = reference.original if self.mode == "official" else reference.source
        if source.shape != result.shape:
            return Unscored(f"the result is {result.shape[:3]}, its source {source.shape[:3]}")
        if len(result) < 2:
            return Unscored("one frame does not move")
        apart = self.model.between(result) - self.model.between(source)
        return -float(np.linalg.norm(apart.astype(np.float64), axis=-1).mean())
