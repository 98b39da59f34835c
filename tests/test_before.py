"""Files written before the modules moved into rooms are read: shards, a run, a checkpoint, scores.

The files of `tests/before` were written at commit 6f9a7cf, see `tests/before/make.py`.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from benchmark.__main__ import main as benchmark_main
from model.cli import main as model_main
from shards.aliases import renewed
from shards.media import read_video
from shards.reader import ShardSet
from shards.verify import verify

BEFORE = Path(__file__).parent / "before"
BENCH = ["benchmark", "run", "--data", "shards", "--checkpoint", "checkpoint", "--out", "bench"]


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in, which is the current folder, as it was when the files were written."""
    shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")
    return tmp_path / "before"


def test_shards_of_before_are_read_and_given_columns(before: Path) -> None:
    assert not list(before.glob("shards/columns-*"))
    shards = ShardSet(before / "shards")
    (columns,) = before.glob("shards/columns-*")
    for path in before.glob("shards/*.index.json"):
        path.rename(path.with_suffix(".away"))  # they are not read any more
    shards = ShardSet(before / "shards")
    assert shards.columns.folder == columns
    assert sorted(shards.keys) == [f"object_removal-{n:08x}-0000" for n in range(4)]
    assert {key: shards[key].sample.split for key in shards.keys} == {
        key: "heldout" if key.endswith("3-0000") else "train" for key in shards.keys
    }
    sample = shards["object_removal-00000001-0000"].sample
    assert sample.text == "<video1> Remove the square marked in <mask>. <video2>"
    assert sample.provenance.clip is not None
    assert sample.provenance.clip.name == "square1.mp4"
    for path in before.glob("shards/*.away"):
        path.rename(path.with_suffix(".json"))
    assert verify(before / "shards").faults == []


def test_a_run_of_before_goes_on_as_if_never_stopped(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = renewed(yaml.safe_load(Path("fit.yaml").read_text()))  # a person is asked to do this by hand
    Path("fit.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(sys, "argv", ["python -m model", "fit", "--config", "fit.yaml"])
    model_main()
    with (before / "run" / "curve.csv").open() as ours, (before / "curve.csv").open() as theirs:
        rows, expected = list(csv.DictReader(ours)), list(csv.DictReader(theirs))
    assert [row["step"] for row in rows] == [str(n) for n in range(1, 9)]
    for row, wanted in zip(rows, expected, strict=True):
        assert list(row)[: len(wanted)] == list(wanted)  # columns that came later are behind
        for name in wanted:
            assert float(row[name]) == pytest.approx(float(wanted[name]), rel=1e-4), (row["step"], name)
    weights = load_file(before / "run" / "checkpoint" / "model.safetensors")
    wanted_weights = load_file(before / "checkpoint" / "model.safetensors")
    assert weights.keys() == wanted_weights.keys()
    for name, tensor in weights.items():
        np.testing.assert_allclose(tensor, wanted_weights[name], atol=1e-4, err_msg=name)


def test_a_checkpoint_of_before_edits_as_it_did(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(before / "bench")
    monkeypatch.setattr(sys, "argv", BENCH)
    benchmark_main()
    (ours,) = (before / "bench" / "edits").glob("*.model.mkv")
    (theirs,) = (BEFORE / "bench" / "edits").glob("*.model.mkv")
    assert ours.name == theirs.name  # under the same address
    difference = np.abs(read_video(ours)[0].astype(int) - read_video(theirs)[0])
    assert difference.shape == (9, 48, 64, 3)
    assert difference.max() <= 1


def test_scores_of_before_are_used_again(
    before: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items = (before / "bench" / "items.json").read_bytes()
    monkeypatch.setattr(sys, "argv", BENCH)
    benchmark_main()
    assert "0 edits made, 1 reused; 0 scores computed, 21 reused" in capsys.readouterr().out
    assert (before / "bench" / "items.json").read_bytes() == items
