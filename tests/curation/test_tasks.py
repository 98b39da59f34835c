"""Every offline task on small inputs: shards that verify, invariants, second runs that compute nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from curation.annotators.painter import STYLES, FilterStylizer
from curation.core.cache import Workspace
from curation.engine.run import Summary, run
from curation.engine.run_all import in_order, with_preset
from curation.engine.task_config import RunError, default_config, tasks
from curation.ops.control_signals import draw_poses
from curation.ops.flicker import flicker_of
from curation.tasks.object_replacement import COLOURS
from curation.tasks.style_transfer import HARDLY_VISIBLE, StyleTransfer
from shards.reader import Record, ShardSet
from shards.resources import config_root
from shards.sample import FrameOf
from shards.verify import verify
from shards.writer import Item, write_shards

Cli = Callable[..., subprocess.CompletedProcess[str]]
Finished = tuple[Path, Path, subprocess.CompletedProcess[str]]
Runner = Callable[..., tuple[Summary, list[Record]]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def runner(finished: Finished, good_clips: Path, models_dir: Path, work: Path, module_cwd: None) -> Runner:
    """Runs a task by its own preset, made small, its parents being those that ran here before."""

    def call(task: str, **changes: Any) -> tuple[Summary, list[Record]]:
        config = yaml.safe_load(default_config(task).read_text())
        arguments = config.setdefault("init_args", {})
        if "scenes" in arguments:
            arguments |= {"scenes": 2, "scene": {"height": 96, "width": 128, "frames": 9, "fps": 10.0}}
        if "parents" in arguments:
            wanted = [Path(parent).name for parent in arguments["parents"]]
            here = {"object_removal": finished[0], **{n: work / n for n in wanted if (work / n).is_dir()}}
            arguments["parents"] = [str(here[name]) for name in wanted if name in here]
        arguments |= changes
        (work / f"{task}.yaml").write_text(yaml.safe_dump(config))
        summary = run(task, good_clips, work / task, work / "workspace", work / f"{task}.yaml", 0)
        report = verify(work / task)
        assert not report.faults
        assert report.samples == summary.samples > 0
        again = run(task, good_clips, work / task, work / "workspace", work / f"{task}.yaml", 0)
        assert sum(stage.computed for stage in again.stages.values()) == 0
        shards = ShardSet(work / task)
        return summary, [shards[i] for i in range(len(shards))]

    return call


@pytest.fixture(scope="module")
def module_cwd() -> Any:
    """The folder that the presets' paths are relative to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        yield


def test_controls_go_both_ways(runner: Runner) -> None:
    _, sketches = runner("sketch_to_video", length=17, most=1)
    for record in sketches:
        lines, _ = record.video("video1")
        assert (lines > 127).mean() > 0.01
        assert record.sample.text.endswith(". <video2>")
    _, back = runner("video_to_sketch")
    assert {r.sample.text for r in back} == {"<video1> Detect the sketch. <video2>"}
    assert {r.bytes("video2") for r in back} == {r.bytes("video1") for r in sketches}
    assert {r.sample.provenance.clip for r in back} == {r.sample.provenance.clip for r in sketches}
    assert len(back[0].sample.provenance.steps) > len(sketches[0].sample.provenance.steps)
    assert {r.sample.provenance.parents for r in back} == {(r.key,) for r in sketches}
    *used, _ = sketches[0].sample.provenance.steps
    assert all(step.license for step in used)
    _, both = runner("cg_depth")
    assert {r.sample.task for r in both} == {"depth_to_video", "video_to_depth"}
    assert {r.sample.provenance.given["render"].seed for r in both} == {0, 1}
    for name in ("depth_to_video", "video_to_depth"):
        _, made = runner(name)
        assert {r.sample.task for r in made} == {name}
        assert len(made) == len(both) / 2


def test_poses_are_drawn_where_the_joints_are(runner: Runner, work: Path) -> None:
    _, poses = runner("pose_to_video", length=17, most=1)
    assert all((record.video("video1")[0] > 60).any() for record in poses)
    results = [json.loads(p.read_text()) for p in (work / "workspace" / "pose").glob("*/*/result.json")]
    checked = 0
    for result in results:
        _, _, _, _, height, width = result["files"]["control"]
        for people in result["points"]:
            drawn = draw_poses(np.array(people).reshape(-1, 17, 3), (height, width))
            for x, y, seen in np.array(people).reshape(-1, 3):
                if seen < 0.3 or not (3 <= x < width - 3 and 3 <= y < height - 3):
                    continue
                near = drawn[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4]
                assert (near.min(-1) > 200).any()  # a white joint
                checked += 1
    assert checked > 100
    runner("video_to_pose")


