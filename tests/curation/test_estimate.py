"""What the dry run says an accepted pair of the reference preset would cost."""

from __future__ import annotations

import pytest

from curation.annotators.recammaster import ReCamMaster
from curation.annotators.vace import WanVace
from curation.annotators.video_depth_anything import VideoDepthAnything
from curation.core.task import Task
from curation.engine.estimate import parts_on_gpu, print_estimate, published_speed
from curation.engine.task_config import build, default_config, load_config


def reference(task: str) -> Task:
    return build(load_config(task, default_config(task, "reference")))


def test_a_speed_belongs_to_the_checkpoint_that_was_timed() -> None:
    large, small = (
        published_speed(WanVace(f"Wan-AI/Wan2.1-VACE-{size}-diffusers")) for size in ("14B", "1.3B")
    )
    assert large is not None
    assert small is not None
    assert large.seconds == pytest.approx(2 * small.seconds)
    assert all(one.source.startswith("assumed: ") for one in (large, small))
    assert published_speed(WanVace("my/own-vace")) is None
    assert published_speed(VideoDepthAnything(encoder="vitb")) is None
    fast, slow = (published_speed(VideoDepthAnything(encoder=name)) for name in ("vits", "vitl"))
    assert fast is not None
    assert slow is not None
    assert fast.seconds < slow.seconds


def test_an_accepted_pair_costs_a_candidate_over_the_share(capsys: pytest.CaptureFixture[str]) -> None:
    task = reference("camera_change")
    parts = {part.name: part.seconds for part in parts_on_gpu(task)}
    assert parts[ReCamMaster.__name__] == pytest.approx(480)  # 81 frames
    assert parts["QwenVl"] is None
    print_estimate(task)
    printed = capsys.readouterr().out
    assert "at least 2,692 (EditVerse's share, 231,792 of 1.3 M)" in printed  # 480 / 0.1783
    assert "at least 17,232 (Señorita-2M's share in it, 55,711 of 2 M)" in printed
    assert "not counted: QwenVl" in printed


def test_a_task_without_a_gpu_has_no_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    print_estimate(build(load_config("cg_depth", default_config("cg_depth", "offline"))))
    assert capsys.readouterr().out == ""
