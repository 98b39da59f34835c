"""What a metric is: it states its name, direction, range and version, and scores one result.

A version is part of every cached score's address: raise it whenever a change can move a number.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from benchmark.core.item import NoTarget, Reference, Unscored

Where = Literal["inside", "outside", "everywhere"]
Faults = dict[
    str, dict[str, Any]
]  # what is wrong with the official mode, and the fields that mend that alone


class Metric(Protocol):
    """Scores a result against an item's reference.

    Attributes:
        name: column name, unique in a run.
        label, unit: how tables print it.
        higher_is_better: direction.
        range: (lowest, highest) value possible.
        version: see above.

    A metric that reads an item's prompts has their names in `reads`; one that waits for somebody else's
    answers has `waits`, and is asked while others compute; one that reads nothing of the reference's media
    has a false `needs_source`, and scores results whose source is missing; one that has `reads_files` is
    called with `file` too, the result's file, None for what is none.
    """

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def higher_is_better(self) -> bool: ...
    @property
    def range(self) -> tuple[float, float]: ...
    @property
    def version(self) -> int: ...

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        """Score `result`, uint8 RGB [T, H, W, 3] at the reference's geometry."""
        ...


def score(
    metric: Metric, reference: Reference, result: np.ndarray, file: Path | None = None
) -> float | Unscored:
    """What a metric says, or why it says nothing: no number, or nothing to compare with."""
    more: dict[str, Any] = {"file": file} if getattr(metric, "reads_files", False) else {}
    try:
        found = metric(reference, result, **more)
    except NoTarget as error:
        return Unscored(str(error))
    if not isinstance(found, Unscored) and math.isnan(found):
        return Unscored("not a number")
    return found


def needs_source(metric: Metric) -> bool:
    """Whether a metric reads something of the source, the target or the mask."""
    return bool(getattr(metric, "needs_source", True))


def region(reference: Reference, where: Where) -> np.ndarray | Unscored:
    """bool [T, H, W] of the region that a metric looks at; "everywhere" needs no mask."""
    if where == "everywhere":
        return np.ones(reference.target.shape[:3], bool)
    return reference.inside if where == "inside" else reference.outside
