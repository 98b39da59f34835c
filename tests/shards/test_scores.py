"""Scores beside the shards: stored whole or not at all, null kept, damage and other manifests refused."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from shards.errors import SettingError
from shards.location import ShardError
from shards.reader import ShardSet
from shards.scores import About, ScoreError, open_scores, scores_faults, write_scores
from shards.writer import write_shards

SHARPNESS = About(made_by="grade sharpness 1", unit="", better="higher", what="sharpness of the target")


@pytest.fixture
def scored(tmp_path: Path, make_items) -> Path:
    """Samples with scores of their own: `residual` on three of four, one of them null; `odd/name` on one."""
    (tmp_path / "media").mkdir()
    own = [{"residual": 0.5}, {"residual": None}, {"odd/name": 2.0}, {"residual": 0.25}]
    items = [
        (sample.model_copy(update={"scores": scores}), files)
        for (sample, files), scores in zip(make_items(tmp_path / "media", 4, 2, 32, 48), own, strict=True)
    ]
    write_shards(tmp_path / "shards", items, max_samples=2)
    return tmp_path / "shards"


def test_own_and_stored_scores_are_columns_in_the_order_of_the_keys(scored: Path) -> None:
    samples = ShardSet(scored)
    values = {key: number / 8 for number, key in enumerate(samples.keys)}
    write_scores(scored, "sharpness", [*list(values.values())[:3], float("nan")], SHARPNESS)
    scores = open_scores(scored)
    assert scores.stored == ("sharpness",)  # no sample was read for it
    assert scores.names == ("odd/name", "residual", "sharpness")
    for number, sample in enumerate(samples):
        own = sample.sample.scores.get("residual")
        assert own == (None if np.isnan(found := scores.column("residual")[number]) else float(found))
    np.testing.assert_array_equal(scores.column("sharpness"), np.float32([0, 0.125, 0.25, np.nan]))
    assert scores.about("sharpness") == SHARPNESS
    assert scores.about("residual").made_by == "sample"
    assert isinstance(scores.column("sharpness"), np.memmap)


def test_the_samples_are_read_once_for_their_own_scores(scored: Path) -> None:
    assert "residual" in open_scores(scored)
    for tar in scored.glob("*.tar"):
        tar.unlink()
    assert len(open_scores(scored).column("residual")) == 4


def test_what_was_measured_later_takes_the_place_of_what_was_there(scored: Path) -> None:
    scores = open_scores(scored)
    before = scores.column("residual").copy()
    write_scores(scored, "residual", [1, 2, 3, 4], SHARPNESS)
    np.testing.assert_array_equal(scores.column("residual"), before)  # as it was when it was opened
    assert open_scores(scored).about("residual") == SHARPNESS
    assert open_scores(scored).column("residual").tolist() == [1, 2, 3, 4]
    assert "odd/name" in open_scores(scored).names


def test_a_replacement_that_stops_half_way_leaves_no_score(scored: Path) -> None:
    write_scores(scored, "sharpness", [1, 2, 3, 4], SHARPNESS)
    blocked = next(scored.glob("scores-*")) / "sharpness.npy"
    blocked.unlink()
    blocked.mkdir()  # nothing can be put in its place
    with pytest.raises(OSError, match="sharpness"):
        write_scores(scored, "sharpness", [4, 3, 2, 1], SHARPNESS)
    assert "sharpness" not in open_scores(scored)


def store(folder: Path, number: int) -> None:
    write_scores(folder, f"score{number}", [number] * 4, SHARPNESS)


def test_processes_store_at_the_same_time(scored: Path) -> None:
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=store, args=(scored, number)) for number in range(6)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    scores = open_scores(scored)
    assert [int(scores.column(f"score{n}")[0]) for n in range(6)] == list(range(6))


def test_values_that_cannot_be_scores_are_refused(scored: Path) -> None:
    with pytest.raises(SettingError, match=r"shape \(3,\), .* has 4 samples"):
        write_scores(scored, "sharpness", [1, 2, 3], SHARPNESS)
    with pytest.raises(SettingError, match="infinite at sample 2"):
        write_scores(scored, "sharpness", [1, 2, np.inf, 4], SHARPNESS)
    with pytest.raises(SettingError, match="1 to 100 printable"):
        write_scores(scored, "", [1, 2, 3, 4], SHARPNESS)
    assert not list(scored.glob("scores-*"))


def test_a_score_that_is_not_there_is_an_error_that_says_what_measures_it(scored: Path) -> None:
    with pytest.raises(ScoreError, match=r"no score 'psnr', there are: odd/name, residual; .*curation grade"):
        open_scores(scored).column("psnr")


def test_damage_is_found_by_name(scored: Path) -> None:
    write_scores(scored, "sharpness", [1, 2, 3, 4], SHARPNESS)
    write_scores(scored, "blur", [1, 2, 3, 4], SHARPNESS)
    assert list(scores_faults(scored)) == []
    folder = next(scored.glob("scores-*"))
    data = bytearray((folder / "sharpness.npy").read_bytes())
    data[-1] ^= 1
    (folder / "sharpness.npy").write_bytes(data)
    (folder / "blur.npy").unlink()
    with pytest.raises(ScoreError, match=r"sharpness\.npy: damaged"):
        open_scores(scored).column("sharpness")
    assert [fault.rpartition("/")[2].partition(";")[0] for fault in scores_faults(scored)] == [
        "blur.npy: missing",
        "sharpness.npy: damaged, it is not what scores.json says",
    ]
    header = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps(header | {"samples": 5}))
    with pytest.raises(ScoreError, match=r"scores\.json: of another manifest"):
        open_scores(scored)


def test_samples_behind_a_url_have_their_scores_too(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITVERSE_CACHE", str(tmp_path / "cache"))
    url = f"local://{scored}"
    write_scores(url, "sharpness", [1, 2, 3, 4], SHARPNESS)
    assert open_scores(scored).column("sharpness").tolist() == [1, 2, 3, 4]  # beside the shards
    assert open_scores(url).column("sharpness").tolist() == [1, 2, 3, 4]
    assert open_scores(url).names == ("odd/name", "residual", "sharpness")
    (beside,) = scored.glob("scores-*")  # what the samples say is kept on this machine
    assert sorted(path.name for path in beside.iterdir()) == ["scores.json", "sharpness.npy"]


def test_a_fault_that_is_none_of_permissions_is_not_passed_over(scored: Path) -> None:
    name = next(scored.glob("columns-*")).name.replace("columns", "scores")
    (scored / name).write_text("in the way")
    with pytest.raises(ShardError, match=r"scores-.*Not a directory"):
        write_scores(scored, "sharpness", [1, 2, 3, 4], SHARPNESS)
