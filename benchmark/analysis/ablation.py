"""The same training with one thing changed at a time, over several seeds, scored and compared in one table.

`python -m benchmark ablation --variants configs/train/ablations/study.yaml` trains and scores every arm in
processes of their own, through the command lines that a person would use; an interrupted study goes on.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.item import MODEL, BenchmarkError
from shards.errors import EditVerseError
from shards.files import write_bytes, write_json
from shards.limits import read_yaml, shown
from shards.resources import config_file, named_in
from shards.serialization import from_dict

BEFORE = "before"  # folder of trainings that arms start from
TENTHS = 10  # into how many parts a training curve is averaged


@dataclass(frozen=True)
class Variant:
    """One training: overlays of the common configuration, and another mixture where `mixture` names one.

    Attributes:
        before: configuration of a training that comes first, with the same seed, and whose weights this one
            starts from; arms that name the same one start from the same weights.
    """

    config: tuple[str, ...] = ()
    mixture: str | None = None
    about: str = ""
    before: str | None = None


@dataclass(frozen=True)
class Scores:
    """Held-out items that every arm is scored on; `metrics` is a file of them, the suite's own when None."""

    shards: str
    limit: int | None = None
    metrics: str | None = None


@dataclass(frozen=True)
class Column:
    """A column of the table: the mean of a metric over a group of the items of a score."""

    label: str
    score: str
    group: str
    metric: str


@dataclass(frozen=True)
class Ablation:
    """What is compared.

    Attributes:
        train: configuration that all arms share; with it all have the same number of steps and samples.
        seeds: of every arm, two or more.
        arms: by name; the first is what the others are compared with.
        scores: by name.
    """

    train: str
    seeds: tuple[int, ...]
    arms: dict[str, Any]
    scores: dict[str, Any]
    columns: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < 2:
            raise BenchmarkError("seeds: an interval needs two or more different ones")
        if len(self.arms) < 2 or not self.columns:
            raise BenchmarkError("arms, columns: there must be two arms or more, and a column")


@dataclass(frozen=True)
class Cell:
    """A column's values of an arm, one per seed, and what the first arm had with the same seeds."""

    values: tuple[float, ...]
    first: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.values))

    def gain(self) -> tuple[float, float]:
        """Mean difference to the first arm, seed by seed, and half of its 95 % t interval over seeds."""
        from scipy.stats import t

        apart = np.subtract(self.values, self.first)
        spread = apart.std(ddof=1) / np.sqrt(len(apart))
        return float(apart.mean()), float(t.ppf(0.975, len(apart) - 1) * spread)


def read_study(path: Path) -> Ablation:
    """Read a study's file; BenchmarkError names the field that is wrong.

    `train`, `config`, `mixture` and `metrics` are files relative to it; `shards` are folders of data,
    and like all data relative to where the command is given.
    """
    path = config_file(path)
    try:
        value = read_yaml(path)
        study: Ablation = from_dict(Ablation, value, str(path))
        made = Ablation(
            str(named_in(path, study.train)),
            study.seeds,
            {n: _variant(a or {}, path, f"{path}: arms.{n}") for n, a in study.arms.items()},
            {n: _scores(s, path, f"{path}: scores.{n}") for n, s in study.scores.items()},
            [from_dict(Column, c, f"{path}: columns") for c in study.columns],
        )
    except (OSError, EditVerseError) as error:
        raise BenchmarkError(str(error)) from error
    for name in [*made.arms, *made.scores]:  # folders of the output
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w .+=-]{0,99}", name):
            raise BenchmarkError(
                f"{path}: the name {shown(name)} cannot be a folder's: letters, digits, spaces and . + = -"
            )
        if name == BEFORE:
            raise BenchmarkError(f"{path}: the name {BEFORE!r} is the folder of what arms start from")
    starts = {Path(arm.before) for arm in made.arms.values() if arm.before}
    if len({start.stem for start in starts}) < len(starts):
        raise BenchmarkError(f"{path}: two files of `before` have the same name, which is their folder's")
    for column in made.columns:
        if column.score not in made.scores:
            raise BenchmarkError(f"{path}: columns: {column.label}: no score {column.score!r}")
    return made


