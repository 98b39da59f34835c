"""`grade` stores a column for every signal, computes nothing twice, and goes on past what it cannot read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curation.__main__ import main
from curation.engine.engine import Engine, EngineOptions
from curation.quality.grade import Grades, grade, read_graders
from shards.errors import ConfigError, EditVerseError
from shards.reader import ShardSet
from shards.scores import open_scores
from shards.writer import Item, write_shards


@pytest.fixture
def shards(tmp_path: Path, make_items: Callable[..., list[Item]]) -> Path:
    """Six samples of two splits in three shards."""
    write_shards(tmp_path / "shards", make_items(tmp_path / "media", 6, 5, 32, 48, heldout=2), max_samples=2)
    return tmp_path / "shards"


def graded(shards: Path, *signals: str, workers: int = 0) -> Grades:
    with Engine(EngineOptions(workers)) as engine:
        return grade(read_graders(None, str(shards), signals), shards.parent / "workspace", engine)


def test_every_signal_becomes_a_column_in_the_order_of_the_keys(shards: Path) -> None:
    found = graded(shards)
    scores = open_scores(shards)
    assert set(found.columns) <= set(scores.stored)
    assert len(ShardSet(shards)) == 6 == len(scores.column("psnr_outside"))
    assert not np.isnan(scores.column("bars")).any()
    about = scores.about("psnr_outside")
    assert (about.unit, about.better) == ("dB", "higher")
    assert "grade pictures" in about.made_by
    assert found.work["pictures"].computed == 6


def test_what_is_known_is_not_computed_again(shards: Path) -> None:
    first = graded(shards, "psnr_outside")
    assert set(first.columns) == {"psnr_outside"}
    assert set(first.work) == {"pictures"}
    again = graded(shards)
    assert (again.work["pictures"].computed, again.work["pictures"].reused) == (0, 6)
    assert again.work["motion"].computed == 6
    np.testing.assert_array_equal(first.columns["psnr_outside"], again.columns["psnr_outside"])


def test_samples_keep_what_was_measured_when_they_move_to_other_shards(
    shards: Path, make_items: Callable[..., list[Item]]
) -> None:
    graded(shards, "bars")
    items = make_items(shards.parent / "media", 6, 5, 32, 48, heldout=2)
    write_shards(shards.parent / "fewer", items[::2], max_samples=9)
    with Engine(EngineOptions(0)) as engine:
        config = read_graders(None, str(shards.parent / "fewer"), ("bars",))
        found = grade(config, shards.parent / "workspace", engine)
    assert (found.work["pictures"].computed, found.work["pictures"].reused) == (0, 3)


def test_a_damaged_sample_is_null_and_named_and_the_others_are_graded(shards: Path) -> None:
    opened = ShardSet(shards)
    key = opened.keys[1]
    offset, size = opened.members(key)["video2.mp4"]
    with (shards / opened.shard_of(key)).open("r+b") as tar:
        tar.seek(offset + size // 2)
        tar.write(b"\0" * 16)
    found = graded(shards, "bars")
    assert np.isnan(found.columns["bars"]).tolist() == [False, True, False, False, False, False]
    (line,) = found.failed
    assert key in line


@pytest.mark.slow
def test_a_pool_measures_the_same(shards: Path) -> None:
    here = graded(shards)
    pool = graded(shards.rename(shards.with_name("other")), workers=2)
    for name, values in here.columns.items():
        np.testing.assert_array_equal(values, pool.columns[name], err_msg=name)


def test_wrong_requests_are_one_line(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EditVerseError, match="no such signal; there are: psnr_outside"):
        graded(shards, "sharpnes")
    other = tmp_path / "other.yaml"
    other.write_text("class_path: curation.tasks.cg_depth.CgDepth\n")
    with pytest.raises(ConfigError, match="class_path must be"):
        read_graders(other, str(shards), ())


def test_the_command_prints_a_table(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["grade", str(shards), "--signals", "bars,frozen", "--workers", "0"]
    monkeypatch.setattr("sys.argv", ["curation", *arguments, "--workspace", str(shards.parent / "space")])
    assert main() == 0
    told = capsys.readouterr().out
    assert "frozen" in told
    assert "6 samples" in told
    assert "psnr_outside" not in told
    header = json.loads(next(shards.glob("scores-*/scores.json")).read_text())
    assert set(header["scores"]) == {"bars", "frozen"}
