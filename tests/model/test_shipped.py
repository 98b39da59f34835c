"""Checkpoints as they are passed on: half precision, sums that are checked, found by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model import Editor
from model.cli import main
from model.inference.bundled import CONFIG
from model.inference.pretrained import SUMS, WEIGHTS, find_checkpoint
from shards.errors import ConfigError


@pytest.fixture
def shipped(editor: Editor, tmp_path: Path) -> Path:
    editor.save_pretrained(tmp_path / "run" / "checkpoint")
    assert main(["export", "--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def test_half_of_the_bytes_and_nearly_the_same_edit(editor: Editor, shipped: Path, tmp_path: Path) -> None:
    whole = (tmp_path / "run" / "checkpoint" / WEIGHTS).stat().st_size
    assert (shipped / WEIGHTS).stat().st_size < 0.6 * whole
    loaded = Editor.from_pretrained(shipped)
    assert loaded.dit.bounds.dtype == torch.float32
    clip = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8)
    text = "<video1> Remove the disc."
    apart = loaded(text, video1=clip).frames.astype(int) - editor(text, video1=clip).frames
    assert np.abs(apart).mean() < 1


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_changed_file_is_named(shipped: Path, name: str) -> None:
    data = bytearray((shipped / name).read_bytes())
    data[-2] ^= 1
    (shipped / name).write_bytes(data)
    with pytest.raises(ConfigError, match=rf"{name}: is not the file that .*{SUMS} names"):
        Editor.from_pretrained(shipped)


def test_weights_of_another_size_are_named_without_sums_too(shipped: Path) -> None:
    (shipped / SUMS).unlink()
    text = (shipped / CONFIG).read_text()
    (shipped / CONFIG).write_text(text.replace('"depth": 1', '"depth": 2'))
    with pytest.raises(ConfigError, match=r"does not fit .*: weight"):
        Editor.from_pretrained(shipped)


def test_shipped_weights_are_found_by_name(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.inference.bundled.BUNDLED", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_checkpoint(shipped.name) == shipped
    Editor.from_pretrained(shipped.name)
    with pytest.raises(ConfigError, match=r"nanoo.*not found"):
        find_checkpoint("nanoo")
    Path(shipped.name).mkdir()  # a folder of one's own comes first
    with pytest.raises(ConfigError, match="not found"):
        find_checkpoint(shipped.name)
