"""`python -m curation run ... --dry-run`: the stages, the models with their licences, memory and hours."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from curation.core.cache import Work, Workspace
from curation.core.stage import Resources, Stage
from curation.core.task import Task, classes_of
from curation.engine.engine import EngineOptions, Plan, choose
from curation.engine.estimate import print_estimate
from curation.engine.memory import (
    ALLOWANCE,
    LEAST_ALLOWANCE,
    GpuMemory,
    TaskMemory,
    gib_of_gpu,
    stage_weights,
    task_memory,
    verdict,
    visible_gpus,
)
from curation.engine.preflight import preflight
from curation.engine.ray_driver import NO_GPU
from curation.engine.task_config import build, load_config, read_limits
from curation.engine.worker import CUT, SCREEN
from curation.sources.listing import is_remote
from curation.vlm.errors import AssetError
from curation.vlm.interface import Backend
from curation.vlm.weights import Weights
from shards.media import MediaError, probe
from shards.terminal import print_table

COSTS = "costs.json"  # in a workspace: see `_costs`


@dataclass(frozen=True)
class Part:
    """An annotator of a task: its role, what it is, its licence, and what is known of its speed."""

    role: str
    backend: str
    model: str
    revision: str
    license: str
    missing: str
    speed: tuple[float, str] | None  # seconds a frame, and where that is from


def parts_of(task: Task) -> list[Part]:
    """All annotators, those inside others too."""
    made: list[Part] = []

    def add(role: str, annotator: Any) -> None:
        inner = getattr(annotator, "parts", {})
        if not inner:
            missing = ""
            try:
                backend = annotator.describe()
            except AssetError as error:
                missing, backend = str(error), Backend(type(annotator).__name__)
            told = (backend.backend, backend.model, backend.revision)
            license = getattr(annotator, "license", "not stated")
            made.append(Part(role, *told, license, missing, getattr(annotator, "speed", None)))
        for name, part in inner.items():
            add(f"{role}: {name}", part)

    for role, annotator in task.annotators().items():
        add(role, annotator)
    return made


def source_frames(task: Task, sources: Sequence[str], space: Workspace) -> int:
    """Frames of all local sources as their containers tell; those of scenes and samples counted."""
    total = 0
    for source in sources:
        if task.from_files and is_remote(source):
            continue  # not fetched to be counted
        if not task.from_files:
            total += sum(unit.frames for unit in task.units(source, space))
            continue
        try:
            total += probe(source).frames
        except MediaError:
            continue  # the run quarantines it
    return total


def note_costs(space: Workspace, task: Task, stages: dict[str, Work], frames: int) -> None:
    """Add what a run's stages took to the workspace's record; of two runs that end at once, one is noted."""
    held, labels = _costs(space), labels_of(task)
    of_task = held.setdefault(task.name, {})
    for name, work in stages.items():
        if work.computed and name in labels:
            seconds, seen = of_task.get(labels[name], (0.0, 0.0))
            share = work.computed / (work.computed + work.reused)
            of_task[labels[name]] = [round(seconds + work.seconds, 3), round(seen + frames * share, 1)]
    space.location.put(COSTS, (json.dumps(held, indent=2) + "\n").encode())


def labels_of(task: Task) -> dict[str, str]:
    """Stage -> its name in the record of costs: with its annotators' classes, since presets share names."""
    labels = {name: name for name in (CUT, SCREEN)}
    for stage in task.graph:
        classes = ", ".join(one.__name__ for one in classes_of(stage.annotators))
        labels[stage.name] = f"{stage.name} ({classes})" if classes else stage.name
    return labels


def _costs(space: Workspace) -> dict[str, dict[str, list[float]]]:
    """What stages took in earlier runs of a workspace: task -> label of a stage -> seconds, source frames."""
    try:
        held: dict[str, dict[str, list[float]]] = json.loads(space.location.read(COSTS))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return held


def print_graph(task: str, stages: Sequence[Stage], plan: Plan, engine: str) -> None:
    """The stages as they follow, what each reads and makes, and what one process of it takes."""
    table = Table(
        "stage", "from", "annotators", "result", "cpus", "gpus", "GiB", "batch", title=f"{task}: stages"
    )
    made: dict[str, tuple[str, str, str]] = {
        CUT: ("sources", "", "clips"),
        SCREEN: (CUT, "", "clips worth any work"),
    }
    for stage in stages:
        uses = ", ".join(dict.fromkeys(type(annotator).__name__ for annotator in stage.annotators))
        sources = ", ".join(["clip", *stage.values, *stage.inputs])
        made[stage.name] = (sources, uses, stage.result.__name__)
    for name, needs in plan.stages.items():
        numbers = (needs.cpus, needs.gpus, needs.memory_gib, needs.batch)
        table.add_row(name, *made[name], *(f"{number:g}" if number else "" for number in numbers))
    print_table(table)
    Console().print(f"engine: {engine}", highlight=False, soft_wrap=True)


