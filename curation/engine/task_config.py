"""From a task's name to the task with its annotators: its module, its YAML file, its class."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, NonNegativeFloat, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from curation.core.task import Task
from shards.aliases import renewed
from shards.command import nearest
from shards.errors import EditVerseError
from shards.limits import read_yaml, shown
from shards.resources import config_root

TaskConfig = dict[str, Any]  # `class_path` and `init_args` as in the file; a run's identity is the hash of it


class RunError(EditVerseError, RuntimeError):
    """Why a run could not start or go on; one line."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class StageLimits:
    """What `resources: {stage: ...}` of a task's file says of a stage; what is None is as the stage says.

    Attributes:
        cpus, gpus, memory_gib, batch: of one process, see `curation.core.stage.Resources`.
        min, max: processes of the stage.
    """

    cpus: NonNegativeFloat | None = None
    gpus: NonNegativeFloat | None = None
    memory_gib: NonNegativeFloat | None = None
    batch: PositiveInt | None = None
    min: PositiveInt | None = None
    max: PositiveInt | None = None


LIMITS = TypeAdapter(dict[str, StageLimits])


def tasks() -> dict[str, str]:
    """Names of the tasks and their modules, from the files in `curation/tasks/`."""
    package = importlib.import_module("curation.tasks")
    modules = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg]
    return {name: f"{package.__name__}.{name}" for name in modules}


def default_config(task: str, preset: str = "offline") -> Path:
    """The file of a task in a preset; tasks over rendered scenes have one for both."""
    folder = config_root() / "curation"
    for_both = folder / f"{task}.yaml"
    return for_both if for_both.is_file() else folder / f"{task}.{preset}.yaml"


def load_config(task: str, path: Path) -> TaskConfig:
    """The YAML file of a task, checked. Raises RunError naming the task, file or field at fault."""
    known = tasks()
    if task not in known:
        raise RunError(f"unknown task {task!r}; the tasks are: {', '.join(sorted(known))}")
    if not path.is_file():
        raise RunError(f"{path}: no such config file")
    try:
        config = read_yaml(path)
    except EditVerseError as error:
        raise RunError(str(error)) from None
    config = renewed(config)
    if not isinstance(config, dict) or not str(config.get("class_path", "")).startswith(known[task] + "."):
        raise RunError(f"{path}: class_path must name a class of {known[task]}")
    return {name: value for name, value in config.items() if name != "resources"}


def read_limits(path: Path, stages: Sequence[str]) -> dict[str, StageLimits]:
    """What a task's file says of the resources of its stages, which changes no result.

    Raises:
        RunError: naming the file and the field.
    """
    said = read_yaml(path).get("resources") or {}
    try:
        limits = LIMITS.validate_python(said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["resources", *map(str, first["loc"])])
        raise RunError(f"{path}: {where}: {first['msg'].lower()}") from None
    for name, limit in limits.items():
        if name not in stages:
            raise RunError(f"{path}: resources.{name}: no such stage; there are: {', '.join(stages)}")
        if limit.min and limit.max and limit.min > limit.max:
            raise RunError(f"{path}: resources.{name}: min {limit.min} is more than max {limit.max}")
    return limits


def build(config: TaskConfig) -> Task:
    """The task with its annotators from a config. Raises RunError naming the field at fault."""
    from jsonargparse import ArgumentError, ArgumentParser

    config = renewed(config)
    module, _, name = config["class_path"].rpartition(".")
    parser = ArgumentParser(exit_on_error=False)
    try:
        kind = getattr(importlib.import_module(module), name)
        if not inspect.isclass(kind) or kind.__module__ != module:  # what the module itself imports
            raise RunError(f"class_path {shown(config['class_path'])}: no task")
        parser.add_argument("--task", type=kind)
        return parser.instantiate(parser.parse_object({"task": config})).task
    except RunError:
        raise
    except (ArgumentError, AttributeError, ImportError, TypeError, ValueError, ArithmeticError) as error:
        raise RunError(f"config of {name}: {one_line(error)}{_nearest(str(error))}") from None


def _nearest(message: str) -> str:
    """The option that an unknown one was probably meant to be, of the class that the message names last."""
    option = re.search(r"Option '(\w+)' is not accepted", message)
    classes = re.findall(r"class_path '([\w.]+)'", message)
    if option is None or not classes:
        return ""
    module, _, name = classes[-1].rpartition(".")
    known = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    return nearest(option[1], known)


def one_line(error: BaseException) -> str:
    """An error's message in one line of at most 400 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Parsers nest their messages: the outermost says where, the innermost what.
    return "; ".join(dict.fromkeys([*lines[:2], *lines[-1:]]))[:400] or type(error).__name__
