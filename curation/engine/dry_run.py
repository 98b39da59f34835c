"""`python -m curation run ... --dry-run`: the stages, the models with their licences, the hours to expect."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from curation.core.cache import Work, Workspace
from curation.core.stage import Stage
from curation.core.task import Task
from curation.engine.engine import EngineOptions, Plan, choose
from curation.engine.task_config import build, load_config, read_limits
from curation.engine.worker import CUT, SCREEN
from curation.sources.listing import is_remote
from curation.vlm.errors import AssetError
from curation.vlm.interface import Backend
from shards.media import MediaError, probe
from shards.terminal import print_table

COSTS = "costs.json"  # in a workspace: task -> stage -> [seconds, source frames] of all its runs


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


def note_costs(space: Workspace, task: str, stages: dict[str, Work], frames: int) -> None:
    """Add what a run's stages took to the workspace's record; of two runs that end at once, one is noted."""
    held = _costs(space)
    of_task = held.setdefault(task, {})
    for name, work in stages.items():
        if work.computed:
            seconds, seen = of_task.get(name, (0.0, 0.0))
            share = work.computed / (work.computed + work.reused)
            of_task[name] = [round(seconds + work.seconds, 3), round(seen + frames * share, 1)]
    space.location.put(COSTS, (json.dumps(held, indent=2) + "\n").encode())


def _costs(space: Workspace) -> dict[str, dict[str, list[float]]]:
    """What stages took in earlier runs of a workspace."""
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


def dry_run(task: str, clips: str, workspace: str | Path, config: Path, options: EngineOptions) -> None:
    """Print what a run would do; computes and writes nothing."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched to be counted
    built = build(load_config(task, config))
    sources, console, space = built.find(clips).files, Console(), Workspace(workspace)
    stages, workers = built.graph, options.workers
    limits = read_limits(config, [CUT, SCREEN, *(stage.name for stage in stages)])
    plan = Plan.of(stages, limits, options.gpus)
    print_graph(task, stages, plan, ", ".join(choose(options, plan, sources)))
    frames = source_frames(built, sources, space)
    table = Table("role", "backend", "model", "revision", "licence", title=f"{task}: models")
    parts = parts_of(built)
    for part in parts:
        table.add_row(part.role, part.backend, part.model, part.revision, part.license)
    print_table(table)
    measured = _costs(space).get(task, {})
    table = Table("stage", "seconds a source frame", "from", "hours", title=f"{frames} source frames")
    rows: list[tuple[str, float | None, str]] = [
        (name, s / max(1.0, n), "earlier runs in this workspace") for name, (s, n) in measured.items()
    ] or sorted(((p.role, *(p.speed or (None, ""))) for p in parts), key=lambda row: row[1] is None)
    hours = 0.0
    for name, each, origin in rows:
        if each is None:
            table.add_row(name, "not known", "", "")
            continue
        cost = each * frames / 3600 / max(1, workers)
        hours += cost
        table.add_row(name, f"{each:.4f}", origin, f"{cost:.3f}")
    print_table(table)
    more = (
        "" if measured else "; what is not known is not in it: run a few clips in this workspace and repeat"
    )
    console.print(f"about {hours:.2f} hours with {max(1, workers)} workers{more}", highlight=False)
    if remote := sum(built.from_files and is_remote(source) for source in sources):
        console.print(f"{remote} file(s) at URLs are not fetched to be counted: their hours come on top")
    for missing in dict.fromkeys(part.missing for part in parts if part.missing):
        console.print(f"missing: {missing}", highlight=False, soft_wrap=True)
