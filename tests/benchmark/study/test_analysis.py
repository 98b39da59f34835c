"""What votes come to: strengths, intervals, majorities, agreement, exclusions, and too few of anything."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import choix
import krippendorff
import numpy as np
import pytest

from benchmark.analysis.calibrate import calibrate, read_labels
from benchmark.analysis.compare import Items
from benchmark.analysis.human_correlation import read_ratings
from benchmark.cli import study_analysis
from benchmark.core.item import BenchmarkError
from benchmark.statistics.agreement import krippendorff_alpha
from benchmark.statistics.bradley_terry import RIDGE, bradley_terry, fit
from benchmark.statistics.two_way import preference_interval, share_interval
from benchmark.study.definition import QUESTIONS, Exclusion, StudyDefinition
from benchmark.study.records import Side, StudyError, Vote
from benchmark.votes.ballots import ballots
from benchmark.votes.export import write_labels, write_votes
from benchmark.votes.figures import bar_groups
from benchmark.votes.power import closest_methods, ratings_needed, study_power
from benchmark.votes.preferences import comparison_outcomes, majority_shares
from benchmark.votes.raters import rater_checks
from benchmark.votes.report import report_page, write_analysis
from benchmark.votes.summary import RunScores, analyse
from benchmark.votes.tables import pair_table
from tests.benchmark.study.simulated import MET, Simulated, Taste, simulate

TRUE = dict(zip(MET, (0.8, 0.4, 0.0, -0.4, -0.8), strict=True))
CRITERIA = ("alignment", "preservation", "aesthetics")
QUICK = 20  # resamples


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    """Six raters with three methods, one of whom guesses."""
    strengths = {"one <b>": 1.0, "two": 0.0, "three": -1.0}
    return simulate(
        Taste(strengths, guessing=(5,)), items=20, videos=15, pairs=60, raters=6, raters_per_pair=3
    )


@pytest.fixture(scope="module")
def analysed(simulated: Simulated) -> dict[str, Any]:
    """What its votes say."""
    return analyse(simulated.definition, simulated.votes(), resamples=QUICK)


def a_vote(
    rater: str,
    item: str,
    left: str,
    right: str,
    answers: str,
    **more: Any,
) -> Vote:
    """A vote with an answer (l, s or r) for each criterion."""
    sides: dict[str, Side] = {"l": "left", "s": "same", "r": "right"}
    given = {criterion: sides[letter] for criterion, letter in zip(CRITERIA, answers, strict=True)}
    facts: dict[str, Any] = {"kind": "pair", "seat": int(rater), "position": 0, "expected": None}
    facts |= {"repeats": None, "seconds": 9.0, "trial": f"{rater}/{item}/{left}/{right}/{more}"} | more
    time = datetime.datetime(2026, 11, 30)
    return Vote(
        rater=rater,
        item=item,
        cluster=item,
        category="add",
        orientation="horizontal",
        left=left,
        right=right,
        answers=given,
        created=time,
        **facts,
    )


def a_definition(*methods: str, **more: Any) -> StudyDefinition:
    return StudyDefinition(name="Which?", data="x", methods=dict.fromkeys(methods, "x"), **more)


def intervals(tree: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every low and high in an analysis, with where it stands."""
    if isinstance(tree, dict):
        for low in tree:
            if low == "low" or low.endswith("_low"):
                yield f"{path}/{low}", tree[low], tree[f"{low.removesuffix('low')}high"]
        for name, value in tree.items():
            yield from intervals(value, f"{path}/{name}")
    elif isinstance(tree, list):
        for n, value in enumerate(tree):
            yield from intervals(value, f"{path}/{n}")


def sound(analysis: dict[str, Any]) -> None:
    """No NaN, and no interval of no width; ranks may be sure."""
    json.dumps(analysis, allow_nan=False)
    for path, low, high in intervals(analysis):
        assert (low is None) == (high is None), path
        assert low is None or low < high or path.endswith("rank_low"), path
    assert "nan" not in report_page(analysis, {}).lower()


def test_strengths_without_ties_are_those_of_choix() -> None:
    random = np.random.default_rng(1)
    first = random.integers(0, 5, 300)
    second = (first + random.integers(1, 5, 300)) % 5
    outcomes = np.where(random.random(300) < 1 / (1 + np.exp(second - first)), -1, 1)
    ours = bradley_terry("abcde", first, second, outcomes, np.arange(300) % 9, np.arange(300) % 30)
    won = [(a, b) if o == 1 else (b, a) for a, b, o in zip(first, second, outcomes, strict=True)]
    theirs = choix.opt_pairwise(5, won, alpha=RIDGE / 2, tol=1e-10)
    assert [of.log_odds for of in ours.methods.values() if of] == pytest.approx(theirs.tolist(), abs=1e-6)


