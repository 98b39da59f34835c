"""Metrics: (source, target, mask, result) -> a number, or unscored with a reason.

One module each; `metrics_of` is the list that a run uses.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from pathlib import Path
from typing import Any

from benchmark.metrics.base import Metric
from benchmark.metrics.config import read_metrics

DEFAULT = Path("configs/benchmark/heldout.yaml")


def default_metrics() -> list[Metric]:
    """The metrics that have a reference, in the order of the table; they need no network."""
    return read_metrics(DEFAULT, "corrected")


def metrics_of(tasks: set[str]) -> list[Metric]:
    """Those of `default_metrics` that can be had of items of these tasks.

    A detected mask has no place of its own in a source that stays; only it has an IoU.
    """
    found = default_metrics()
    if "mask_detection" not in tasks:
        return [m for m in found if m.name != "mask_iou"]
    return found if tasks - {"mask_detection"} else [m for m in found if m.name in ("mask_iou", "warp_error")]


def known_metrics(package: str = "benchmark.metrics") -> dict[str, Any]:
    """Classes of a package's metrics by class_path; `benchmark.judges` has some as well."""
    found = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        path = f"{package}.{module.name}"
        for name, kind in vars(importlib.import_module(path)).items():
            own = isinstance(kind, type) and kind.__module__ == path
            if own and dataclasses.is_dataclass(kind) and hasattr(kind, "higher_is_better"):
                found[f"{path}.{name}"] = kind
    return found