def print_memory(memory: TaskMemory, held: Mapping[str, Sequence[Weights]]) -> None:
    """Weights of each stage that has any, the smallest card for it, and what each engine needs."""
    table = Table("stage", "model", "part", "parameters, billions", "dtype", "GiB", title="weights on a GPU")
    for stage, weights in held.items():
        for one in weights:
            count = f"not known: {one.source}" if one.parameters is None else f"{one.parameters / 1e9:.2f}"
            gib = "not known" if one.gib is None else f"{one.gib:.1f}"
            if one.peak_gib is not None:
                count, gib = one.source, f"{gib} at its peak"
            dtype = one.dtype + (", takes turns" if one.offloaded else "")
            table.add_row(stage, one.model, one.part, count, dtype, gib)
    if not table.rows:
        return
    print_table(table)
    table = Table("process of", "weights, GiB", "with activations, GiB", "smallest card", title="GPU memory")
    rows = {name: need for name, need in memory.stages.items() if held[name]}
    rows |= {"--engine passes: the largest stage": memory.passes, "--engine local: all stages": memory.local}
    for name, need in rows.items():
        alone, whole = (f"{_least(need)}{gib:.1f}" for gib in (need.weights, need.total))
        table.add_row(name, alone, whole, _least(need) + need.card_name)
    ray, shares = memory.ray, f"Ray: {memory.gpus:g} GPUs at once, the fullest at worst"
    table.add_row(shares, "", f"{_least(ray)}{ray.total:.1f}", _least(ray) + ray.card_name)
    print_table(table)
    print(
        f"Activations are not measured: {ALLOWANCE:.0%} of the weights, {LEAST_ALLOWANCE:g} GiB at least, "
        "stand for them. What a program's authors publish has them in it, at their size."
    )


def _least(need: GpuMemory) -> str:
    return "at least " if need.unknown else ""


def print_hours(
    parts: Sequence[Part],
    measured: Mapping[str, Sequence[float]],
    frames: int,
    processes: Callable[[str], int],
) -> None:
    """What each stage takes for a source frame, as far as anybody knows, and the hours of all.

    Args:
        measured: stage -> [seconds, source frames] of earlier runs in this workspace.
        processes: of a stage by its name, at the same time.
    """
    table = Table("stage", "seconds a source frame", "from", "hours", title=f"{frames} source frames")
    rows: list[tuple[str, float | None, str]] = [
        (name, s / max(1.0, n), "earlier runs in this workspace") for name, (s, n) in measured.items()
    ]
    others = [part for part in parts if part.role.partition(":")[0] not in measured]
    rows += sorted(((p.role, *(p.speed or (None, ""))) for p in others), key=lambda row: row[1] is None)
    hours, unknown = dict[str, float](), False
    for name, each, origin in rows:
        if each is None:
            table.add_row(name, "not known", "", "not known")
            unknown = True
            continue
        hours[name] = each * frames / 3600 / processes(name.partition(":")[0])
        table.add_row(name, f"{each:.4f}", origin, f"{hours[name]:.3f}")
    print_table(table)
    known = ", ".join(f"{of:.2g} for {name}" for name, of in hours.items())
    total = f"{sum(hours.values()):.2g}" if hours and not unknown else "not known"
    more = f" (but {known})" if unknown and hours else ""
    how = (
        ""
        if hours and not unknown
        else "; run a few clips in this workspace and repeat, to have them measured"
    )
    Console().print(f"hours: {total}{more}{how}", highlight=False, soft_wrap=True, markup=False)
    if any(part.speed for part in others):
        print("Published speeds hold for the size and card that they name, and leave out loading the models.")


def processes_of(engine: str, plan: Plan, options: EngineOptions, gpus: int) -> Callable[[str], int]:
    """How many processes of a stage work at the same time, by the stage's name.

    Args:
        engine: as `choose` names it; gpus: of this machine.
    """
    workers = max(1, options.workers)

    def count(stage: str) -> int:
        if engine in ("here", "passes"):
            return 1
        if engine == "pool":
            return plan.pool_size(workers, gpus)
        limit, needs = plan.limits.get(stage), plan.stages.get(stage, Resources())
        most = (limit.max if limit else None) or workers
        return max(1, min(most, int(gpus / needs.gpus + 1e-6))) if needs.gpus and gpus else most

    return count


def dry_run(
    task: str, clips: str, workspace: str | Path, config: Path, options: EngineOptions, load: bool = False
) -> None:
    """Print what a run would do; writes nothing.

    Args:
        load: load every part and run it on a clip of noise, too; see `curation.engine.preflight`.

    Raises:
        RunError: a part does not work that was to be loaded.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched to be counted
    values = load_config(task, config)
    built = build(values)
    sources, console, space = built.find(clips).files, Console(), Workspace(workspace)
    stages = built.graph
    limits = read_limits(config, [CUT, SCREEN, *(stage.name for stage in stages)])
    plan = Plan.of(stages, limits, options.gpus)
    engine, why = choose(options, plan, sources)
    print_graph(task, stages, plan, f"{engine}, {why}")
    if plan.wants_gpu and not visible_gpus() and not options.cluster:
        console.print(NO_GPU)
    frames = source_frames(built, sources, space)
    table = Table("role", "backend", "model", "revision", "licence", title=f"{task}: models")
    parts = parts_of(built)
    for part in parts:
        told = (part.role, part.backend, part.model, part.revision, part.license)
        table.add_row(*map(escape, told))  # "[dev]" is no markup
    print_table(table)
    held = {stage.name: stage_weights(stage) for stage in stages}
    memory = task_memory(stages, plan.stages, limits)
    print_memory(memory, held)
    if memory.local.total and (gib := gib_of_gpu()):
        console.print(verdict(memory, len(visible_gpus()), gib), highlight=False, soft_wrap=True)
    processes = processes_of(engine, plan, options, len(visible_gpus()))
    of_task = _costs(space).get(built.name, {})
    measured = {name: of_task[label] for name, label in labels_of(built).items() if label in of_task}
    print_hours(parts, measured, frames, processes)
    print_estimate(built)
    if remote := sum(built.from_files and is_remote(source) for source in sources):
        console.print(f"{remote} file(s) at URLs are not fetched to be counted: their hours come on top")
    if load:
        preflight(task, values)
        return
    for missing in dict.fromkeys(part.missing for part in parts if part.missing):
        console.print(f"missing: {missing}", highlight=False, soft_wrap=True, markup=False)