def _variant(value: Any, path: Path, where: str) -> Variant:
    variant: Variant = from_dict(Variant, value, where)
    mixture, before = (
        None if file is None else str(named_in(path, file)) for file in (variant.mixture, variant.before)
    )
    overlays = tuple(str(named_in(path, file)) for file in variant.config)
    return Variant(overlays, mixture, variant.about, before)


def _scores(value: Any, path: Path, where: str) -> Scores:
    scores: Scores = from_dict(Scores, value, where)
    return scores if scores.metrics is None else replace(scores, metrics=str(named_in(path, scores.metrics)))


def carry_out(study: Ablation, out: Path, jobs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Train and score what is not there yet, `jobs` arms at a time, each on its share of the processors.

    Returns:
        What `study.json` holds: per arm its cells, training seconds and tokens, mean over seeds.

    Raises:
        BenchmarkError: a command failed; its last line is named, the others' results are kept.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    befores = sorted({arm.before for arm in study.arms.values() if arm.before})
    starts = [partial(_start, before, seed, out, threads, say) for seed in study.seeds for before in befores]
    runs = [
        partial(_run, study, name, seed, out, threads, say) for seed in study.seeds for name in study.arms
    ]
    faults: list[str] = []

    def attempt(call: Callable[[], None]) -> None:
        try:
            call()
        except BenchmarkError as error:
            faults.append(str(error))

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(attempt, starts))
            if not faults:
                list(pool.map(attempt, runs))
        except BaseException:  # Ctrl-C ends what runs; nothing more is begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if faults:
        raise BenchmarkError(faults[0])
    result = collect(study, out)
    write_json(out / "study.json", result)
    write_bytes(out / "study.md", (markdown(study, result) + "\n").encode())
    return result


def folder_of(out: Path, name: str, seed: int) -> Path:
    """Where an arm's run of a seed lies."""
    return out / name / f"seed-{seed}"


def start_of(out: Path, config: str, seed: int) -> Path:
    """Where the training of a seed lies that arms start from."""
    return out / BEFORE / Path(config).stem / f"seed-{seed}"


def _start(config: str, seed: int, out: Path, threads: int, say: Callable[[str], None]) -> None:
    run = start_of(out, config, seed)
    command = ["model", "fit", "--config", config, "--run", str(run), "--train.seed", str(seed)]
    _call(command, run.with_suffix(".log"), threads)
    say(f"{Path(config).stem}, seed {seed}: trained, to start from")


def _run(study: Ablation, name: str, seed: int, out: Path, threads: int, say: Callable[[str], None]) -> None:
    arm, folder = study.arms[name], folder_of(out, name, seed)
    start = []
    if arm.before:
        start = ["--train.init_from", str(start_of(out, arm.before, seed) / "checkpoint")]
    command = ["model", "fit", "--config", study.train, *start]
    for overlay in arm.config:
        command += ["--config", overlay]
    if arm.mixture:
        command += ["--data.mixture", arm.mixture]
    _call([*command, "--run", str(folder / "run"), "--train.seed", str(seed)], folder / "fit.log", threads)
    say(f"{name}, seed {seed}: trained")
    for score, what in study.scores.items():
        command = ["benchmark", "run", "--suite", "heldout", "--data", what.shards, "--gallery", "0"]
        command += ["--checkpoint", str(folder / "run" / "checkpoint"), "--out", str(folder / score)]
        limit = [] if what.limit is None else ["--limit", str(what.limit)]
        metrics = [] if what.metrics is None else ["--metrics", what.metrics]
        _call([*command, *limit, *metrics], folder / f"{score}.log", threads)
    say(f"{name}, seed {seed}: scored")


def _call(arguments: Iterable[str], log: Path, threads: int) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    limits = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    with log.open("w") as written:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            env=os.environ | limits,
            check=False,
        )
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise BenchmarkError(f"{log}: the command failed (status {done.returncode}): {lines[-1:]}")


