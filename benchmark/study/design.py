"""Who compares what, in which order and on which side: a pure function of a definition and a seed."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.statistics.sides import balanced_sides
from benchmark.study.definition import StudyDefinition
from benchmark.study.records import Kind, StudyError


@dataclass(frozen=True)
class Subject:
    """What the design needs to know of an item.

    Attributes:
        category, orientation: strata.
        cluster: its source video.
    """

    id: str
    category: str
    orientation: str
    cluster: str


@dataclass(frozen=True)
class Comparison:
    """Two results of one item.

    Attributes:
        kind: `pair`, `practice`, `gold_tie` (a result beside itself) or `gold_loss` (beside a bad copy).
        first, second: methods; the second of a `gold_loss` is the corrupted copy.
    """

    kind: Kind
    item: str
    first: str
    second: str

    @property
    def methods(self) -> tuple[str, str]:
        """Both."""
        return self.first, self.second

    @property
    def expected(self) -> str | None:
        """What attention checks should be answered: `first`, `second` or `same`; None for others."""
        return {"gold_tie": "same", "gold_loss": "first"}.get(self.kind)


@dataclass(frozen=True)
class PlannedTrial:
    """A comparison in a seat's list.

    Attributes:
        comparison: its number in `Design.comparisons`.
        flipped: whether the second result stands on the left.
        repeats: position in the list of the trial that this one shows again; None for others.
    """

    comparison: int
    flipped: bool
    repeats: int | None = None


@dataclass(frozen=True)
class Design:
    """All comparisons, and a list of trials for each seat."""

    comparisons: tuple[Comparison, ...]
    seats: tuple[tuple[PlannedTrial, ...], ...]


def make_design(definition: StudyDefinition, items: Sequence[Subject]) -> Design:
    """The design that a definition asks for; the same seed gives the same one.

    Every two methods that meet do so equally often, every item is used equally often, every seat has as many
    comparisons (each +-1), and no seat has one twice. Within that, strata are spread evenly over pairs of
    methods, items and pairs of methods over seats, and left and right over both.

    Raises:
        StudyError: for what cannot be had, with the numbers that would do.
    """
    _check(definition, items)
    random = np.random.default_rng(definition.seed)
    pairs = method_pairs(definition)
    order = _spread(items, random)
    main = _comparisons(definition, pairs, order, random)
    lists = _assign(main, definition.raters, definition.raters_per_pair, random)
    flips = balanced_sides(
        [(seat, main[n].methods) for seat, chosen in enumerate(lists) for n in chosen], random
    )
    checks = dict(enumerate(_attention_checks(definition, order, random), start=len(main)))
    comparisons = [*main, *checks.values()]
    practised: dict[Comparison, int] = {}
    used: Counter[int] = Counter()
    seats = []
    for chosen in lists:
        mine = [main[n] for n in chosen]
        first = _practice_of(definition, pairs, order, mine)
        for comparison in first:
            if comparison not in practised:
                practised[comparison] = len(comparisons)
                comparisons.append(comparison)
        golds = _golds_of(definition, checks, {c.item for c in mine}, used, random)
        sides = {n: next(flips) for n in chosen}
        practice = [practised[c] for c in first]
        seats.append(_list_of(practice, sides, golds, definition.repeats, comparisons, random))
    return Design(tuple(comparisons), tuple(seats))


def _check(definition: StudyDefinition, items: Sequence[Subject]) -> None:
    """Raise StudyError for numbers that no design has."""
    pairs, count = len(method_pairs(definition)), len(items)
    ratings = definition.pairs * definition.raters_per_pair
    if definition.pairs > count * pairs:
        raise StudyError(
            f"pairs: {definition.pairs} are more than there are: {count} items x {pairs} pairs of methods = "
            f"{count * pairs}"
        )
    if definition.pairs < pairs:
        raise StudyError(
            f"pairs: {definition.pairs} are too few for {pairs} pairs of methods to meet; ask for {pairs} or "
            "more, best a multiple"
        )
    if ratings < definition.raters:
        raise StudyError(
            f"raters: {definition.raters} are more than the {ratings} ratings ({definition.pairs} pairs x "
            f"{definition.raters_per_pair}); ask for {ratings} or fewer"
        )
    for name in ("gold_ties", "gold_losses"):
        wanted, results = getattr(definition, name), count * len(definition.methods)
        if wanted > results:
            raise StudyError(f"{name}: {wanted} are more than the {results} results")
    most = -(-ratings // definition.raters)
    if definition.practice > count * pairs - most:
        raise StudyError(
            f"practice: {definition.practice} more comparisons than the {most} that a rater judges are not "
            f"there: {count * pairs} in all; ask for {max(0, count * pairs - most)} or fewer"
        )
    length, golds = ratings // definition.raters, definition.gold_ties + definition.gold_losses
    able = _most_repeats(length, golds)
    if definition.repeats > able:
        raise StudyError(
            f"repeats: {definition.repeats} do not fit a third of a list of {length} comparisons apart; ask "
            f"for {able} or fewer, or for fewer raters"
        )


def _spread(items: Sequence[Subject], random: np.random.Generator) -> list[Subject]:
    """The items in an order of which every stretch holds the strata by their shares, about."""
    strata: dict[tuple[str, str], list[Subject]] = defaultdict(list)
    for item in items:
        strata[item.category, item.orientation].append(item)
    keyed = []
    for members in strata.values():
        start = random.random()
        for place, n in enumerate(random.permutation(len(members))):
            keyed.append(((place + start) / len(members), random.random(), members[n]))
    return [item for *_, item in sorted(keyed, key=lambda entry: entry[:2])]


def _comparisons(
    definition: StudyDefinition,
    pairs: Sequence[tuple[str, str]],
    order: Sequence[Subject],
    random: np.random.Generator,
) -> list[Comparison]:
    """Which items each pair of methods meets on.

    Each pair takes its share of strata from the next stretch of `order`, a circle, so that every item's turn
    comes equally often; within a stratum it takes the items that were taken least, then those whose results
    by these two methods were.
    """
    stratum = {item.id: (item.category, item.orientation) for item in order}
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in order:
        members[stratum[item.id]].append(item.id)
    taken: Counter[str] = Counter()
    shown: Counter[tuple[str, str]] = Counter()
    counts = _meetings(pairs, definition.pairs, random)
    made, start = [], 0
    for n in random.permutation(len(pairs)):
        first, second = pairs[n]
        stretch = [order[(start + k) % len(order)] for k in range(counts[n])]
        start += counts[n]
        for group, wanted in Counter(stratum[item.id] for item in stretch).items():
            ranked = sorted(
                members[group], key=lambda i: (taken[i], shown[i, first] + shown[i, second], random.random())
            )
            for name in ranked[:wanted]:
                taken[name] += 1
                shown.update([(name, first), (name, second)])
                made.append(Comparison("pair", name, first, second))
    return made


def _meetings(pairs: Sequence[tuple[str, str]], total: int, random: np.random.Generator) -> list[int]:
    """How often each pair meets: equally, and what is left over falls on methods equally."""
    counts = [total // len(pairs)] * len(pairs)
    extra: Counter[str] = Counter()
    left = set(range(len(pairs)))
    for _ in range(total % len(pairs)):
        n = min(left, key=lambda n: (*sorted((extra[m] for m in pairs[n]), reverse=True), random.random()))
        left.remove(n)
        counts[n] += 1
        extra.update(pairs[n])
    return counts


def _assign(
    comparisons: Sequence[Comparison], raters: int, each: int, random: np.random.Generator
) -> list[list[int]]:
    """For every seat, the numbers of its comparisons; `each` seats judge one.

    An item's comparisons are dealt together to the seats with the fewest so far (so that lists are equally
    long) that saw the item least; among them, who gets which is the assignment that spreads pairs of methods
    most evenly over each seat.
    """
    from scipy.optimize import linear_sum_assignment

    by_item: dict[str, list[int]] = defaultdict(list)
    for number, comparison in enumerate(comparisons):
        by_item[comparison.item].append(number)
    columns = {pair: n for n, pair in enumerate(dict.fromkeys(c.methods for c in comparisons))}
    met = np.zeros((raters, len(columns)))
    load = np.zeros(raters, int)
    lists: list[list[int]] = [[] for _ in range(raters)]
    items = list(by_item)
    at_once = raters // each
    for n in random.permutation(len(items)):
        seen = np.zeros(raters, int)
        numbers = [int(number) for number in random.permutation(by_item[items[n]])]
        for begin in range(0, len(numbers), at_once):
            slots = [number for number in numbers[begin : begin + at_once] for _ in range(each)]
            seats = np.lexsort([random.random(raters), seen, load])[: len(slots)]
            cost = met[seats][:, [columns[comparisons[slot].methods] for slot in slots]]
            rows, chosen = linear_sum_assignment(cost + 0.01 * random.random(cost.shape))
            for seat, slot in zip(seats[rows], (slots[c] for c in chosen), strict=True):
                lists[seat].append(slot)
                met[seat, columns[comparisons[slot].methods]] += 1
            seen[seats] += 1
            load[seats] += 1
    return lists


def _attention_checks(
    definition: StudyDefinition, order: Sequence[Subject], random: np.random.Generator
) -> list[Comparison]:
    """Twice as many checks as a seat gets, over all strata and methods: raters who talk see others."""
    methods = list(definition.methods)
    start = int(random.integers(len(order)))
    checks = []
    for kind, count in (("gold_tie", definition.gold_ties), ("gold_loss", definition.gold_losses)):
        for n in range(min(2 * count, len(order) * len(methods))):
            turn, place = divmod(n, len(order))
            item = order[(start + place) % len(order)].id
            method = methods[(place + turn) % len(methods)]
            checks.append(Comparison(kind, item, method, method))  # type: ignore[arg-type]
        start += 2 * count
    return checks


def _golds_of(
    definition: StudyDefinition,
    checks: Mapping[int, Comparison],
    items: set[str],
    used: Counter[int],
    random: np.random.Generator,
) -> list[int]:
    """The checks of a seat that judges `items`: those that were used least, first of other items."""
    golds: list[int] = []
    for kind, count in (("gold_tie", definition.gold_ties), ("gold_loss", definition.gold_losses)):
        pool = [n for n, check in checks.items() if check.kind == kind]
        golds += sorted(pool, key=lambda n: (used[n], checks[n].item in items, random.random()))[:count]
    used.update(golds)
    return golds


def _practice_of(
    definition: StudyDefinition,
    pairs: Sequence[tuple[str, str]],
    order: Sequence[Subject],
    mine: Sequence[Comparison],
) -> list[Comparison]:
    """What a seat begins with: comparisons that it does not judge, first of other items."""
    had, items = {(c.item, c.methods) for c in mine}, {c.item for c in mine}
    seen: list[Comparison] = []
    others: list[Comparison] = []
    for n in range(len(order) * len(pairs)):
        if len(others) == definition.practice:
            break
        turn, place = divmod(n, len(order))
        item, pair = order[place].id, pairs[(place + turn) % len(pairs)]
        if (item, pair) not in had:
            (seen if item in items else others).append(Comparison("practice", item, *pair))
    return [*others, *seen][: definition.practice]


def _rounds(
    numbers: Iterable[int], comparisons: Sequence[Comparison], random: np.random.Generator
) -> list[int]:
    """A seat's comparisons in the order in which items return as late as they can.

    Rounds go through the items in one order, those with most comparisons first, each round one of an item.
    """
    by_item: dict[str, list[int]] = defaultdict(list)
    for n in random.permutation(list(numbers)):
        by_item[comparisons[n].item].append(int(n))
    items = [list(by_item)[n] for n in random.permutation(len(by_item))]
    items.sort(key=lambda item: -len(by_item[item]))
    return [by_item[i][r] for r in range(len(by_item[items[0]])) for i in items if r < len(by_item[i])]


def _list_of(
    practice: Sequence[int],
    sides: Mapping[int, bool],
    golds: Sequence[int],
    repeats: int,
    comparisons: Sequence[Comparison],
    random: np.random.Generator,
) -> tuple[PlannedTrial, ...]:
    """The trials of a seat: practice, then comparisons with checks among them, and repeats near the end.

    Checks stand at equal distances. What they show, and what is repeated, is what was last seen longest ago.
    A repeat has its sides the other way round: whoever always takes the left one disagrees with themselves.
    """
    main = iter(_rounds(sides, comparisons, random))
    total = len(sides) + len(golds) + repeats
    third, tail = -(-total // 3), _tail(total)
    again = [total - tail + n for n in _evenly(repeats, tail, random)]
    others = [n for n in range(total) if n not in again]
    checks = {others[n] for n in _evenly(len(golds), len(others), random)}
    shown = {n: next(main) for n in others if n not in checks}
    at: dict[str, list[int]] = defaultdict(list)
    for n, number in shown.items():
        at[comparisons[number].item].append(n)

    def away(n: int, number: int, but: int | None = None) -> tuple[int, float]:
        """How far the item of a comparison is from position n, and a lot."""
        there = (abs(n - other) for other in at[comparisons[number].item] if other != but)
        return min(there, default=total), random.random()

    flipped = {n: sides[number] for n, number in shown.items()}
    left, coin = list(golds), bool(random.integers(2))
    for n in sorted(checks):
        shown[n] = max(left, key=lambda number: away(n, number))
        left.remove(shown[n])
        flipped[n] = coin = not coin
    origin: dict[int, int] = {}
    for n in again:
        able = [
            o for o in range(n - third + 1) if o in flipped and o not in checks and o not in origin.values()
        ]
        origin[n] = max(able, key=lambda o: away(n, shown[o], but=o))
    for n, o in origin.items():
        shown[n], flipped[n] = shown[o], not flipped[o]
    begin = len(practice)
    trials = [PlannedTrial(n, bool(random.integers(2))) for n in practice]
    for n in range(total):
        trials.append(PlannedTrial(shown[n], flipped[n], begin + origin[n] if n in origin else None))
    return tuple(trials)


def _evenly(count: int, length: int, random: np.random.Generator) -> list[int]:
    """So many positions below `length` at equal distances, from a random one on."""
    start = random.random()
    return [int((n + start) * length / count) for n in range(count)]


def _tail(total: int) -> int:
    """How many positions at the end of a list are at least a third of it away from as many at its start."""
    return (total + 1 - -(-total // 3)) // 2


def _most_repeats(main: int, golds: int) -> int:
    """How many repeats a list always has room for; see `_list_of`."""
    for repeats in range(main, 0, -1):
        total = main + golds + repeats
        early = total - _tail(total) - -(-total // 3) + 1  # positions that the first repeat may show again
        if repeats <= _tail(total) and repeats <= early - min(golds, early * golds // (main + golds) + 1):
            return repeats
    return 0


def method_pairs(definition: StudyDefinition) -> list[tuple[str, str]]:
    """The pairs of methods that meet, in the order of the definition."""
    names = list(definition.methods)
    if definition.design == "star":
        assert definition.center is not None  # as the definition has checked
        return [(definition.center, name) for name in names if name != definition.center]
    return list(itertools.combinations(names, 2))
