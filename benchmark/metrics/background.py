"""Background preservation: how far the result departs from the *source* where nothing should change.

Mean absolute difference, so that the source itself scores 0 and values are in grey levels one can see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.core.item import Reference, Unscored
from benchmark.metrics.base import region


@dataclass(frozen=True)
class BackgroundChange:
    """Mean |result - source| over pixels outside the widened mask, in grey levels (0..255)."""

    name: str = "background_change"
    label: str = "Background change"
    unit: str = "/255"
    higher_is_better: bool = False
    range: tuple[float, float] = (0.0, 255.0)
    version: int = 1

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        chosen = region(reference, "outside")
        if isinstance(chosen, Unscored):
            return chosen
        difference = result[chosen].astype(np.int16) - reference.source[chosen]
        return float(np.abs(difference).mean(dtype=np.float64))
