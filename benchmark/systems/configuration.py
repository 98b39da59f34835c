"""Editors by what `--system` says of them: a kind and what follows, or a YAML file."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.core.item import MODEL, MODEL_RAW, SOURCE, TARGET, BenchmarkError
from benchmark.systems.checkpoint_editor import CheckpointEditor, EditSettings, pretrained_folder
from benchmark.systems.diffusers_pipeline import DiffusersPipeline
from benchmark.systems.edit_cache import CachedEdits, ItemEditor
from benchmark.systems.program import Program
from benchmark.systems.results_folder import PrecomputedResults, System
from benchmark.systems.served_editor import ServedEditor
from shards.aliases import current
from shards.errors import EditVerseError, first_line
from shards.limits import read_yaml, shown
from shards.resources import config_file

FORMS = (
    "diffusers:FOLDER, checkpoint:FOLDER (or a hub id), command:WORDS, results:FOLDER, http://..., FILE.yaml"
)
NEEDED = ("depends", "edit", "release")  # of a class that a file names


def open_system(name: str, said: str, edits: Path, settings: EditSettings, device: str) -> System:
    """The system of a row.

    Args:
        name: of the row.
        said: one of `FORMS`.
        edits: folder of the run's edits.
        settings: of an editor of ours; the seed is every editor's that has one.
        device: of networks that run here.

    Raises BenchmarkError, which begins with the option and the row's name.
    """
    where = f"--system {name}"
    if name in (SOURCE, MODEL, MODEL_RAW, TARGET) or not name.strip() or not name.isprintable():
        raise BenchmarkError(
            f"{where}: the table has a row of this name already, or it is no name; choose another"
        )
    kind, colon, rest = said.partition(":")
    try:
        if kind == "results" and colon:
            return PrecomputedResults(name, Path(rest))
        editor = _editor(said, kind if colon else "", rest, settings, device)
    except EditVerseError as error:
        raise BenchmarkError(f"{where}: {first_line(error)}") from error
    return CachedEdits(edits, editor, {name: MODEL if isinstance(editor, CheckpointEditor) else "edit"})


def _editor(said: str, kind: str, rest: str, settings: EditSettings, device: str) -> ItemEditor:
    if kind == "diffusers":
        return DiffusersPipeline(rest, seed=settings.seed, device=device)
    if kind == "checkpoint":
        return CheckpointEditor(pretrained_folder(rest, "checkpoint"), settings, device)
    if kind == "command":
        return Program(rest, seed=settings.seed, device=device)
    if kind in ("http", "https"):
        return ServedEditor(said, seed=settings.seed)
    if said.endswith((".yaml", ".yml")):
        return read_editor(config_file(Path(said)), settings, device)
    raise BenchmarkError(f"{shown(said)} is none of {FORMS}")


def read_editor(path: Path, settings: EditSettings, device: str) -> ItemEditor:
    """The editor of a file that holds `class_path` and `init_args`, and `about`, which is for people.

    Its class gets `seed`, `device` and `settings` of the run where it takes them and the file says nothing.
    """
    try:
        held = read_yaml(path)
    except (OSError, EditVerseError) as error:
        raise BenchmarkError(f"{path}: cannot be read: {first_line(error)}") from error
    if (
        not isinstance(held, dict)
        or set(held) - {"class_path", "init_args", "about"}
        or "class_path" not in held
    ):
        raise BenchmarkError(f"{path}: holds class_path, init_args and about, and nothing else")
    name, given = held["class_path"], held.get("init_args") or {}
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.]+", name):
        raise BenchmarkError(f"{path}: class_path is {shown(name)}, not the path of a class")
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise BenchmarkError(f"{path}: init_args maps names to values, got {shown(given)}")
    module, _, last = current(name).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), last)
        if not inspect.isclass(kind) or not all(hasattr(kind, one) for one in NEEDED):
            raise BenchmarkError(f"{path}: {name} is no class with {', '.join(NEEDED)}")
        run = {"seed": settings.seed, "device": device, "settings": settings}
        known = inspect.signature(kind).parameters
        defaults: dict[str, Any] = {key: value for key, value in run.items() if key in known}
        if kind is CheckpointEditor:
            given = dict(given) | {"folder": pretrained_folder(str(given.get("folder", "")), "folder")}
        editor: ItemEditor = kind(**defaults | dict(given))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        if isinstance(error, EditVerseError):
            raise BenchmarkError(f"{path}: {first_line(error)}") from error
        raise BenchmarkError(f"{path}: {name}: {first_line(error)}") from error
    return editor
