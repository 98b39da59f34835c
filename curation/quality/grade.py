"""`python -m curation grade`: runs the graders over a folder on an engine, and stores the columns."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from curation.core.cache import Work, Workspace
from curation.engine.engine import Engine, Plan, choose
from curation.engine.run import collect
from curation.engine.store import OutcomeStore
from curation.engine.task_config import RunError, TaskConfig, build, read_limits
from curation.engine.worker import Job
from curation.quality.grading import Grading, graded
from curation.quality.signals import Grader, Signal
from shards.errors import ConfigError
from shards.hashing import digest
from shards.limits import read_yaml
from shards.reader import ShardSet
from shards.resources import config_root
from shards.scores import About, write_all_scores
from shards.terminal import print_table

CLASS = f"{Grading.__module__}.{Grading.__name__}"
JUDGED = "curation.quality.signals_models.Judged"
VERSION = 1  # of the signals; part of what is said of a column


@dataclass
class Grades:
    """What a run of graders gave.

    Attributes:
        columns: signal -> float32 [samples] in the order of the folder's keys, NaN for null.
        failed: a line for each sample that could not be graded; the next run tries it again.
        work: grader -> what it cost.
    """

    samples: int
    columns: dict[str, np.ndarray]
    signals: dict[str, Signal]
    failed: list[str] = field(default_factory=list)
    work: dict[str, Work] = field(default_factory=dict)
    seconds: float = 0.0


def read_graders(path: Path | None, shards: str, signals: tuple[str, ...], vlm: str = "") -> TaskConfig:
    """The task of a YAML file of graders (`configs/curation/grade.yaml`) over a folder.

    Args:
        vlm: folder or hub repository of a model that judges, or "URL#model" of an OpenAI-compatible server.

    Raises:
        ConfigError: the file is none of graders.
    """
    path = path or config_root() / "curation" / "grade.yaml"
    said = read_yaml(path)
    if not isinstance(said, dict) or said.get("class_path") != CLASS:
        raise ConfigError(f"{path}: class_path must be {CLASS}")
    given = dict(said.get("init_args") or {})
    if vlm:
        url, _, model = vlm.partition("#")
        kind = "curation.vlm.endpoint.Endpoint" if "://" in vlm else "curation.vlm.qwen_vl.QwenVl"
        about = {"url": url, "model": model} if "://" in vlm else {"checkpoint": vlm}
        judge = {
            "class_path": "curation.text.vlm_filter.Judge",
            "init_args": {"vlm": {"class_path": kind, "init_args": about}},
        }
        graders = [one for one in given.get("graders") or [] if one.get("class_path") != JUDGED]
        given["graders"] = [*graders, {"class_path": JUDGED, "init_args": {"judge": judge}}]
    return {"class_path": CLASS, "init_args": {**given, "shards": shards, "signals": list(signals)}}


def grade(config: TaskConfig, workspace: str | Path, engine: Engine, limits: Path | None = None) -> Grades:
    """Measure the signals of all samples of a folder and store them.

    Args:
        config: as `read_graders` gives it.
        limits: the file whose `resources` say what each grader's processes take.

    Raises:
        EditVerseError: the folder, a setting, a model or the workspace cannot be used.
    """
    began = time.perf_counter()
    task = build(config)
    if not isinstance(task, Grading):
        raise ConfigError(f"class_path must be {CLASS}")
    task.steps()  # names a missing model before any work
    stages = task.graph
    said = read_limits(limits, [stage.name for stage in stages]) if limits else {}
    plan = Plan.of(stages, said, engine.options.gpus)
    sources = task.find("").files
    choice = choose(engine.options, plan, sources)
    space = Workspace(workspace)
    job = Job(config, str(workspace), str(Path.cwd()), uuid.uuid4().hex[:8])
    with OutcomeStore(space.local, -1) as store:
        space.sweep()
        grades = Grades(0, {}, {})
        try:
            collect(engine, choice, job, plan, sources, store, grades.work)
            _gather(task, store, grades)
        except sqlite3.Error as error:
            raise RunError(f"{store.folder}: {error}") from error
        finally:
            space.end_run(job.run)
    about = {grader.name: _made_by(grader) for grader in task.graders}
    owners = {signal.name: grader for grader in task.graders for signal in grader.signals}
    write_all_scores(
        task.shards,
        {
            name: (column, _about(grades.signals[name], about[owners[name].name]))
            for name, column in grades.columns.items()
        },
    )
    grades.seconds = time.perf_counter() - began
    return grades


def _gather(task: Grading, store: OutcomeStore, grades: Grades) -> None:
    """Fill in the columns from the outcomes, and let graders compare samples with each other."""
    keys = ShardSet(task.shards).keys
    numbers = {key: number for number, key in enumerate(keys)}
    grades.samples = len(keys)
    known = {signal.name: signal for grader in task.graders for signal in grader.signals}
    grades.signals = {name: known[name] for name in task.wanted}
    grades.columns = {name: np.full(len(keys), np.nan, np.float32) for name in task.wanted}
    comparing = {grader.name: grader for grader in task.graders if hasattr(grader, "compare")}
    marks: dict[str, list[list[str]]] = {name: [[] for _ in keys] for name in comparing}
    kinds = [""] * len(keys)
    opened = ShardSet(task.shards)
    for outcome in store.finished():
        found = graded(outcome.candidates) if outcome.clip is not None else None
        if outcome.error or found is None:
            grades.failed += [outcome.error] if outcome.error else [c.error for c in outcome.candidates]
            continue
        assert outcome.clip is not None
        number = numbers[outcome.clip.name]
        for name in task.wanted:
            if (value := found.values.get(name)) is not None:
                grades.columns[name][number] = value
        for name in comparing:
            marks[name][number] = found.marks.get(name, [])
        kinds[number] = opened.entry(number).task
    for name, grader in comparing.items():
        compared: Mapping[str, np.ndarray] = grader.compare(marks[name], kinds)
        grades.columns |= {signal: values for signal, values in compared.items() if signal in task.wanted}


def _made_by(grader: Grader) -> tuple[str, str]:
    backend = grader.describe()
    model = " ".join(filter(None, (backend.backend, backend.model, backend.revision)))
    return f"grade {grader.name} {VERSION}: {model}", "sha256:" + digest(backend.settings)


def _about(signal: Signal, made: tuple[str, str]) -> About:
    told = f"{signal.what}; needs {signal.needs}" if signal.needs else signal.what
    return About(made_by=made[0], config=made[1], unit=signal.unit, better=signal.better, what=told)


def print_grades(grades: Grades, shards: str) -> None:
    """The table of what was measured: how often, and where the values lie."""
    table = Table("signal", "unit", "better", "measured", "null", "5 %", "median", "95 %")
    for column in table.columns[3:]:
        column.justify = "right"
    for name, values in grades.columns.items():
        there = values[~np.isnan(values)]
        spread: list[Any] = np.percentile(there, [5, 50, 95]).tolist() if len(there) else [None] * 3
        signal = grades.signals[name]
        shown = ("" if value is None else f"{value:.4g}" for value in spread)
        counts = f"{len(there):,}", f"{len(values) - len(there):,}"
        table.add_row(name, signal.unit, signal.better, *counts, *shown)
    print_table(table)
    graders = {name: work for name, work in grades.work.items() if work.computed or work.reused}
    cost = ", ".join(
        f"{name} {w.computed:,} measured, {w.reused:,} found again, {w.cpu_seconds:.1f} s"
        for name, w in graders.items()
    )
    print(f"{shards}: {grades.samples:,} samples in {grades.seconds:.1f} s ({cost})")
