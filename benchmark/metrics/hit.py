"""Whether an edit happened at the right place and nowhere else: 1 or 0, its mean is the share of hits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.item import Reference, Unscored
from benchmark.metrics.base import region


@dataclass(frozen=True)
class EditHit:
    """1 when at least `inside` of the mask changed, and outside less than `spill` of its area did.

    Changed is a pixel of which a channel is `levels` from the source. What lies near the mask's edge counts
    neither way (`Reference.outside`). A removal from among several objects hits when the named one went.
    """

    inside: float = 0.5
    spill: float = 0.25
    levels: int = 24
    name: str = "edit_hit"
    label: str = "Edit hit"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    version: int = 1

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        within, beyond = region(reference, "inside"), region(reference, "outside")
        for chosen in (within, beyond):
            if isinstance(chosen, Unscored):
                return chosen
        assert not isinstance(within, Unscored)
        assert not isinstance(beyond, Unscored)
        apart = np.abs(result.astype(np.int16) - reference.source).max(-1) >= self.levels
        missed = (apart & beyond).sum() / within.sum()
        return float(apart[within].mean() >= self.inside and missed < self.spill)
