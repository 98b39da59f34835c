"""An edit that two processes sample together is the one that a process makes alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from model import Editor
from shards.media import read_video, write_video
from tests.forked import Forked, ranks, run, wait_for_ranks
from tests.perf.measure import scene

TEXT = "<video1> Remove the dog."


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Eleven frames, three windows."""
    write_video(tmp_path / "in.mp4", scene(11, 48, 64, 0)[0], 10)
    return tmp_path / "in.mp4"


def arguments(checkpoint: Path, clip: Path, out: Path) -> list[object]:
    settings = ["--steps", 3, "--guidance", 2, "--shortcuts.step_cache", 0.2, "--device", "cpu"]
    named = ["--checkpoint", checkpoint, "--video1", clip, "--text", TEXT, "--out", out]
    return ["model", "edit", *named, *settings]


def together(number: int, *given: object) -> tuple[int, str, list[Forked]]:
    processes = ranks(number, *given)
    return *wait_for_ranks(processes, 120), processes


@pytest.mark.slow
@pytest.mark.parametrize("context", ["full", "cached"])
def test_two_processes_make_one_edit(editor: Editor, clip: Path, tmp_path: Path, context: str) -> None:
    config = dataclasses.replace(editor.config, dit=dataclasses.replace(editor.config.dit, context=context))
    Editor(editor.dit, config, editor.vae, editor.text_encoder).save_pretrained(tmp_path / "editor")
    alone = run(*arguments(tmp_path / "editor", clip, tmp_path / "alone.mp4"))
    assert alone.returncode == 0, alone.stderr
    code, errors, processes = together(2, *arguments(tmp_path / "editor", clip, tmp_path / "both.mp4"))
    assert code == 0, errors
    expected, found = (read_video(tmp_path / name)[0].astype(int) for name in ("alone.mp4", "both.mp4"))
    assert np.abs(expected - found).max() <= 2  # sums in another order, then H.264
    assert np.abs(expected - found).mean() < 0.01
    assert not (tmp_path / "both.mp4.parts").exists()
    told = [process.stdout for process in processes]
    assert told[0].replace("both", "alone") == alone.stdout
    assert told[1] == ""


@pytest.mark.slow
def test_what_cannot_be_shared_is_said_in_one_line(clip: Path, tmp_path: Path) -> None:
    code, errors, _ = together(2, *arguments(Path("nano"), clip, tmp_path / "out.mp4"))
    assert code == 2
    assert "a copy head (model.extras.copy_bias) compares all of a sequence's tokens" in errors
    assert not (tmp_path / "out.mp4").exists()
