"""What a study asks of its raters and what it can show, in words, before it begins."""

from __future__ import annotations

import statistics
from collections import Counter

from benchmark.study.creation import Created
from benchmark.study.definition import StudyDefinition
from benchmark.study.design import Comparison
from benchmark.votes.power import ratings_needed

VIEWS, ANSWERING = 2, 15.0  # a guess: how often a rater watches a pair, and seconds for the answers
CHANCE = 0.8


def plan_lines(definition: StudyDefinition, made: Created) -> list[str]:
    """The lines that `study create` prints."""
    design = made.design
    kinds = Counter(comparison.kind for comparison in design.comparisons)
    lengths = [len(seat) for seat in design.seats]
    minutes = [
        sum(VIEWS * made.seconds[design.comparisons[t.comparison].item] + ANSWERING for t in seat) / 60
        for seat in design.seats
    ]
    met = Counter(
        comparison.methods
        for seat in design.seats
        for trial in seat
        if trial.repeats is None and _counts(comparison := design.comparisons[trial.comparison])
    )
    return [
        f"{kinds['pair']} comparisons of {len(definition.methods)} methods on {made.items} items, each by "
        f"{definition.raters_per_pair} raters: {met.total()} ratings, {_range(list(met.values()))} for every "
        "two methods that meet",
        f"{len(lengths)} raters with {_range(lengths)} pairs each ({definition.practice} for practice, "
        f"{definition.gold_ties + definition.gold_losses} attention checks, {definition.repeats} shown "
        f"again): about {statistics.median(minutes):.0f} minutes, if a pair is watched twice and answered "
        f"in {ANSWERING:g} s",
        *power_lines(min(met.values()), definition.raters),
    ]


def _counts(comparison: Comparison) -> bool:
    return comparison.kind == "pair"


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def power_lines(ratings: int, raters: int) -> list[str]:
    """How many ratings tell 60:40 apart, and what `ratings` of two methods can tell apart.

    Ratings are taken as independent, and ties as absent. Raters who differ in taste and videos that are rated
    several times make it more, by a design effect that is known when there are votes (`study status`).
    """
    if raters < 2:
        return ["power: one rater says nothing of others"]
    needed = ratings_needed(0.6, 0.4, raters=raters, chance=CHANCE)
    shares = [n / 1000 for n in range(501, 1000)]
    least = next((s for s in shares if _enough(s, raters, ratings)), None)
    able = "no difference for sure" if least is None else f"{100 * least:.0f}:{100 * (1 - least):.0f}"
    return [
        f"power: to tell two methods apart that are preferred 60:40 with a chance of {CHANCE:.0%} takes "
        f"{needed} ratings of the two; {ratings} tell {able} (independent ratings without ties; ratings of "
        "one video and by one rater agree, so allow for up to twice as many)"
    ]


def _enough(share: float, raters: int, ratings: int) -> bool:
    needed = ratings_needed(share, 1 - share, raters=raters, chance=CHANCE)
    return needed is not None and needed <= ratings
