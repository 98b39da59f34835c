"""Suites: what is to be edited. One module each, with a class `Suite`.

A new suite is a new module here; `names` lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any, Protocol

from benchmark.core.item import BenchmarkError, Item


class AnySuite(Protocol):
    """What a run needs of a suite.

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
