"""Whether an edit happened at the right place and nowhere else: 1 or 0, its mean is the share of hits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.item import Reference, Unscored
from benchmark.metrics.base import region


@dataclass(frozen=True)
class EditHit:
    """1 when enough changed of what should, and little of what should not.

    Changed is a pixel of which a channel is `levels` from the source. Of the pixels inside the mask that the
    target changes, `inside` must have; outside (`Reference.outside`, so not near the mask's edge), of those
    that the target leaves alone, fewer than `spill` of that number may. A removal from among several objects
    hits when the named one went.
    """

    inside: float = 0.5
    spill: float = 0.25
    levels: int = 24
    name: str = "edit_hit"
    label: str = "Edit hit"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    version: int = 2

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        within, beyond = region(reference, "inside"), region(reference, "outside")
        for chosen in (within, beyond):
            if isinstance(chosen, Unscored):
                return chosen
        assert not isinstance(within, Unscored)
        assert not isinstance(beyond, Unscored)
        apart = self._changed(result, reference.source)
        asked = self._changed(reference.target, reference.source)  # also shadows, which no mask holds
        wanted = within & asked
        if not wanted.any():
            return Unscored("hardly anything is to change")
        spilt = (apart & beyond & ~asked).sum()
        return float(apart[wanted].mean() >= self.inside and spilt < self.spill * wanted.sum())

    def _changed(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.abs(a.astype(np.int16) - b).max(-1) >= self.levels
        return found
