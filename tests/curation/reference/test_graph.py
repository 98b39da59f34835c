"""The whole reference graph of every task on the CPU: tiny weights, real architectures, real shards."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.engine import run_all
from curation.engine.run import Summary, run
from curation.engine.task_config import default_config, tasks
from shards.reader import ShardSet
from shards.verify import verify
from tests.curation.reference.tiny_models import SAM2

TASKS = [t for t in sorted(tasks()) if default_config(t, "reference").name == f"{t}.reference.yaml"]


@pytest.fixture(scope="module")
def made(
    small: Callable[..., dict[str, Any]], little_clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Summary]:
    """`made(task, again=False)` -> the summary of a run, after those of its parents; repeated if asked."""
    root = tmp_path_factory.mktemp("reference")
    done: dict[str, Summary] = {}

    def make(task: str, again: bool = False, **changes: Any) -> Summary:
        if task in done and not again and not changes:
            return done[task]
        config = small(task, root / "shards")
        for parent in config["init_args"].get("parents", []):
            make(Path(parent).name)
        config["init_args"].update(changes)
        out = root / ("shards" if not changes else f"changed{len(list(root.iterdir()))}") / task
        path = root / f"{out.parent.name}-{task}.yaml"
        path.write_text(yaml.safe_dump(config))
        summary = run(task, little_clips, out, root / "workspace", path, 0)
        if not changes:
            done[task] = summary
        return summary

    make.root = root  # type: ignore[attr-defined]
    return make


def computed(summary: Summary) -> dict[str, int]:
    return {stage: work.computed for stage, work in summary.stages.items() if work.computed}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_shards_that_verify(made: Callable[..., Summary], task: str) -> None:
    summary = made(task)
    assert summary.samples > 0, (summary.rejected, summary.quarantined)
    assert not summary.quarantined
    folder = made.root / "shards" / task  # type: ignore[attr-defined]
    assert not verify(folder).faults
    for key in ShardSet(folder).keys:
        sample = ShardSet(folder)[key].sample
        assert sample.provenance.steps
        assert all(step.backend for step in sample.provenance.steps)


@pytest.mark.parametrize("task", TASKS)
def test_a_second_run_computes_nothing(made: Callable[..., Summary], task: str) -> None:
    made(task)
    assert not computed(made(task, again=True))


def test_the_authors_packages_run_the_graph_too(
    made: Callable[..., Summary], sam2_file: Path, dino_file: tuple[Path, Path]
) -> None:
    detector = {
        "class_path": "curation.annotators.grounding_dino.GroundingDinoPackage",
        "init_args": {
            "weights": str(dino_file[0]),
            "text_encoder": str(dino_file[1]),
            "threshold": 0.0,
            "side": 256,
        },
    }
    segmenter = {
        "class_path": "curation.annotators.sam2.Sam2Package",
        "init_args": {
            "weights": str(sam2_file),
            "config": "configs/sam2.1/sam2.1_hiera_t.yaml",
            "overrides": list(SAM2),
        },
    }
    finder = {
        "class_path": "curation.annotators.grounded_sam2.GroundedSam2",
        "init_args": {"detector": detector, "segmenter": segmenter, "every": 8, "most": 2},
    }
    summary = made("object_removal", finder=finder)
    assert summary.samples == 8, (summary.rejected, summary.quarantined)


def alternative(name: str, **settings: Any) -> dict[str, Any]:
    """An annotator as its lines of a YAML choose it; `script` is that of a stand-in."""
    if "script" in settings:
        where = {"folder": str(settings.pop("folder")), "python": sys.executable, "timeout": 60}
        settings["program"] = {**where, "script": settings.pop("script")}
    return {"class_path": f"curation.annotators.{name}", "init_args": settings}


@pytest.mark.slow
def test_sam_3_and_minimax_remover_run_the_graph_too(
    made: Callable[..., Summary], tiny: Callable[[str], str], checkout: Path, remover_weights: str
) -> None:
    finder = alternative("sam3.Sam3", checkpoint=tiny("sam3"), every=23, threshold=0.0, most=1)
    inpainter = alternative(
        "minimax_remover.MiniMaxRemover",
        folder=checkout,
        script="pipeline_minimax_remover.py",
        weights=remover_weights,
    )
    summary = made("object_removal", finder=finder, inpainter=inpainter, names=["red ball"])
    assert summary.samples > 0, (summary.rejected, summary.quarantined)
    assert not summary.quarantined


@pytest.mark.slow
def test_step1x_edit_and_video_depth_anything_run_the_graph_too(
    made: Callable[..., Summary], checkout: Path, depth_weights: Callable[..., None]
) -> None:
    depth_weights()
    summary = made(
        "style_transfer",
        editor=alternative("step1x_edit.Step1XEdit", folder=checkout, script="inference.py", size_level=64),
        depth=alternative("video_depth_anything.VideoDepthAnything", folder=checkout, script="run.py"),
    )
    assert summary.samples > 0, (summary.rejected, summary.quarantined)
    assert not summary.quarantined


def test_judged_tasks_keep_the_grades(made: Callable[..., Summary]) -> None:
    made("object_removal")
    folder = made.root / "shards" / "object_removal"  # type: ignore[attr-defined]
    shards = ShardSet(folder)
    scores = shards[shards.keys[0]].sample.scores
    assert 0 <= scores["instruction_adherence"] <= 10
    assert scores["instruction_adherence_entropy"] > 0


def test_the_mask_of_a_removal_is_all_that_differs_and_the_objects_own_lies_in_it(
    made: Callable[..., Summary],
) -> None:
    """The inpainter's own rim is part of the first; mask detection is to find the second."""
    made("object_removal")
    shards = ShardSet(made.root / "shards" / "object_removal")  # type: ignore[attr-defined]
    for key in shards.keys:
        changed, own = shards[key].mask("mask"), shards[key].mask("mask2")
        assert changed[own].all()
        assert own.sum() < changed.sum()
    made("mask_detection")
    marked = ShardSet(made.root / "shards" / "mask_detection")  # type: ignore[attr-defined]
    shown = [marked[key].video("video2")[0][..., 0] > 127 for key in marked.keys]
    assert {int(mask.sum()) for mask in shown} <= {
        int(shards[key].mask("mask2").sum()) for key in shards.keys
    }


def test_a_threshold_computes_nothing_anew(
    made: Callable[..., Summary], small: Callable[..., dict[str, Any]]
) -> None:
    made("object_removal")
    judge = small("object_removal", made.root / "shards")["init_args"]["judge"]  # type: ignore[attr-defined]
    judge["init_args"]["thresholds"] = {"sharpness": 10.0}
    refused = made("object_removal", judge=judge)
    assert not computed(refused)
    assert refused.rejected == {"judged low on sharpness": refused.candidates}


def test_a_change_of_the_edit_computes_what_comes_after_it(made: Callable[..., Summary]) -> None:
    made("object_removal")
    assert set(computed(made("object_removal", grow=6))) == {"inpaint", "judge"}
    before = made("style_transfer", flicker=1e8)
    assert not computed(before)


def test_parents_come_first() -> None:
    order = run_all.in_order(TASKS, "reference")
    assert order.index("object_removal") < order.index("propagation")
    assert order.index("depth_to_video") < order.index("video_to_depth")
