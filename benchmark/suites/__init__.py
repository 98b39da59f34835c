"""Suites: what is to be edited. One module each, with a class `Suite`.

A new suite is a new module here; `names` lists them.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmark.core.item import BenchmarkError, Item

RowScores = Mapping[str, Mapping[str, float | None]]  # of one row: item id, metric, score


class Aggregate(NamedTuple):
    """A number that a suite makes of a row's scores, beside the means over items.

    `value` is None where the scores do not suffice; `n` items have gone into it.
    """

    label: str
    value: float | None
    n: int


class AnySuite(Protocol):
    """What a run needs of a suite.

    A suite whose authors print another number than the mean over items has a method
    `aggregate(scores: RowScores) -> list[Aggregate]`; see `aggregates`.

    Attributes:
        version: rises when the items or what they mean change.
        sha256: of what lists the items.
        metrics: YAML file that comes with the package; None for those of `metrics_of`, by the items' tasks.
        references: rows that the suite itself can fill, `source` and `target`.
        remarks: what a reader of scores must know, such as that the items are not the published ones.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def metrics(self) -> str | None: ...
    @property
    def items(self) -> list[Item]: ...
    @property
    def references(self) -> tuple[str, ...]: ...
    @property
    def remarks(self) -> list[str]: ...


def names() -> list[str]:
    """The suites that exist."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in modules if hasattr(importlib.import_module(f"{__name__}.{name}"), "Suite")]


def describe(name: str) -> str:
    """The first line of a suite's documentation."""
    module = importlib.import_module(f"{__name__}.{name}")
    return (module.__doc__ or "").strip().splitlines()[0]


def open_suite(name: str, data: Path) -> AnySuite:
    """Open a suite on its data folder; raises BenchmarkError for an unknown name or data that do not fit."""
    if name not in names():
        raise BenchmarkError(f"--suite {name}: no such suite; there are: {', '.join(names())}")
    module: Any = importlib.import_module(f"{__name__}.{name}")
    suite: AnySuite = module.Suite(data)
    return suite


def instruction_of(text: str) -> str:
    """A text without its tags."""
    return " ".join(re.sub(r"<(?:video|image|mask)[0-9]*>", " ", text).split())


def aggregates(suite: AnySuite, scores: RowScores) -> list[Aggregate]:
    """What the suite makes of a row's scores; nothing where it has no aggregate of its own."""
    own = getattr(suite, "aggregate", None)
    return [Aggregate(*made) for made in own(scores)] if own else []


def mean_of_all(scores: Mapping[str, float | None], names: Sequence[str]) -> float | None:
    """The mean of an item's scores by these metrics; None where one of them is missing."""
    values = [value for name in names if (value := scores.get(name)) is not None]
    return sum(values) / len(values) if len(values) == len(names) else None


def mean_over(label: str, values: Iterable[float | None]) -> Aggregate:
    """The mean of the values that there are."""
    had = [value for value in values if value is not None and math.isfinite(value)]
    return Aggregate(label, sum(had) / len(had) if had else None, len(had))


def mean_over_groups(label: str, groups: Iterable[Iterable[float | None]]) -> Aggregate:
    """The mean of the groups' means, each group counting once; a group without any value is left out."""
    means = [mean_over(label, values) for values in groups]
    value = mean_over(label, (mean.value for mean in means)).value
    return Aggregate(label, value, sum(mean.n for mean in means))
