"""Planted defects are what their labels say, and everything else stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curation.__main__ import main
from curation.quality.plant import CLEAN, Shrink, plant, read_labels
from curation.quality.selection.labels import read_labels as read_votes
from shards.reader import ShardSet
from shards.verify import verify
from shards.writer import Item, write_shards


def test_chosen_samples_get_one_defect_each_and_the_others_none(
    tmp_path: Path, make_items: Callable[..., list[Item]]
) -> None:
    write_shards(tmp_path / "shards", make_items(tmp_path / "media", 12, 9, 64, 96))
    wanted = {"swapped": 2, "leftover": 2, "flicker": 2, "colour_shift": 2}
    no_way = {"frozen": 1, "wrong_instruction": 1}  # nothing moves in a target, no text names a colour
    labels = plant([tmp_path / "shards"], tmp_path / "out", wanted | no_way, clean=3)
    assert labels == read_labels(tmp_path / "out")
    kinds = [label.kind for label in labels]
    assert {kind: kinds.count(kind) for kind in [*wanted, *no_way]} == wanted | dict.fromkeys(no_way, 0)
    assert kinds.count(CLEAN) == 3
    assert verify(tmp_path / "out").faults == []
    before, after = ShardSet(tmp_path / "shards"), ShardSet(tmp_path / "out")
    assert [label.key for label in labels] == sorted(after.keys)
    for label in labels:
        old, new = before[label.key], after[label.key]
        assert new.sample.text == old.sample.text
        source, target = (old.video(name)[0].astype(int) for name in ("video1", "video2"))
        changed = np.abs(new.video("video2")[0].astype(int) - target).mean(-1)
        if label.kind == "swapped":
            assert new.bytes("video2") == old.bytes("video1")
            assert np.abs(new.video("video1")[0] - target).mean() < 2
            continue
        assert new.bytes("video1") == old.bytes("video1")
        assert (np.percentile(changed, 99.5) > 10) == (label.kind != CLEAN), label
        if label.kind == "leftover":
            assert (
                np.abs(new.video("video2")[0].astype(int) - source)[old.mask()].mean(-1) < 12
            ).mean() > 0.3
        if label.kind == "colour_shift":
            assert (changed.mean((1, 2)) > 2.5).all()


def test_pairs_are_made_small_with_their_masks(tmp_path: Path, make_items: Callable[..., list[Item]]) -> None:
    write_shards(tmp_path / "shards", make_items(tmp_path / "media", 2, 9, 64, 96))
    plant([tmp_path / "shards"], tmp_path / "out", {}, clean=2, shrink=Shrink(32, 5))
    assert verify(tmp_path / "out").faults == []
    for record in ShardSet(tmp_path / "out"):
        assert {(m.frames, m.height, m.width, m.fps) for m in record.sample.media.values()} == {
            (5, 32, 48, 5.0)
        }
        assert 0 < record.mask().mean() < 0.5


def test_the_command_labels_a_share_and_takes_up_again_what_was_killed(
    tmp_path: Path,
    make_items: Callable[..., list[Item]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_shards(tmp_path / "shards", make_items(tmp_path / "media", 10, 5, 32, 48))

    def call(*more: str) -> tuple[int, str]:
        given = ["plant", str(tmp_path / "shards"), "--out", str(tmp_path / "out"), *more]
        monkeypatch.setattr("sys.argv", ["curation", *given])
        return main(), capsys.readouterr().err

    asked = ("--share", "0.4", "--kinds", "[swapped]", "--labels", str(tmp_path / "labels.jsonl"))
    asked = (*asked, "--labelled", "0.5")
    assert call(*asked) == (0, "")
    planted = read_labels(tmp_path / "out")
    assert sum(label.kind == "swapped" for label in planted) == 4
    assert len(planted) == 10
    votes = read_votes(tmp_path / "labels.jsonl").votes
    kinds = {label.key: label.kind for label in planted}
    assert len(votes) == 5
    assert all(vote["plant"].keep == (kinds[key] == CLEAN) for key, vote in votes.items())

    first = (tmp_path / "out" / "train-000000.tar").read_bytes()
    (tmp_path / "out.labels.jsonl").unlink()  # which a finished call writes last
    (tmp_path / "out" / "train-000000.tar").write_bytes(first[:100])
    assert call(*asked) == (0, "")
    assert read_labels(tmp_path / "out") == planted
    assert ShardSet(tmp_path / "out").keys == ShardSet(tmp_path / "shards").keys
    assert (tmp_path / "out" / "train-000000.tar").read_bytes() == first
    status, error = call("--share", "0.2")
    assert status == 2
    assert error.count("\n") == 1
    assert "--out" in error
    assert call("--share", "1.5")[1].startswith("error: --share 1.5")
