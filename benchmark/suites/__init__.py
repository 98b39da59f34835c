"""Suites: what is to be edited. One module each, with a class `Suite`.

A new suite is a new module here; `names` lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any, Protocol

from benchmark.item import BenchmarkError, Item


class AnySuite(Protocol):
    """What a run needs of a suite. `version` rises when the items or what they mean change."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def items(self) -> list[Item]: ...


def names() -> list[str]:
    """The suites that exist."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


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
