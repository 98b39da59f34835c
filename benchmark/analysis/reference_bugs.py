"""What each fault of the published code is worth: official scores with one fault mended at a time.

On the same items and results, with frames as the published code reads them and compared with the sources
that lie beside the results where there are such; a fault that changes nothing is listed all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

from benchmark.core.item import Item, Unscored
from benchmark.core.media import read_frames
from benchmark.evaluation.item_evaluator import Frames
from benchmark.metrics import Metric
from benchmark.metrics.base import score
from benchmark.systems.results_folder import PrecomputedResults, Result

ALL = "all of them"


@dataclass(frozen=True)
class Effect:
    """A fault of a metric: means over the `items` that both have a score for.

    Attributes:
        official, mended: with the fault, and without it.
        largest: absolute difference of an item.
        changed: items whose score is another by more than 1e-6.
    """

    metric: str
    fault: str
    items: int
    official: float | None
    mended: float | None
    largest: float | None
    changed: int


def effects(
    items: Sequence[Item], system: PrecomputedResults, metrics: Sequence[Metric], tell: Callable[[str], None]
) -> list[Effect]:
    """One line per fault of each metric, and one for all its faults together."""
    variants: dict[tuple[str, str], Metric] = {}
    for metric in metrics:
        official: Any = replace(metric, mode="official")  # type: ignore[type-var]
        every = getattr(metric, "faults", {}).items()
        faults = {f: c for f, c in every if any(getattr(official, k) != v for k, v in c.items())}
        variants |= {(metric.name, ""): official}
        variants |= {(metric.name, fault): replace(official, **change) for fault, change in faults.items()}
        corrected: Any = replace(official, mode="corrected")
        variants |= {(metric.name, ALL): corrected} if faults else {}
    scores: dict[tuple[str, str], list[float | None]] = {key: [] for key in variants}
    for item in items:
        tell(item.id)
        result = system.result(item, item.load)
        if not isinstance(result, Result) or (item.fault and result.source is None):
            continue
        beside = Frames(item, result.source[0] if result.source else None, "official")
        reference = beside.reference(result.geometry)
        frames = read_frames(result.files[system.rows[0]][0], "official")
        for key, metric in variants.items():
            found = score(metric, reference, frames)
            scores[key].append(None if isinstance(found, Unscored) else float(found))
    return [effect(*key, scores[key[0], ""], scores[key]) for key in variants if key[1]]


def effect(metric: str, fault: str, official: list[float | None], mended: list[float | None]) -> Effect:
    """Compare two variants' scores of the same items."""
    both = [(a, b) for a, b in zip(official, mended, strict=True) if a is not None and b is not None]
    if not both:
        return Effect(metric, fault, 0, None, None, None, 0)
    a, b = (np.array(values) for values in zip(*both, strict=True))
    apart = np.abs(b - a)
    largest, changed = float(apart.max()), int((apart > 1e-6).sum())
    return Effect(metric, fault, len(both), float(a.mean()), float(b.mean()), largest, changed)


def table(found: Sequence[Effect]) -> Table:
    """For the terminal."""
    shown = Table(
        "metric", "fault of the published code", title="official scores, one fault mended at a time"
    )
    for name in ("items", "official", "mended", "difference", "largest", "changed"):
        shown.add_column(name, justify="right")
    for e in found:
        numbers = ["-"] * 4
        if e.official is not None and e.mended is not None and e.largest is not None:
            numbers = [f"{v:.4f}" for v in (e.official, e.mended, e.mended - e.official, e.largest)]
        shown.add_row(e.metric, e.fault, str(e.items), *numbers, f"{e.changed} of {e.items}")
    return shown
