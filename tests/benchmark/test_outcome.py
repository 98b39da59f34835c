"""A run's means: failures are counted and not scored, and intervals are over source clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark.core.item import Item, Loaded, Unscored
from benchmark.core.score_cache import Score
from benchmark.evaluation.results import COMMON, Outcome, Run, RunConfig
from benchmark.metrics.psnr import Psnr
from benchmark.statistics.intervals import mean_interval
from benchmark.suites.heldout import Suite

PSNR = Psnr("inside")


def load() -> Loaded:
    raise NotImplementedError("nothing here looks at pixels")


def run_of(pairs_dir: Path, scores: list[tuple[str, Score]]) -> Run:
    """A run whose only metric gave these scores of items of these clips."""
    outcomes = [
        Outcome(
            Item(f"item{n}", "removal", "", "", "", clip, f"pair{n}", None, load),
            {"model": {PSNR.name: score}},
        )
        for n, (clip, score) in enumerate(scores)
    ]
    config = RunConfig("heldout", str(pairs_dir), None)
    return Run(config, Suite(pairs_dir), [PSNR], outcomes, ["model"], None, {})


def test_a_failure_is_counted_and_is_no_score(pairs_dir: Path) -> None:
    scores: list[tuple[str, Score]] = [(f"clip{n}", 30.0 + n) for n in range(6)]
    run = run_of(pairs_dir, [*scores, ("clip6", Unscored("no mask"))])
    mean = run.mean("model", PSNR, list(range(7)))
    assert (mean.value, mean.scored, mean.failed) == (32.5, 6, 1)
    assert mean.low is not None
    assert mean.low > 29
    assert run.failures() == [("item6", "model", "all", "no mask")]
    assert run.items_out()["items"][6]["scores"]["model"][PSNR.name] is None


def test_edits_of_one_clip_are_one_cluster(pairs_dir: Path) -> None:
    values = np.repeat(np.random.default_rng(0).normal(30, 2, 6), 4).tolist()
    clips = [f"clip{n // 4}" for n in range(24)]
    run = run_of(pairs_dir, list(zip(clips, values, strict=True)))
    mean = run.mean("model", PSNR, list(range(24)))
    assert run.clusters == ("source clip", clips)
    assert mean == mean_interval(values, clips, bounds=PSNR.range)
    alone = mean_interval(values, [str(n) for n in range(24)], bounds=PSNR.range)
    assert mean.clusters == 6
    assert mean.high is not None
    assert alone.high is not None
    assert mean.high - mean.value > 1.5 * (alone.high - alone.value)  # type: ignore[operator]
    assert mean.value == pytest.approx(np.mean(values))


def test_rows_scored_on_different_items_are_compared_on_those_that_both_have(pairs_dir: Path) -> None:
    """The second row lacks the two easiest items: over all it looks worse than it is, and that is said."""
    run = run_of(pairs_dir, [(f"clip{n}", 20.0 + 2 * n) for n in range(8)])
    assert COMMON not in dict(run.groups())
    assert not any("different items" in remark for remark in run.all_remarks)
    for n, outcome in enumerate(run.outcomes):
        outcome.scores["ours"] = {PSNR.name: Unscored("no such file") if n > 5 else 21.0 + 2 * n}
        outcome.scores["empty"] = {PSNR.name: Unscored("no such file")}
    run = Run(run.config, run.suite, [PSNR], run.outcomes, ["model", "ours", "empty"], None, {})
    groups = dict(run.groups())
    assert list(groups)[1] == COMMON
    assert groups[COMMON] == [0, 1, 2, 3, 4, 5]
    assert run.mean("model", PSNR, groups["all"]).value == 27
    assert run.mean("ours", PSNR, groups["all"]).value == 26
    assert run.mean("model", PSNR, groups[COMMON]).value == 25
    assert run.mean("ours", PSNR, groups[COMMON]).value == 26
    (told,) = [remark for remark in run.all_remarks if "different items" in remark]
    assert "Model 8, ours 6, empty 0" in told
    assert run.summary()["table"][COMMON]["ours"][PSNR.name]["value"] == 26