def test_a_style_holds_still(runner: Runner) -> None:
    summary, records = runner("style_transfer", length=17, most=3)
    assert summary.accepted
    for record in records:
        source, _ = record.video("video1")
        target, _ = record.video("video2")
        assert record.sample.scores["flicker"] is not None
        assert record.sample.scores["flicker"] <= 1.3
        assert flicker_of(target, source) <= 1.3 * flicker_of(source, source) + 0.3  # H.264 on top
        assert np.abs(source.astype(int) - target).mean() > 4
        assert record.sample.scores["change"] >= 9


def test_a_style_that_is_hardly_visible_is_refused(good_clips: Path, work: Path) -> None:
    """The filters' styles are mostly above a gate at 9; a gate above all of them refuses all."""
    task, space = StyleTransfer(FilterStylizer(), length=5, most=6, change=200.0), Workspace(work / "faint")
    clip = task.units(str(good_clips / "a.mp4"), space)[0]
    assert {candidate.reason for candidate in task.process(clip, space)} == {HARDLY_VISIBLE}


def test_finished_samples_are_restyled_and_keep_their_split(
    tmp_path: Path, make_items: Callable[..., list[Item]]
) -> None:
    write_shards(tmp_path / "shards", make_items(tmp_path / "media", 4, 5, 32, 48))
    words = {"stylizer": {"class_path": "curation.annotators.painter.FilterStylizer"}, "endings": []}
    config: dict[str, Any] = {"class_path": "curation.tasks.style_transfer.SampleStyleTransfer"}
    config["init_args"] = {"parents": [str(tmp_path / "shards")], "styles": ["night", "sepia"], **words}
    (tmp_path / "styles.yaml").write_text(yaml.safe_dump(config))
    run("style_transfer", "", tmp_path / "out", tmp_path / "workspace", tmp_path / "styles.yaml", 0)
    assert not verify(tmp_path / "out").faults
    parents, made = ShardSet(tmp_path / "shards"), list(ShardSet(tmp_path / "out"))
    assert len(made) == 4
    for record in made:
        (parent,) = record.sample.provenance.parents
        assert record.sample.split == parents[parent].sample.split
        assert record.bytes("video1") == parents[parent].bytes("video1")
        style = "sepia" if "sepia" in record.sample.text else "night"
        assert STYLES[style] in record.sample.text
        red, _, blue = record.video("video2")[0].astype(float).mean((0, 1, 2))
        assert (red > blue) == (style == "sepia")
    config["init_args"]["styles"] = ["nigth"]
    (tmp_path / "styles.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(RunError, match="nigth"):
        run("style_transfer", "", tmp_path / "other", tmp_path / "workspace", tmp_path / "styles.yaml", 0)


def test_a_camera_moves_in_the_frame(runner: Runner) -> None:
    _, records = runner("camera_change", length=17, most=3)
    for record in records:
        source, target = (record.video(name)[0].astype(int) for name in ("video1", "video2"))
        assert source.shape == target.shape
        # the first frame is the same but for H.264, the last is not
        assert np.abs(source[0] - target[0]).mean() < 3 < np.abs(source[-1] - target[-1]).mean()


def test_recolouring_leaves_the_rest(runner: Runner, work: Path) -> None:
    _, records = runner("object_replacement")
    folder = next((work / "workspace" / "recolour").glob("*/*/result.json")).parent
    assert (folder / "preview.png").is_file()
    for record in records:
        source, target = (record.video(name)[0].astype(int) for name in ("video1", "video2"))
        apart, mask = np.abs(source - target).max(-1), record.mask("mask")
        assert apart[mask].mean() > 4 * apart[~mask].mean()
        assert np.percentile(apart[~mask], 99) <= 12  # H.264 alone
        assert any(f" {colour}" in record.sample.text for colour in COLOURS)


def test_derived_tasks_use_their_parents_media(runner: Runner, finished: Finished, work: Path) -> None:
    parent = {r.sample.key: r for r in ShardSet(finished[0])}
    videos = {r.bytes("video1") for r in parent.values()}
    runner("cg_removal")
    runner("object_replacement")
    _, masks = runner("mask_detection")
    ready = [r.sample for name in ("object_replacement", "cg_removal") for r in ShardSet(work / name)]
    ready += [r.sample for r in parent.values()]
    plain = [sample for sample in ready if "<mask>" not in sample.text]
    assert {sample.task for sample in plain} == {"object_removal", "object_addition", "object_replacement"}
    assert len(masks) == len(plain)
    for record in masks:
        assert record.sample.text.startswith("<video1> I want to ")
        assert record.sample.text.endswith(". Detect the region that needs to be edited <video2>")
        drawn = record.video("video2")[0]
        assert ((drawn < 40) | (drawn > 215)).mean() > 0.97
    _, made = runner("propagation")
    assert {r.sample.text for r in made} == {
        "<video1> edit the video following the first frame <image1>. <video2>"
    }
    for record in made:
        assert np.abs(record.image("image1").astype(int) - record.video("video2")[0][0]).max() == 0
        assert record.sample.media["image1"].frame_of == FrameOf(element="video2", frame=0)
    assert any(r.bytes("video1") in videos for r in made)
    _, made = runner("inpainting")
    assert {"<mask>" in r.sample.text for r in made} == {True, False}
    for record in made[:2]:
        hole, mask = record.video("video1")[0].astype(int), record.mask("mask")
        assert np.abs(hole[mask] - 127).mean() < 12
    _, made = runner("image_to_video")
    assert all(r.sample.targets == ["video1"] for r in made)
    assert {r.sample.media["image1"].frame_of for r in made} == {FrameOf(element="video1", frame=0)}
    _, made = runner("text_to_video")
    assert all(list(r.sample.media) == ["video1"] for r in made)
    _, made = runner("customization")
    for record in made:
        picture = record.image("image1")
        assert picture.shape == (256, 256, 3)
        assert (picture[:8] > 240).mean() > 0.9  # on white
        assert (picture < 200).any(-1).mean() > 0.02


def test_addition_shares_removal_s_results(cli: Cli, finished: Finished, mixed_clips: Path) -> None:
    out, space, _ = finished
    target = out.parent / "addition"
    addition = ("run", "object_addition", "--clips", mixed_clips, "--out", target)
    done = cli(*addition, "--workspace", space, "--workers", 0)
    assert done.returncode == 0, done.stderr
    summary = json.loads((target / "summary.json").read_text())
    assert all(stage["computed"] == 0 for name, stage in summary["stages"].items() if name != "cut")
    assert {r.sample.task for r in ShardSet(target)} == {"object_addition"}


def test_a_missing_parent_is_named(cli: Cli, tmp_path: Path) -> None:
    text = default_config("mask_detection").read_text().replace("data/shards", str(tmp_path / "none"))
    (tmp_path / "config.yaml").write_text(text)
    done = cli(
        "run",
        "mask_detection",
        "--out",
        tmp_path / "out",
        "--config",
        tmp_path / "config.yaml",
        "--workers",
        0,
    )
    assert done.returncode == 2
    assert "make curate TASK=object_removal" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_task_has_a_preset_and_parents_come_first() -> None:
    names = sorted(tasks())
    assert len(names) >= 20
    order = in_order(names, "offline")
    assert sorted(order) == names
    for child, parent in (
        ("propagation", "object_replacement"),
        ("object_replacement", "object_removal"),
        ("video_to_pose", "pose_to_video"),
        ("depth_to_video", "cg_depth"),
    ):
        assert order.index(parent) < order.index(child)


def test_all_leaves_out_tasks_that_the_preset_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(config_root() / "curation", tmp_path / "curation")
    (tmp_path / "curation" / "style_transfer.reference.yaml").unlink()
    monkeypatch.setattr("curation.engine.task_config.config_root", lambda: tmp_path)
    names = sorted(tasks())
    assert set(names) - set(with_preset(names, "reference")) == {"style_transfer"}
    assert with_preset(names, "offline") == names
    assert "style_transfer" not in in_order(with_preset(names, "reference"), "reference")
