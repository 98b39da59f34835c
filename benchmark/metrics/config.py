"""Metrics from a YAML file, the networks that they share, and what a stored score depends on.

    models:
      clip: {class_path: benchmark.features.clip.Clip, init_args: {path: openai/clip-vit-large-patch14}}
    metrics:
      - class_path: benchmark.metrics.temporal.TemporalConsistency
        init_args: {model: clip, name: clip_temporal, label: CLIP temporal}

A network is made once and loads its weights at the first use, so metrics that share one share its features.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmark.core.item import BenchmarkError, Mode
from benchmark.metrics.base import Metric
from shards.aliases import current
from shards.devices import choose_device
from shards.errors import EditVerseError, first_line
from shards.limits import read_yaml, shown
from shards.resources import config_file

NETWORK = ("identity", "describe")  # what a score's address knows of a network: one of these
METRIC = ("higher_is_better", "range", "version")


def read_metrics(path: Path, mode: Mode, device: str = "cpu") -> list[Metric]:
    """The metrics of a file.

    Args:
        path: the YAML file; `configs/benchmark/...` is found from any folder.
        mode: of every metric that has one, unless the file says another.
        device: of every network that has one, unless the file says another.

    Raises:
        BenchmarkError: naming the file, the entry and the fault.
    """
    path = config_file(path)
    try:
        held = read_yaml(path)
    except (OSError, EditVerseError) as error:
        raise BenchmarkError(f"{path}: cannot be read: {error}") from error
    if not isinstance(held, dict) or not isinstance(held.get("metrics"), list) or not held["metrics"]:
        raise BenchmarkError(f"{path}: needs `metrics`, a list of class_path and init_args")
    models = held.get("models") or {}
    if not isinstance(models, dict) or set(held) - {"models", "metrics"}:
        raise BenchmarkError(f"{path}: has `models` (by name) and `metrics`, and nothing else")
    made = {
        name: _build(spec, {"device": device, "mode": mode}, f"{path}: models.{name}", NETWORK, any)
        for name, spec in models.items()
    }
    metrics: list[Metric] = []
    for number, spec in enumerate(held["metrics"]):
        where = f"{path}: metrics[{number}]"
        path_of, args = _path(spec, where), _args(spec, where)
        if "model" in args:
            name = args["model"]
            if not isinstance(name, str) or name not in made:
                raise BenchmarkError(
                    f"{where}: no model {shown(name)}; there are {', '.join(map(str, made)) or 'none'}"
                )
            args["model"] = made[name]
        metric = _build({**spec, "init_args": args}, {"mode": mode}, where, METRIC, all)
        if not callable(metric) or not isinstance(getattr(metric, "name", None), str):
            raise BenchmarkError(f"{where}: {path_of} is no metric, or its name is no text")
        metrics.append(metric)
    return distinct(metrics, str(path))


def distinct(metrics: list[Metric], where: str) -> list[Metric]:
    """The metrics; BenchmarkError when two have one name."""
    names = [m.name for m in metrics]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise BenchmarkError(f"{where}: two metrics are called {twice[0]}; give one another `name`")
    return metrics


def _build(
    spec: Any,
    defaults: dict[str, Any],
    where: str,
    attributes: Sequence[str],
    which: Callable[[Iterable[bool]], bool],
) -> Any:
    """An object of `class_path`, of any package, if its class has the attributes (`which`: all or any)."""
    path, args = _path(spec, where), _args(spec, where)
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        if not inspect.isclass(kind) or kind.__module__ != module:  # what the module itself imports
            raise BenchmarkError(f"{where}: {path} is no class of {module}")
        names = {*dir(kind), *getattr(kind, "__dataclass_fields__", ())}
        if not which(attribute in names for attribute in attributes):
            raise BenchmarkError(f"{where}: {path} is no class with {', '.join(attributes)}")
        known = inspect.signature(kind).parameters
        if "device" in known and "device" in defaults:  # a stored run's device may have left this machine
            choose_device(defaults["device"])
        return kind(**{n: v for n, v in defaults.items() if n in known} | args)
    except (ImportError, AttributeError, TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, EditVerseError):
            raise
        raise BenchmarkError(f"{where}: {path}: {first_line(error)}") from error


def _path(spec: Any, where: str) -> str:
    if not isinstance(spec, dict) or set(spec) - {"class_path", "init_args"} or "class_path" not in spec:
        raise BenchmarkError(f"{where}: needs class_path, and init_args if it takes any")
    path = spec["class_path"]
    if not isinstance(path, str) or not re.fullmatch(r"[A-Za-z0-9_.]+", path):
        raise BenchmarkError(f"{where}: class_path is {shown(path)}, not the path of a class")
    return current(path)


def _args(spec: Any, where: str) -> dict[str, Any]:
    args = spec.get("init_args") or {} if isinstance(spec, dict) else {}
    if not isinstance(args, dict) or not all(isinstance(name, str) for name in args):
        raise BenchmarkError(f"{where}: init_args maps names to values, got {shown(args)}")
    return dict(args)
