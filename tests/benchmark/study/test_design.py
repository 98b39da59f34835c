"""Designs: what they balance, whatever is asked for, and what they refuse."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.statistics.sides import balanced_sides
from benchmark.study.definition import StudyDefinition
from benchmark.study.design import Comparison, Design, Subject, make_design, method_pairs
from benchmark.study.records import StudyError


def subjects(count: int, categories: int = 4) -> list[Subject]:
    """Items of which two have one video, every second video upright."""
    shapes = ("horizontal", "vertical")
    return [Subject(str(n), f"c{n % categories}", shapes[n // 2 % 2], f"v{n // 2}") for n in range(count)]


def wish(methods: int, **options: Any) -> StudyDefinition:
    """A definition of so many methods."""
    names = {f"m{n}": "folder" for n in range(methods)}
    return StudyDefinition(name="s", data="d", methods=names, **options)


def spread(counts: Iterable[int]) -> int:
    values = list(counts)
    return max(values) - min(values)


def judged(design: Design) -> list[list[tuple[Comparison, bool]]]:
    """By seat, its comparisons that count, in order."""
    return [
        [
            (design.comparisons[trial.comparison], trial.flipped)
            for trial in seat
            if trial.repeats is None and design.comparisons[trial.comparison].kind == "pair"
        ]
        for seat in design.seats
    ]


def check(definition: StudyDefinition, items: Sequence[Subject], design: Design) -> None:
    """Everything that a design promises."""
    main = [c for c in design.comparisons if c.kind == "pair"]
    assert len(main) == len(set(main)) == definition.pairs
    met = Counter(c.methods for c in main)
    assert set(met) == set(method_pairs(definition))
    assert spread(met.values()) <= 1
    assert spread(Counter({i.id: 0 for i in items} | Counter(c.item for c in main)).values()) <= 1
    most = max(Counter(c.item for c in main).values())
    lists = judged(design)
    assert len(lists) == definition.raters
    assert spread(map(len, lists)) <= 1
    ratings = Counter(c for seat in lists for c, _ in seat)
    assert set(ratings.values()) == {definition.raters_per_pair}
    sides: Counter[tuple[str, str]] = Counter()
    for seat, trials in zip(lists, design.seats, strict=True):
        assert len({c for c, _ in seat}) == len(seat), "a comparison twice"
        assert abs(sum(1 if flipped else -1 for _, flipped in seat)) <= 1
        sides.update({c.methods: 0 for c, _ in seat})
        for comparison, flipped in seat:
            sides[comparison.methods] += 1 if flipped else -1
        seen = Counter(c.item for c, _ in seat)
        assert max(seen.values()) <= -(-most * definition.raters_per_pair // definition.raters)
        kinds = [design.comparisons[t.comparison].kind for t in trials]
        begin = definition.practice
        assert kinds[:begin] == ["practice"] * begin
        assert "practice" not in kinds[begin:]
        assert kinds.count("gold_tie") == definition.gold_ties
        assert kinds.count("gold_loss") == definition.gold_losses
        shown = [design.comparisons[t.comparison] for t in trials if t.repeats is None]
        assert len(set(shown)) == len(shown)
        mine = {(c.item, c.methods) for c, _ in seat}
        assert not any((c.item, c.methods) in mine for c in shown if c.kind == "practice")
        again = [(n, t) for n, t in enumerate(trials) if t.repeats is not None]
        assert len(again) == len({t.repeats for _, t in again}) == definition.repeats
        for n, trial in again:
            assert trial.repeats is not None
            first = trials[trial.repeats]
            assert (n - trial.repeats) * 3 >= len(trials) - begin
            assert first.repeats is None
            assert (first.comparison, first.flipped) == (trial.comparison, not trial.flipped)
    assert all(abs(value) <= 1 for value in sides.values())


@st.composite
def wishes(draw: st.DrawFn) -> tuple[StudyDefinition, list[Subject]]:
    methods, raters = draw(st.integers(2, 6)), draw(st.integers(1, 9))
    star = draw(st.booleans())
    items = subjects(draw(st.integers(1, 24)), draw(st.integers(1, 5)))
    pairs = methods - 1 if star else methods * (methods - 1) // 2
    definition = wish(
        methods,
        design="star" if star else "balanced",
        center="m1" if star else None,
        pairs=draw(st.integers(pairs, max(pairs, len(items) * pairs))),
        raters=raters,
        raters_per_pair=draw(st.integers(1, raters)),
        practice=draw(st.integers(0, 2)),
        gold_ties=draw(st.integers(0, 2)),
        gold_losses=draw(st.integers(0, 3)),
        repeats=draw(st.integers(0, 4)),
        seed=draw(st.integers(0, 2**32)),
    )
    return definition, items


@settings(max_examples=120, deadline=None)
@given(wishes())
def test_whatever_is_asked_for_is_balanced_or_refused_with_numbers_that_do(
    asked: tuple[StudyDefinition, list[Subject]],
) -> None:
    definition, items = asked
    for _ in range(8):
        try:
            check(definition, items, make_design(definition, items))
            return
        except StudyError as error:
            field, _, reason = str(error).partition(":")
            number = re.search(r"ask for (\d+)", reason) or re.search(r"than the (\d+)", reason)
            assert number, reason
            assert int(number[1]) != getattr(definition, field)
            definition = definition.model_copy(update={field: int(number[1])})
    pytest.fail("refused again and again")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5))), st.integers(0, 99))
def test_sides_are_even_at_every_node(edges: list[tuple[int, int]], seed: int) -> None:
    sides = list(balanced_sides(edges, np.random.default_rng(seed)))
    assert len(sides) == len(edges)
    for end in (0, 1):
        for node in {edge[end] for edge in edges}:
            assert abs(sum(1 if s else -1 for s, e in zip(sides, edges, strict=True) if e[end] == node)) <= 1


@pytest.mark.parametrize(("design", "center"), [("balanced", None), ("star", "m0")])
def test_the_papers_size_is_spread_over_strata_and_over_every_rater(design: str, center: str | None) -> None:
    items = subjects(200, 20)
    definition = wish(6, design=design, center=center)
    made = make_design(definition, items)
    check(definition, items, made)
    category = {item.id: (item.category, item.orientation) for item in items}
    sizes = Counter(category.values())
    met = Counter(c.methods for c in made.comparisons if c.kind == "pair")
    cells = Counter((c.methods, category[c.item]) for c in made.comparisons if c.kind == "pair")
    for pair, total in met.items():
        for stratum, size in sizes.items():
            assert abs(cells[pair, stratum] - total * size / len(items)) <= 1.5, (pair, stratum)
    for seat in judged(made):
        assert len(seat) == 150
        assert max(Counter(c.item for c, _ in seat).values()) == 1
        assert spread(Counter(c.methods for c, _ in seat).values()) <= 3


def test_an_item_returns_after_all_others() -> None:
    """Eight items in a list of 24 comparisons: seven others lie between two of one."""
    items = subjects(8)
    definition = wish(
        3, pairs=24, raters=2, raters_per_pair=2, practice=0, gold_ties=0, gold_losses=0, repeats=0
    )
    for seat in judged(make_design(definition, items)):
        order = [c.item for c, _ in seat]
        assert all(len(set(order[n : n + 8])) == 8 for n in range(len(order) - 7))


def test_a_seed_gives_one_design_and_another_seed_another() -> None:
    items = subjects(12)
    definition = wish(3, pairs=20, raters=4, repeats=1)
    made = make_design(definition, items)
    assert make_design(definition, items) == made
    other = make_design(definition.model_copy(update={"seed": 1}), items)
    assert other != made
    assert len({tuple(t.comparison for t in seat) for seat in made.seats}) == 4
