"""The command `grade`: measures signals of samples and stores them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from curation.engine.engine import MAX_SILENCE, Engine, EngineName, EngineOptions
from curation.engine.task_config import RunError
from curation.quality.grade import grade, print_grades, read_graders
from shards.errors import SettingError

WORKERS = min(8, os.cpu_count() or 1)
TOLD = 5  # samples that could not be graded and are named


def grade_samples(
    shards: str,
    signals: str = "",
    config: Path | None = None,
    vlm: str = "",
    workspace: str = "data/workspace",
    workers: int = WORKERS,
    engine: EngineName = "auto",
    address: str | None = None,
    gpus: float = 0.0,
) -> None:
    """Measure signals of every sample and store them beside the shards; repeating it reuses what is known.

    Args:
        shards: folder or URL of shards, curated or imported.
        signals: names of those that are wanted, with commas between; all of the file's when left out.
        config: YAML file of graders; configs/curation/grade.yaml when left out, which needs no model.
        vlm: a model that grades by eight criteria: a folder or hub repository, or URL#model of a server.
        workspace: folder or URL for intermediate results; several runs may share it.
        workers: processes on this machine; 0 works in this process alone.
        engine: as for `run`.
        address: of a Ray cluster to work on; RAY_ADDRESS when left out.
        gpus: of one process of each grader that wants any; as the graders say when 0.
    """
    if workers < 0 or gpus < 0:
        raise SettingError("--workers, --gpus: need at least 0")
    wanted = tuple(name.strip() for name in signals.split(",") if name.strip())
    graders = read_graders(config, shards, wanted, vlm)
    with Engine(EngineOptions(workers, gpus, engine, address, MAX_SILENCE)) as started:
        found = grade(graders, workspace, started, config)
    print_grades(found, shards)
    for line in found.failed[:TOLD]:
        print(line, file=sys.stderr)
    if len(found.failed) == found.samples:
        raise RunError(f"{shards}: no sample could be graded; {found.failed[0]}")
    if found.failed:
        print(f"{len(found.failed):,} samples were not graded; the same command tries again", file=sys.stderr)


COMMANDS: dict[str, Callable[..., None]] = {"grade": grade_samples}