def test_strengths_with_ties_solve_the_equations_of_davidson() -> None:
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    counts = np.array([[[9, 4, 3], [12, 2, 2], [6, 7, 5]]])
    found = fit(counts, pairs, 3, ridge=1e-9)
    strengths, nu = found.strengths[0], found.log_tie[0]
    up = np.exp((strengths[pairs[:, 0]] - strengths[pairs[:, 1]]) / 2)
    expected = np.stack([up, np.full(3, np.exp(nu)), 1 / up], 1)
    expected *= counts.sum(2)[0][:, None] / expected.sum(1, keepdims=True)
    for table in (expected, counts[0]):
        points = table[:, 0] + table[:, 1] / 2
        mine = (points[0] + points[1], table[:, 1].sum())
        assert mine == pytest.approx((9 + 2 + 12 + 1, 13), abs=1e-5)


def test_who_won_everything_has_a_finite_strength_and_an_interval_with_a_width() -> None:
    n = np.arange(120)
    first, second = np.zeros(120, int), 1 + n % 2
    found = bradley_terry("abc", first, second, np.ones(120, int), n % 10, n % 24, resamples=QUICK)
    best = found.methods["a"]
    assert best is not None
    assert best.low is not None
    assert best.high is not None
    assert 1 < best.low < best.log_odds < best.high < 20
    assert (best.rank_low, best.rank_high) == (1, 1)
    assert found.letters["b"] == found.letters["c"] != found.letters["a"]


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
def test_alpha_is_that_of_the_package(level: Any) -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        seen = random.random((7, 40)) < 0.4  # most units have two or three votes, some one or none
        values = np.where(random.random((7, 40)) < 0.6, np.arange(40) % 3, random.integers(0, 3, (7, 40))) - 1
        rater, unit = np.nonzero(seen)
        ours = krippendorff_alpha(unit, rater, values[seen], unit // 2, level)
        theirs = krippendorff.alpha(np.where(seen, values, np.nan), level_of_measurement=level)
        assert ours.value == pytest.approx(theirs)
        assert ours.low is not None
        assert ours.high is not None
        assert ours.low < theirs < ours.high


def test_votes_said_again_by_the_same_rater_do_not_narrow_an_interval() -> None:
    random = np.random.default_rng(0)
    outcomes, raters, videos = random.integers(-1, 2, 90), np.arange(90) % 15, np.arange(90) // 3
    once = share_interval(outcomes == 1, raters, videos)
    thrice = share_interval(np.tile(outcomes == 1, 3), np.tile(raters, 3), np.tile(videos, 3))
    as_if_new = share_interval(np.tile(outcomes == 1, 3), np.arange(270), np.arange(270))
    assert thrice.error == pytest.approx(once.error)
    assert as_if_new.error is not None
    assert as_if_new.error < 0.7 * (once.error or 0)


def test_an_interval_is_as_wide_as_the_way_in_which_votes_go_together() -> None:
    taste = np.repeat([1, 1, 1, -1, -1, -1], 20)  # six raters, who all say one thing, over twenty videos
    by_rater = preference_interval(taste, np.arange(120) // 20, np.arange(120) % 20)
    by_video = preference_interval(taste, np.arange(120) % 20, np.arange(120) // 20)
    assert (by_rater.low, by_rater.high) == (by_video.low, by_video.high)
    assert by_rater.low is not None
    assert by_rater.low < -0.9
    # votes that alternate within raters and within videos are at least as sure as independent ones
    mixed = preference_interval(np.tile([1, -1], 60), np.arange(120) // 20, np.arange(120) % 20)
    assert mixed.high is not None
    assert mixed.high < 1


def test_the_two_readings_of_the_majority_rule_can_disagree() -> None:
    # by raters a, a, b; by criteria a, b, b
    votes = [a_vote(str(n), "x", "a", "b", answers) for n, answers in enumerate(("llr", "lrl", "rrr"))]
    votes += [a_vote(str(n), "y", "b", "a", "lss") for n in range(3)]  # `same` has the majority
    votes += [a_vote(str(n), "z", "b", "a", answers) for n, answers in enumerate(("lll", "rrr"))]
    found = ballots(a_definition("a", "b"), votes)
    assert comparison_outcomes(found, "raters")[0].tolist() == [1, 0, 0]
    assert comparison_outcomes(found, "criteria")[0].tolist() == [-1, 0, 0]
    shares = majority_shares(found, "raters")[0]
    assert (shares.first, shares.second, shares.comparisons) == ("a", "b", 3)
    assert (shares.win.value, shares.loss.value) == (pytest.approx(1 / 3), 0)


def test_sides_matter_to_nothing_but_the_share_of_the_left(
    simulated: Simulated, analysed: dict[str, Any]
) -> None:
    swap: dict[Side, Side] = {"left": "right", "right": "left", "same": "same"}
    votes = simulated.votes()
    turned = [
        dataclasses.replace(
            vote,
            left=vote.right,
            right=vote.left,
            answers={c: swap[side] for c, side in vote.answers.items()},
            expected=None if vote.expected is None else swap[vote.expected],
        )
        for vote in votes
    ]
    a = dict(analysed["results"]["included"])
    b = analyse(simulated.definition, turned, resamples=QUICK)["results"]["included"]
    left = a.pop("left")["alignment"]["value"], b.pop("left")["alignment"]["value"]
    assert left[0] != 0.5
    assert left[0] + left[1] == pytest.approx(1)
    assert a == b


def test_the_rule_leaves_out_who_fails_checks_repeats_or_time_and_nobody_else() -> None:
    rule = Exclusion(min_gold=0.7, min_repeats=0.5, min_seconds=3)
    gold: dict[str, Any] = {"kind": "gold_loss", "expected": "left"}
    votes = [a_vote("0", "x", "a", "a", "llr", **gold)]  # 2 of 3 right
    votes += [a_vote("1", "x", "a", "a", "lll", **gold), a_vote("1", "y", "a", "b", "lls", trial="t")]
    votes += [a_vote("1", "y", "b", "a", "lrs", kind="repeat", repeats="t")]  # r, l, s was right: 2 of 3
    votes += [a_vote("2", "y", "a", "b", "lls", trial="u")]
    votes += [a_vote("2", "y", "b", "a", "lls", kind="repeat", repeats="u")]
    votes += [a_vote("3", "z", "a", "b", "lll", seconds=2.0), a_vote("4", "z", "a", "b", "lll")]
    checks = rater_checks(a_definition("a", "b", exclusion=rule), votes)
    reasons = {check.label: check.reasons for check in checks}
    assert reasons["0"] == ["2 of 3 attention checks right, below 0.7"]
    assert reasons["1"] == []
    assert reasons["2"] == ["1 of 3 repeated answers equal, below 0.5"]
    assert reasons["3"] == ["a median of 2.0 s for a pair, below 3"]
    assert reasons["4"] == []
    assert (checks[1].repeats_equal, checks[1].repeats_answers) == (2, 3)


def test_results_without_those_left_out_are_those_of_the_others_alone(
    simulated: Simulated, analysed: dict[str, Any]
) -> None:
    votes, found = simulated.votes(), analysed
    assert found["left_out"] == ["R06"]
    others = [vote for vote in votes if vote.seat != 5]
    alone = analyse(simulated.definition, others, resamples=QUICK)
    assert found["results"]["included"] == alone["results"]["included"]
    assert "all" not in alone["results"]
    assert found["results"]["all"]["votes"] == sum(vote.kind == "pair" for vote in votes)
    sound(found)


def test_nothing_to_analyse_is_one_sentence() -> None:
    practice = [a_vote("0", "x", "a", "b", "lll", kind="practice")]
    for votes in ([], practice):
        with pytest.raises(
            StudyError, match=r"^Which\?: no votes on pairs yet; there is nothing to analyse$"
        ):
            analyse(a_definition("a", "b"), votes)
    with pytest.raises(StudyError, match=r"^--center c: is none of the methods a, b$"):
        analyse(a_definition("a", "b"), practice, center="c")


@pytest.mark.parametrize("raters", [1, 6])
def test_one_rater_ties_alone_and_a_method_never_shown_are_said_and_break_nothing(raters: int) -> None:
    votes = [
        a_vote(str(rater), str(item), "a", "b", "lsr" if item % 2 else "lss")
        for rater in range(raters)
        for item in range(8)
    ]
    found = analyse(a_definition("a", "b", "never"), votes, resamples=QUICK)
    sound(found)
    results = found["results"]["included"]
    assert results["strengths"]["alignment"]["methods"]["never"] is None
    never = results["preferences"]["alignment"]["pairs"][1]
    assert (never["second"], never["net"]["value"]) == ("never", None)
    ties = results["preferences"]["preservation"]["pairs"][0]
    assert ties["net"]["value"] == 0
    assert ties["ties"] == 8 * raters
    assert results["agreement"]["preservation"]["nominal"]["value"] is None
    assert "not enough" in report_page(found, {})
    strength = results["strengths"]["alignment"]
    if raters == 1:
        assert strength["why_not"].startswith("no intervals")
        assert results["power"]["alignment"] == []
    else:
        assert strength["letters"]["a"] != strength["letters"]["b"]
        assert ties["net"]["low"] < 0 < ties["net"]["high"]


def test_a_star_is_ranked_through_its_center() -> None:
    votes = [
        a_vote(str(r), str(i), "a", other, "lll" if other == "b" or r else "rrs")
        for r in range(6)
        for i in range(6)
        for other in "bc"
    ]
    found = analyse(a_definition("a", "b", "c", design="star", center="a"), votes, resamples=QUICK)
    sound(found)
    strengths = found["results"]["included"]["strengths"]["alignment"]
    assert strengths["order"] == ["a", "c", "b"]
    table = pair_table(found, found["results"]["included"], "alignment")
    assert [row[0] for row in table.rows[:3]] == ["a : b", "a : c", "a : all others"]
    assert [group.title for group in bar_groups(found, found["results"]["included"])][2:] == [
        question.title for question in QUESTIONS
    ]
    assert bar_groups(found, found["results"]["included"])[2].bars[1].shares == (5 / 6, 0, 1 / 6)


def test_methods_that_never_met_have_no_common_scale() -> None:
    votes = [
        a_vote(str(r), str(i), *pair, "lll") for r in range(6) for i in range(6) for pair in ("ab", "cd")
    ]
    found = analyse(a_definition(*"abcd"), votes, resamples=QUICK)
    sound(found)
    strength = found["results"]["included"]["strengths"]["majority"]
    assert set(strength["methods"].values()) == {None}
    assert strength["why_not"] == "methods that were never compared, not even through others"


def test_everyone_left_out_leaves_the_results_of_all() -> None:
    votes = [a_vote(str(r), str(i), "a", "b", "lsr", seconds=1.0) for r in range(6) for i in range(6)]
    rule = Exclusion(min_seconds=2)
    found = analyse(a_definition("a", "b", exclusion=rule), votes, resamples=QUICK)
    sound(found)
    assert found["results"]["included"]["votes"] == 0
    assert found["results"]["all"]["votes"] == 36


def test_labels_of_votes_calibrate_a_judge_end_to_end(simulated: Simulated, tmp_path: Path) -> None:
    votes = [vote for vote in simulated.votes() if vote.kind == "pair"]
    write_labels(tmp_path / "labels.csv", votes)
    read = read_labels(tmp_path / "labels.csv")
    people: dict[tuple[str, str], list[float]] = {}
    for (item, row, criterion), by in read.items():
        assert all(name.startswith("R0") for name in by)
        if criterion == "alignment":
            people[item, row] = list(by.values())
    items: Items = {}
    for (item, row), scores in people.items():  # a judge that says what people say
        entry = items.setdefault(item, {"id": item, "clip": item, "pair": item, "scores": {}})
        entry["scores"][row] = {"judge_alignment": sum(scores) / len(scores)}
    found = calibrate(items, read)["criteria"]["alignment"]["judge_alignment"]
    assert found["accuracy"]["value"] == 1
    assert found["pairs"] > 20
    assert read_ratings(tmp_path / "labels.csv").keys() == people.keys()


def test_metrics_correlate_the_same_whichever_method_is_named_first(simulated: Simulated) -> None:
    votes, random = simulated.votes(), np.random.default_rng(0)
    strengths = dict(zip(simulated.definition.methods, (1.0, 0.0, -1.0), strict=True))
    items: Items = {
        of.id: {
            "scores": {
                m: {"good": s + float(random.normal(0, 0.3)), "bad": -s, "failed": None}
                for m, s in strengths.items()
            }
        }
        for of in simulated.subjects[1:]
    }
    run = RunScores(items, {"bad": False}, "runs/x")
    methods = dict(reversed(simulated.definition.methods.items()))
    turned = simulated.definition.model_copy(update={"methods": methods})
    found, again = (
        analyse(of, votes, run=run, resamples=QUICK)["results"]["included"]["metrics"]
        for of in (simulated.definition, turned)
    )
    one, other = (of["agreements"]["alignment"] for of in (found, again))
    assert one["good"]["comparisons"]["pearson"] == pytest.approx(other["good"]["comparisons"]["pearson"])
    assert one["good"]["comparisons"]["pearson"] > 0.4
    assert one["bad"]["comparisons"]["spearman"] > 0.4
    assert one["good"]["comparisons"]["kendall_low"] > 0
    assert one["good"]["systems"]["n"] == 3
    assert one["good"]["systems"]["pearson"] > 0.9
    assert one["failed"]["comparisons"]["n"] == 0
    assert one["failed"]["systems"]["pearson"] is None
    assert (found["items"], found["missing_items"], found["lower_is_better"]) == (19, 1, ["bad"])


def test_a_plan_needs_the_ratings_that_its_formula_says(simulated: Simulated) -> None:
    assert ratings_needed(0.6, 0.4) == 189  # (1.960 + 0.842)^2 (1 - 0.04) / 0.04
    assert ratings_needed(0.6, 0.4, design_effect=2) == 377
    assert ratings_needed(0.4, 0.4) is None
    with pytest.raises(StudyError, match="shares"):
        ratings_needed(0.9, 0.4)
    counted = ballots(simulated.definition, simulated.votes())
    first, second = counted.methods[:2]
    found = study_power(counted, "alignment", first, second)
    assert found is not None
    assert found.needed is not None
    assert found.more is not None
    # a net preference as large as is seen with as many ratings needs no more of them
    assert found.needed / found.ratings == pytest.approx((found.least / abs(found.net)) ** 2, rel=0.05)
    closest = closest_methods(simulated.definition, simulated.votes())
    assert closest is not None


def test_what_is_published_names_no_rater_and_runs_no_script(
    simulated: Simulated, analysed: dict[str, Any], tmp_path: Path
) -> None:
    votes, found = simulated.votes(), analysed
    old = tmp_path / "tables" / "metrics_systems.csv"
    old.parent.mkdir()
    old.write_text("of an analysis before")
    paths = write_analysis(tmp_path, simulated.definition, votes, found, {"welcome": "Come & see"})
    assert not old.exists()
    everything = {path: path.read_text() for path in paths}
    assert not any("rater 3" in text for text in everything.values())
    page = html.unescape(everything[tmp_path / "report.html"].replace("&lt;", "(").replace("&amp;", "(and)"))
    assert "<b>" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert "Come (and) see" in page
    assert all(question.text in page for question in simulated.definition.questions)
    with (tmp_path / "votes.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == len(votes)
    for row, vote in zip(rows, votes, strict=True):
        assert (row["left"], row["alignment"]) == (vote.left, vote.answers["alignment"])
    again = next(row for row in rows if row["repeats"])
    assert {again["left"], again["right"]} == {
        side for row in rows if row["vote"] == again["repeats"] for side in (row["left"], row["right"])
    }
    assert json.loads(everything[tmp_path / "analysis.json"]) == json.loads(json.dumps(found))
    assert r"one \textless{}b\textgreater{} & " in everything[tmp_path / "tables" / "strengths_majority.tex"]
    assert "<svg" in everything[tmp_path / "figure_1.svg"]
    assert "one &lt;b&gt;" in everything[tmp_path / "figure_1.svg"]
    assert (
        write_votes(tmp_path, simulated.definition, votes)[0].read_text()
        == everything[tmp_path / "votes.csv"]
    )


def test_commands_say_in_one_line_what_is_missing(study: Path) -> None:
    with pytest.raises(BenchmarkError, match="no votes on pairs yet; there is nothing to analyse"):
        study_analysis.analyse(str(study))
    assert not (study / "analysis" / "report.html").exists()
    with pytest.raises(BenchmarkError, match="no votes on pairs yet; there is nothing to export"):
        study_analysis.export(str(study))
    with pytest.raises(BenchmarkError, match="--rater nobody: the study has no such rater"):
        study_analysis.export(str(study), rater="nobody")
    with pytest.raises(BenchmarkError, match="holds no study"):
        study_analysis.analyse(str(study.parent))
    with pytest.raises(BenchmarkError, match="--run: it has none of the study's items; it has other"):
        analyse(
            a_definition("a", "b"),
            [a_vote("0", "x", "a", "b", "lll")],
            run=RunScores({"other": {"scores": {}}}, {}, "run"),
        )
