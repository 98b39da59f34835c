"""A gallery drawn by lot: the command, its picture and its page."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from PIL import Image

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_lot_is_edited_into_one_picture(
    pairs_dir: Path, checkpoint: Path, tmp_path: Path, command: Command
) -> None:
    wanted = ("gallery", "--shards", f"[{pairs_dir}]", "--checkpoint", checkpoint, "--count", 4)
    for name in ("one", "two"):
        done = command(*wanted, "--out", tmp_path / f"{name}.jpg", "--seed", 3)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 4
    assert (tmp_path / "one.jpg").read_bytes() == (tmp_path / "two.jpg").read_bytes()
    with Image.open(tmp_path / "one.jpg") as picture:
        assert picture.width > 3 * 3 * 40  # three columns of three moments
        assert picture.height > 2 * 3 * 28  # two rows of source, edit and target
    page = (tmp_path / "one.md").read_text()
    assert "![](one.jpg)" in page
    assert "seed 3" in page
    assert page.count("square") == 4


def test_more_than_there_is_cannot_be_drawn(
    pairs_dir: Path, checkpoint: Path, tmp_path: Path, command: Command
) -> None:
    arguments = ("--checkpoint", checkpoint, "--count", 100, "--out", tmp_path / "out.jpg")
    done = command("gallery", "--shards", f"[{pairs_dir}]", *arguments)
    assert done.returncode == 2
    assert "12 held-out items, 100 wanted" in done.stderr
    done = command("gallery", "--shards", f"[{pairs_dir}]", *arguments[:2], "--count", 10_000)
    assert done.returncode == 2
    assert "--count 10000: a picture holds 240 items at most" in done.stderr
    assert not list(tmp_path.iterdir())
