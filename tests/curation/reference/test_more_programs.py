"""Step1X-Edit, MiniMax-Remover, Video-Depth-Anything: stand-ins that refuse what the real ones refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.annotators import service
from curation.annotators.external import Program
from curation.annotators.minimax_remover import MiniMaxRemover
from curation.annotators.step1x_edit import PEAKS, Step1XEdit
from curation.annotators.video_depth_anything import VideoDepthAnything
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError
from shards.errors import SettingError
from shards.media import write_image

Programs = Callable[..., Program]


@pytest.fixture
def program(checkout: Path) -> Iterator[Programs]:
    """`program(script, service, timeout, **environment)`; what was kept running ends with the test."""

    def make(script: str, service: bool = True, timeout: float = 60, **environment: str) -> Program:
        return Program(str(checkout), sys.executable, script, timeout, environment, service)

    (checkout / "loads.txt").unlink(missing_ok=True)
    yield make
    service.close_all()


# ---- Step1X-Edit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
def test_step1x_edit_keeps_a_picture_where_it_was(program: Programs, checkout: Path, kept: bool) -> None:
    picture = np.full((117, 208, 3), 40, np.uint8)  # a quarter of 832x468, whose sides are no multiples of 16
    cv2.line(picture, (52, 0), (52, 116), (250, 250, 250), 2)
    cv2.line(picture, (0, 90), (207, 90), (250, 250, 250), 2)
    editor = Step1XEdit(program("inference.py", service=kept), size_level=256, offload=True)
    for _ in range(2):
        edited = editor.edit(picture, "Invert it.", seed=77)
        assert edited.shape == picture.shape
        # no line has moved or become wider: what it draws is the canvas itself, not a stretched one
        assert np.abs(255 - edited[20:].astype(int) - picture[20:]).mean() < 4
        for axis in (0, 1):
            lines = [
                np.argmin(edited[20:, 20:].mean((axis, 2))),
                np.argmax(picture[20:, 20:].mean((axis, 2))),
            ]
            assert abs(lines[0] - lines[1]) <= 1
    assert len((checkout / "loads.txt").read_text().splitlines()) == (1 if kept else 2)


def test_step1x_edit_gets_the_seed(program: Programs) -> None:
    picture = np.full((64, 64, 3), 128, np.uint8)
    for kept in (True, False):
        editor = Step1XEdit(program("inference.py", service=kept), size_level=64, seed=3)
        assert editor.edit(picture, "Invert it.", seed=40)[2, 2, 0] == 43


def test_one_picture_alone_ends_its_program(checkout: Path, tmp_path: Path) -> None:
    """It divides by the number of pictures after the first one."""
    write_image(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "prompts.json").write_text('{"a.png": "Invert it."}')
    command = [sys.executable, "inference.py", "--model_path", "weights/step1x-edit"]
    command += ["--input_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    command += ["--json_path", str(tmp_path / "prompts.json")]
    ended = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert "ZeroDivisionError" in ended.stderr


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    ("fail", "said"), [("size", "wrote 32x32, not 64x64"), ("crash", "an illegal memory access")]
)
def test_step1x_edit_says_how_it_failed(program: Programs, kept: bool, fail: str, said: str) -> None:
    editor = Step1XEdit(program("inference.py", service=kept, FAIL=fail), size_level=64)
    with pytest.raises(AnnotatorError, match=f"Step1X-Edit: .*{said}"):
        editor.edit(np.zeros((64, 64, 3), np.uint8), "Invert it.")


def test_step1x_edit_says_what_is_missing(program: Programs, checkout: Path, tmp_path: Path) -> None:
    editor = Step1XEdit(program("inference.py", service=False, FAIL="nothing"), size_level=64)
    with pytest.raises(AnnotatorError, match="Step1X-Edit: wrote no picture: average time"):
        editor.edit(np.zeros((64, 64, 3), np.uint8), "Invert it.")
    with pytest.raises(AssetError, match=r"vae.safetensors: missing, or not downloaded"):
        Step1XEdit(program("inference.py"), weights=str(tmp_path)).describe()
    assert Step1XEdit(program("inference.py")).describe().settings["size_level"] == 1024
    outside = str(checkout.absolute() / "weights/step1x-edit")
    assert Step1XEdit(program("inference.py"), weights=outside).describe().model == "step1x-edit"
    assert [
        Step1XEdit(program("inference.py"), size_level=level, offload=kept).weights()[0].peak_gib
        for level, kept in (*PEAKS, (700, False))
    ] == [*PEAKS.values(), None]


# ---- Video-Depth-Anything ---------------------------------------------------------------------------------


def test_video_depth_is_of_all_frames(
    clip: np.ndarray, program: Programs, checkout: Path, depth_weights: Callable[..., None]
) -> None:
    depth_weights()
    estimator = VideoDepthAnything(program("run.py"))
    estimator.describe()
    for count in (1, 4, 9):  # also clips shorter than its 32 frames
        inverse = estimator.inverse_depth(clip[:count])
        assert inverse.dtype == np.float32
        assert np.allclose(inverse, clip[:count, ..., 0] / 255)
    assert len((checkout / "loads.txt").read_text().splitlines()) == 1
    assert estimator.weights()[0].parameters == 28_400_000
    with pytest.raises(AssetError, match=r"video_depth_anything_vitl.pth: missing, or not downloaded"):
        VideoDepthAnything(program("run.py"), encoder="vitl").describe()
    with pytest.raises(SettingError, match="service: false"):
        VideoDepthAnything(program("run.py", service=False))


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("count", "float32 of 4x64x96, not float32 of 9x64x96"),
        pytest.param("nan", "numbers that are not finite", marks=pytest.mark.slow),
    ],
)
def test_wrong_depths_are_refused(
    clip: np.ndarray, program: Programs, depth_weights: Callable[..., None], fail: str, said: str
) -> None:
    depth_weights()
    with pytest.raises(AnnotatorError, match=f"Video-Depth-Anything: wrote {said}"):
        VideoDepthAnything(program("run.py", FAIL=fail)).inverse_depth(clip)


@pytest.mark.slow
def test_weights_of_another_size_do_not_load(
    clip: np.ndarray, program: Programs, depth_weights: Callable[..., None]
) -> None:
    depth_weights(features=128)
    with pytest.raises(AssetError, match="Video-Depth-Anything: it does not load"):
        VideoDepthAnything(program("run.py")).inverse_depth(clip)


# ---- MiniMax-Remover --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_minimax_remover_fills_the_hole_and_blends(
    clip: np.ndarray, program: Programs, checkout: Path, remover_weights: str
) -> None:
    """Any number of frames and any sides; outside of the returned mask to the bit, no seam at its rim."""
    frames = np.full((22, 62, 90, 3), 100, np.uint8)
    mask = np.zeros(frames.shape[:3], bool)
    mask[:, 25:35, 30:50] = True
    remover = MiniMaxRemover(program("pipeline_minimax_remover.py"), weights=remover_weights)
    with pytest.raises(AssetError, match="missing, or not downloaded"):
        MiniMaxRemover(program("pipeline_minimax_remover.py"), weights="no").describe()
    remover.describe()  # weights may lie outside of the checkout
    for count, seed in ((22, 160), (5, 161)):
        made, changed = remover.inpaint(frames[:count], mask[:count], 29.97, "", seed)
        assert made.shape == frames[:count].shape
        assert (made[mask[:count]] == seed).all()
        assert (made[~changed] == 100).all()
        row = made[0, 30, :, 0].astype(int)
        assert (row[30 - 6 : 50 + 6] == seed).all()  # as it dilates
        reach = np.flatnonzero(changed[0, 30])
        assert (reach[0], reach[-1]) == (30 - 6 - 5, 49 + 6 + 5)
        assert np.abs(np.diff(row[: 30 - 6])).max() < 15
    assert len((checkout / "loads.txt").read_text().splitlines()) == 1
    with pytest.raises(SettingError, match="service: false"):
        MiniMaxRemover(program("pipeline_minimax_remover.py", service=False))
