"""Every reference task stage by stage, each stage in a process of its own: no process holds two models."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.core.cache import Workspace
from curation.core.outcome import Outcome
from curation.core.stage import gpus_of
from curation.engine.run import run
from curation.engine.task_config import build, default_config, tasks
from curation.vlm import hub
from tests.curation.thresholds import check_thresholds

# The tasks with models; those that only derive samples from others' are the same in both presets. Addition is
# removal's other half.
TASKS = [
    task
    for task in sorted(tasks())
    if task != "object_addition"
    and default_config(task, "reference").name == f"{task}.reference.yaml"
    and re.search("checkpoint:|program:", default_config(task, "reference").read_text())
]
Row = dict[str, str]


def run_stage(config: dict[str, Any], root: str, name: str, rows: list[Row]) -> tuple[list[Row], list[str]]:
    """One stage of all clips: the rows after it, and the models that this process has loaded."""
    task, space = build(config), Workspace(Path(root))
    (stage,) = [stage for stage in task.graph if stage.name == name]
    outcomes = [Outcome.from_row(row, space.local) for row in rows]
    for outcome in outcomes:
        task.advance(stage, outcome, space)
    return [outcome.to_row(space.local) for outcome in outcomes], list(hub.loaded_models())


@pytest.fixture(scope="module")
def parents(
    small: Callable[..., dict[str, Any]], little_clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """`parents(task)` -> the small configuration of a task, after its parents' shards have been made."""
    root = tmp_path_factory.mktemp("pass")
    done: set[str] = set()

    def make(task: str) -> dict[str, Any]:
        config = small(task, root / "shards")
        for parent in (Path(path).name for path in config["init_args"].get("parents", [])):
            inner = make(parent)
            if parent not in done:
                (root / f"{parent}.yaml").write_text(yaml.safe_dump(inner))
                out, space = root / "shards" / parent, root / "workspace"
                run(parent, little_clips, out, space, root / f"{parent}.yaml", 0)
                done.add(parent)
        return config

    return make


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_stage_s_process_holds_its_own_model_alone(
    task: str, parents: Callable[[str], dict[str, Any]], little_clips: Path, tmp_path: Path
) -> None:
    config = parents(task)
    built, space = build(config), Workspace(tmp_path)
    outcomes = [
        Outcome(source, unit, items=built.start(unit))
        for source in built.find(str(little_clips)).files
        for unit in built.units(source, space)
    ]
    rows = [outcome.to_row(space.local) for outcome in outcomes]
    context, held = multiprocessing.get_context("forkserver"), dict[str, list[str]]()
    for stage in built.graph:
        with ProcessPoolExecutor(1, mp_context=context) as process:
            rows, models = process.submit(run_stage, config, str(tmp_path), stage.name, rows).result()
        held[stage.name] = models
        on_gpu = any(gpus_of(annotator) for annotator in stage.annotators)
        assert len(models) <= 1, (stage.name, models)
        assert len(models) == 1 or not on_gpu, f"{stage.name}: a loader says nothing of what it loads"
    print(f"{task}: {held}")
    candidates = [c for row in rows for c in Outcome.from_row(row, space.local).candidates]
    assert candidates
    assert not any(candidate.reason for candidate in candidates)
    alone = [c for outcome in outcomes for c in built.process(outcome.clip, Workspace(tmp_path))]  # type: ignore[arg-type]
    assert [(c.number, c.files, c.scores) for c in alone] == [
        (c.number, c.files, c.scores) for c in candidates
    ]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["object_removal"])
def test_a_threshold_computes_nothing(
    task: str, parents: Callable[[str], dict[str, Any]], little_clips: Path, tmp_path: Path
) -> None:
    config = parents(task)
    if "judge" in config["init_args"]:
        config["init_args"]["judge"]["init_args"]["thresholds"] = {"sharpness": 0.01}
    check_thresholds(config, little_clips, tmp_path)
