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
from curation.annotators.step1x_edit import PEAKS, Step1XEdit
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError
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


def test_step1x_edit_says_what_is_missing(program: Programs, tmp_path: Path) -> None:
    editor = Step1XEdit(program("inference.py", service=False, FAIL="nothing"), size_level=64)
    with pytest.raises(AnnotatorError, match="Step1X-Edit: wrote no picture: average time"):
        editor.edit(np.zeros((64, 64, 3), np.uint8), "Invert it.")
    with pytest.raises(AssetError, match=r"vae.safetensors: missing, or not downloaded"):
        Step1XEdit(program("inference.py"), weights=str(tmp_path)).describe()
    assert Step1XEdit(program("inference.py")).describe().settings["size_level"] == 1024
    assert [
        Step1XEdit(program("inference.py"), size_level=level, offload=kept).weights()[0].peak_gib
        for level, kept in (*PEAKS, (700, False))
    ] == [*PEAKS.values(), None]
