"""What all tasks have in common as lists of stages: they name themselves, and gates compute nothing."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.core.results import Candidate, StageResult
from curation.core.stage import gpus_of
from curation.engine.run import run
from curation.engine.task_config import build, default_config, load_config, tasks
from curation.removal.background_subtraction import ForegroundSettings
from curation.removal.filters import CHECKING, MEASURING, GateSettings
from shards.errors import SettingError
from tests.curation.thresholds import check_thresholds, leaves

ROOT = Path(__file__).parents[2]
PRESETS = [
    (task, preset)
    for task in sorted(tasks())
    for preset in ("offline", "reference")
    if default_config(task, preset).name == f"{task}.{preset}.yaml" or preset == "offline"
]


@pytest.mark.parametrize(("task", "preset"), PRESETS)
def test_a_task_says_what_its_stages_are(task: str, preset: str) -> None:
    """Without any model: names, inputs that come earlier, the classes of their results, what they need."""
    graph = build(load_config(task, default_config(task, preset))).graph
    assert graph
    seen: list[str] = []
    for stage in graph:
        assert stage.name.isidentifier()
        assert set(stage.inputs) <= set(seen)
        assert issubclass(stage.result, StageResult)
        assert stage.needs.cpus == 1
        seen.append(stage.name)
    assert graph[-1].result is Candidate or graph[-1].decide is not None
    parts = [annotator for stage in graph for annotator in stage.annotators]
    if preset == "offline":
        assert not any(map(gpus_of, parts))


def test_the_paper_s_removal_has_one_model_a_stage() -> None:
    graph = build(load_config("object_removal", default_config("object_removal", "reference"))).graph
    told = [(s.name, s.inputs, s.result.__name__, s.needs.gpus) for s in graph]
    assert told == [
        ("name", (), "ObjectNames", 0.5),
        ("ground", (), "GroundedObjects", 0.25),
        ("segment", ("ground",), "FoundObjects", 0.25),
        ("write", ("segment",), "PairWords", 0.5),
        ("inpaint", ("segment",), "Candidate", 0.5),
        ("judge", ("inpaint",), "Grades", 0.5),
    ]


def test_every_number_of_the_gates_decides_or_is_part_of_a_key() -> None:
    config = load_config("object_removal", default_config("object_removal"))
    task = build(config)
    thresholds = {place for place, _ in leaves(task.thresholds())}
    measuring = {name for stage in task.graph for name in _names(stage.settings)}
    for group, kind in (("gates", GateSettings), ("foreground", ForegroundSettings)):
        for one in fields(kind):
            assert ((group, one.name) in thresholds) != (one.name in measuring), one.name
    assert {*MEASURING, *CHECKING} <= measuring


def _names(settings: Any) -> set[str]:
    inner = [_names(value) for value in settings.values() if isinstance(value, dict)]
    return set(settings).union(*inner)


def test_a_class_that_is_no_more_says_what_to_write(tmp_path: Path) -> None:
    text = default_config("style_transfer", "reference").read_text()
    old = {
        "class_path": "curation.tasks.style_transfer.StyleTransfer",
        "init_args": {"stylizer": {"class_path": "curation.annotators.propagated_style.PropagatedStyle"}},
    }
    assert "PropagatedStyleTransfer" in text
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old))
    with pytest.raises(SettingError) as told:
        load_config("style_transfer", tmp_path / "old.yaml")
    assert "curation.tasks.style_transfer.PropagatedStyleTransfer, with editor, generator" in str(told.value)
    assert len(str(told.value).splitlines()) == 1


# ---- thresholds -------------------------------------------------------------------------------------------

CHOOSE_WINDOWS = (
    *(("gates", name) for name in ("min_frames", "max_frames", "max_windows", "min_height", "apart")),
    *(("gates", name) for name in ("border", "other_overlap", "area_jump")),
    *(("foreground", name) for name in ("reach_x", "reach_y", "trunk", "fullness", "neighbour")),
)
SCENES = {"scenes": 2, "scene": {"height": 96, "width": 128, "frames": 9, "fps": 10.0}}
FROM_CLIPS = ["camera_change", "object_removal", "pose_to_video", "sketch_to_video", "style_transfer"]
FROM_SCENES = ["cg_camera", "cg_depth", "cg_removal", "cg_replacement"]
OTHERS = sorted(set(tasks()) - {*FROM_CLIPS, *FROM_SCENES, "object_addition"})  # the same as removal


def config_of(task: str, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(default_config(task).read_text())
    config.setdefault("init_args", {}).update(changes)
    return config


@pytest.fixture(scope="module")
def in_root() -> Any:
    """The folder that the presets' paths are relative to."""
    before = Path.cwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


@pytest.mark.slow
@pytest.mark.parametrize("task", FROM_CLIPS)
def test_a_threshold_computes_nothing(
    task: str, good_clips: Path, models_dir: Path, tmp_path: Path, in_root: None
) -> None:
    config = config_of(task)
    if task != "object_removal":
        config["init_args"] |= {"length": 17, "most": 2}
    choosing = {"camera": (("recipe", "static_motion"),), "bodies": CHOOSE_WINDOWS}
    changed = check_thresholds(config, good_clips, tmp_path, choosing)
    assert changed or task == "camera_change"  # which has no gate: some of the changes refused something


@pytest.mark.parametrize("task", FROM_SCENES)
def test_a_threshold_of_scenes_computes_nothing(task: str, tmp_path: Path) -> None:
    small = {**SCENES, "scenes": 1, "scene": {"height": 48, "width": 64, "frames": 3, "fps": 10.0}}
    changed = check_thresholds(config_of(task, **small), tmp_path, tmp_path / "space")
    assert bool(changed) == (task in ("cg_removal", "cg_replacement"))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of small rendered removals, which all derived tasks but those of controls take."""
    root = tmp_path_factory.mktemp("parent")
    (root / "config.yaml").write_text(yaml.safe_dump(config_of("cg_removal", **SCENES)))
    run("cg_removal", root, root / "cg_removal", root / "space", root / "config.yaml", 0)
    return root / "cg_removal"


def test_the_still_view_of_a_scene_is_rendered_once_for_all_tasks(parent: Path, tmp_path: Path) -> None:
    for task in ("cg_camera", "cg_depth", "cg_replacement"):
        config = tmp_path / f"{task}.yaml"
        config.write_text(yaml.safe_dump(config_of(task, **SCENES)))
        done = run(task, tmp_path, tmp_path / task, parent.parent / "space", config)
        assert (done.stages["source"].computed, done.stages["source"].reused > 0) == (0, True)
        assert done.stages["render"].computed
    assert done.stages["scene"].computed == 0


@pytest.mark.parametrize("task", OTHERS)
def test_a_threshold_of_derived_tasks_computes_nothing(task: str, parent: Path, tmp_path: Path) -> None:
    config = config_of(task, parents=[str(parent)])
    if task == "customization":
        config["init_args"] |= {"least": 12}  # the objects are some 20 pixels high
    changed = check_thresholds(config, tmp_path, tmp_path / "space")
    nobody = task == "object_replacement"  # wears clothes in these scenes: all is refused at once
    assert bool(changed) == (bool(build(config).thresholds()) and not nobody)
