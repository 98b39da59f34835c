"""`python -m benchmark study analyse`: all that a study's votes say, as one tree of plain values.

Everything is computed twice: without the raters that the study's rule leaves out, and with them.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmark.analysis.compare import Items
from benchmark.statistics.agreement import krippendorff_alpha
from benchmark.statistics.bradley_terry import RIDGE, bradley_terry
from benchmark.study.definition import StudyDefinition
from benchmark.study.records import StudyError, Vote
from benchmark.votes.ballots import Ballots, ballots
from benchmark.votes.metrics import metric_report
from benchmark.votes.power import all_powers
from benchmark.votes.preferences import (
    READINGS,
    majority_shares,
    overall_preferences,
    pair_preferences,
    readings_differ,
)
from benchmark.votes.raters import left_share, rater_checks, self_agreement

VERSION = 1  # of analysis.json


@dataclass(frozen=True)
class RunScores:
    """A benchmark run that metrics are taken from.

    Attributes:
        items: of its items.json.
        higher_is_better: by metric, where it says so.
        name: what the report calls it.
    """

    items: Items
    higher_is_better: Mapping[str, bool]
    name: str


def analyse(
    definition: StudyDefinition,
    votes: Sequence[Vote],
    *,
    center: str | None = None,
    run: RunScores | None = None,
    closed: datetime.datetime | None = None,
    seed: int = 0,
    resamples: int = 400,
) -> dict[str, Any]:
    """Analyse a study.

    Args:
        votes: all of them, practice, attention checks and repeats too.
        center: method of the figure of the paper; the definition's center, or its first method, if not given.
        run: scores to correlate with.
        closed: when the study was closed, in UTC; None while it takes votes.
        seed: of the bootstraps; resamples: of each of them.

    Returns:
        What `analysis.json` holds: values are None where there is not enough to say.

    Raises:
        StudyError: no vote that counts, or `center` is none of the methods.
    """
    center = center or definition.center or next(iter(definition.methods))
    if center not in definition.methods:
        raise StudyError(f"--center {center}: is none of the methods {', '.join(definition.methods)}")
    checks = rater_checks(definition, votes)
    if not any(vote.kind == "pair" for vote in votes):
        raise StudyError(f"{definition.name}: no votes on pairs yet; there is nothing to analyse")
    left_out = {check.label for check in checks if check.reasons}
    kept = [vote for vote in votes if vote.rater not in left_out]
    results = {"included": _results(definition, kept, run, seed, resamples)}
    if left_out:
        results["all"] = _results(definition, list(votes), run, seed, resamples)
    public = [{k: v for k, v in asdict(check).items() if k != "label"} for check in checks]
    return {
        "version": VERSION,
        "study": definition.model_dump(mode="json"),
        "closed": None if closed is None else closed.isoformat(timespec="seconds"),
        "votes": {"all": len(votes), "by_kind": dict(sorted(Counter(v.kind for v in votes).items()))},
        "first_vote": min(vote.created for vote in votes).isoformat(timespec="seconds"),
        "last_vote": max(vote.created for vote in votes).isoformat(timespec="seconds"),
        "raters": public,
        "left_out": [check.rater for check in checks if check.reasons],
        "center": center,
        "run": None if run is None else run.name,
        "readings": dict(READINGS),
        "method": {
            "intervals": "95 %, clustered by rater and by source video (Cameron, Gelbach and Miller 2011)",
            "strengths": f"Davidson 1970, ridge {RIDGE:g}; bootstraps of {resamples} resamples, seed {seed}",
        },
        "results": results,
    }


def _results(
    definition: StudyDefinition,
    votes: Sequence[Vote],
    run: RunScores | None,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """What the votes of some raters say."""
    counted = ballots(definition, votes)
    strengths = {
        criterion: bradley_terry(
            counted.methods,
            counted.first,
            counted.second,
            counted.outcome(criterion),
            counted.raters,
            counted.clusters,
            seed=seed,
            resamples=resamples,
        )
        for criterion in counted.criteria
    }
    differ, comparisons = readings_differ(counted)
    questions = [question.id for question in definition.questions]
    metrics = None
    if run is not None:
        metrics = asdict(metric_report(counted, strengths, run.items, run.higher_is_better))
    return {
        "raters": len(set(counted.raters)),
        "votes": len(counted),
        "comparisons": comparisons,
        "items": len(set(counted.items)),
        "source_videos": len(set(counted.clusters)),
        "preferences": {
            criterion: {
                "pairs": [asdict(of) for of in pair_preferences(counted, criterion)],
                "overall": [asdict(of) for of in overall_preferences(counted, criterion)],
            }
            for criterion in counted.criteria
        },
        "majority": {
            "readings_differ": differ,
            **{reading: [asdict(of) for of in majority_shares(counted, reading)] for reading in READINGS},
        },
        "strengths": {criterion: asdict(of) for criterion, of in strengths.items()},
        "agreement": {criterion: _agreement(counted, criterion) for criterion in questions},
        "self_agreement": {
            (criterion or "all"): asdict(self_agreement(votes, criterion)) for criterion in (*questions, None)
        },
        "left": {criterion: asdict(left_share(counted, criterion)) for criterion in questions},
        "seconds": _quartiles(counted),
        "power": {
            criterion: [asdict(of) for of in all_powers(counted, criterion)] for criterion in counted.criteria
        },
        "metrics": metrics,
    }


def _agreement(votes: Ballots, criterion: str) -> dict[str, Any]:
    outcome = votes.outcome(criterion)
    return {
        level: asdict(krippendorff_alpha(votes.units(), votes.raters, outcome, votes.clusters, level))
        for level in ("nominal", "ordinal")
    }


def _quartiles(votes: Ballots) -> dict[str, float | None]:
    """Of the time for a pair, in seconds."""
    if not len(votes):
        return dict.fromkeys(("lower", "median", "upper"))
    lower, median, upper = np.quantile(votes.seconds, [0.25, 0.5, 0.75])
    return {"lower": float(lower), "median": float(median), "upper": float(upper)}
