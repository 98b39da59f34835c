"""Planted defects are what their labels say, and everything else stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from curation.quality.plant import CLEAN, Shrink, plant, read_labels
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