def collect(study: Ablation, out: Path) -> dict[str, Any]:
    """The finished study's numbers."""
    first = next(iter(study.arms))
    values = {
        name: [[_value(out, name, seed, column) for seed in study.seeds] for column in study.columns]
        for name in study.arms
    }
    result: dict[str, Any] = {"seeds": list(study.seeds), "arms": {}}
    for name in study.arms:
        cells: dict[str, Any] = {}
        for column, mine, theirs in zip(study.columns, values[name], values[first], strict=True):
            cell = Cell(tuple(mine), tuple(theirs))
            gain, half = cell.gain()
            cells[column.label] = {"values": mine, "mean": cell.mean, "gain": gain, "half": half}
        runs = [
            json.loads((folder_of(out, name, seed) / "run" / "summary.json").read_text())
            for seed in study.seeds
        ]
        result["arms"][name] = {
            "about": study.arms[name].about,
            "cells": cells,
            "curve": _curve(study, out, name, first),
            "seconds": float(np.mean([r["step_seconds"] for r in runs])),
            "tokens": float(np.mean([r["tokens"] for r in runs])),
        }
    return result


def _curve(study: Ablation, out: Path, name: str, first: str) -> list[dict[str, float]]:
    """The training loss by tenths of the run: mean over seeds, and difference to the first arm's.

    Runs of one seed see the same samples, noise and times at the same step, so that their losses compare.
    """

    def tenths(arm: str) -> np.ndarray:
        curves = []
        for seed in study.seeds:
            with (folder_of(out, arm, seed) / "run" / "curve.csv").open() as file:
                curves.append([float(row["loss"]) for row in csv.DictReader(file)])
        parts = np.array_split(np.array(curves), min(TENTHS, len(curves[0])), axis=1)
        return np.stack([part.mean(1) for part in parts], 1)

    mine, theirs = tenths(name), tenths(first)
    rows = []
    for number in range(mine.shape[1]):
        cell = Cell(tuple(mine[:, number]), tuple(theirs[:, number]))
        gain, half = cell.gain()
        rows.append({"part": (number + 1) / mine.shape[1], "mean": cell.mean, "gain": gain, "half": half})
    return rows


def _value(out: Path, name: str, seed: int, column: Column) -> float:
    path = folder_of(out, name, seed) / column.score / "summary.json"
    table = json.loads(path.read_text())["table"]
    try:
        return float(table[column.group][MODEL][column.metric]["value"])
    except (KeyError, TypeError, ValueError):
        raise BenchmarkError(
            f"{path}: no {column.metric} of {column.group} (it has the groups {', '.join(table)})"
        ) from None


def markdown(study: Ablation, result: dict[str, Any]) -> str:
    """The table: per cell the mean over seeds, and the difference to the first arm with its interval."""
    labels = [column.label for column in study.columns]
    lines = [
        "| arm | " + " | ".join(labels) + " | tokens | seconds |",
        "|---" * (len(labels) + 3) + "|",
    ]
    for number, (name, arm) in enumerate(result["arms"].items()):
        cells = []
        for label in labels:
            cell = arm["cells"][label]
            apart = f" ({cell['gain']:+.2f} ± {cell['half']:.2f})" if number else ""
            cells.append(f"{cell['mean']:.2f}{apart}")
        told = f"{name}: {arm['about']}" if arm["about"] else name
        cost = f"{arm['tokens'] / 1e6:.1f} M | {arm['seconds']:.0f}"
        lines.append(f"| {told} | {' | '.join(cells)} | {cost} |")
    lines += ["", "Training loss by parts of the run, and the difference to the first arm:", ""]
    names = list(result["arms"])
    lines += [f"| of the steps | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for rows in zip(*(arm["curve"] for arm in result["arms"].values()), strict=True):
        cells = [f"{rows[0]['mean']:.4f}"]
        cells += [f"{row['mean']:.4f} ({row['gain']:+.4f} ± {row['half']:.4f})" for row in rows[1:]]
        lines.append(f"| {rows[0]['part']:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)
