"""A judge against people: how often it orders two results of one item as they do, and how its scores rank.

Labels are a table (CSV, JSON, JSONL or Parquet) with the columns `item`, `row` (the system), `criterion` and
`score`, and optionally `rater`: a line per label. Labels of one result by several raters are averaged.

Two results are compared only within an item: the same source and instruction. Where people tie, there is no
order to find, and the pair is left out; where the judge alone ties, the pair counts a half. `ties_right` is
the other rule, of VEFX-Bench's paper (Gao et al. 2026, section 5.3): a pair that people tie counts as right
whatever the judge says. Intervals draw whole items.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark.analysis.compare import Items
from benchmark.core.item import BenchmarkError
from benchmark.core.score_cache import number_in
from benchmark.statistics.correlation import Correlation, correlation
from benchmark.statistics.intervals import Mean, mean_interval
from benchmark.suites.tables import read_rows
from shards.errors import EditVerseError, first_line

CLOSE = 1e-9  # means of raters that differ by less are a tie
LONG, WIDE = ("item", "row", "criterion", "score"), ("item", "row")
OVERALL = "overall"

Key = tuple[str, str, str]  # item, row, criterion
Labels = dict[Key, dict[str, float]]  # by rater


@dataclass(frozen=True)
class Agreement:
    """One metric against people by one criterion.

    Attributes:
        results: results with both a score and a label; items: of which they are.
        pairs: pairs of results of one item that people do not tie; human_ties: that they do; judge_ties: of
            `pairs`, that the metric does.
        accuracy: share of `pairs` in people's order, a tie of the metric being a half.
        ties_right: the same over all pairs, those that people tie being right.
        correlation: of scores and labels, over results, with intervals that leave out whole items.
    """

    results: int
    items: int
    pairs: int
    human_ties: int
    judge_ties: int
    accuracy: Mean
    ties_right: Mean
    correlation: Correlation


def read_labels(path: Path, columns: Mapping[str, str] | None = None) -> Labels:
    """People's labels by item, row, criterion and rater.

    Args:
        columns: what the table calls `item`, `row`, `criterion`, `score` and `rater`; any other name is a
            criterion with a column of its own, and then there is no `criterion` and no `score`.

    Raises:
        BenchmarkError: naming the file, and the column or the row at fault.
    """
    given = dict(columns or {})
    criteria = {name: column for name, column in given.items() if name not in (*LONG, "rater")}
    needed = WIDE if criteria else LONG
    names = {name: given.get(name, name) for name in needed} | criteria
    try:
        there, rows = read_rows(path)
    except FileNotFoundError:
        raise BenchmarkError(f"{path}: not found; it should be a table of people's labels") from None
    except (OSError, EditVerseError) as error:
        reason = first_line(error).removeprefix(f"{path}: ")
        raise BenchmarkError(f"{path}: cannot be read: {reason}") from None
    for name, column in names.items():
        if column not in there:
            raise BenchmarkError(
                f"{path}: no column {column!r} for {name}; it has {', '.join(there)[:200]}; say by --columns "
                f'which it is: {{"{name}": ...}}'
            )
    who = given.get("rater", "rater")
    found: Labels = defaultdict(dict)
    for number, row in enumerate(rows, 1):
        item, system = (str(row[names[name]]) for name in WIDE)
        rater = str(row.get(who) or "") if who in there else ""
        told = {n: row[c] for n, c in criteria.items()} or {str(row[names["criterion"]]): row[names["score"]]}
        for criterion, value in told.items():
            if value is None or str(value).strip() == "":
                continue  # not labelled by this criterion
            score = finite(value)
            if score is None:
                raise BenchmarkError(f"{path}: row {number}: {criterion} is {str(value)[:40]!r}, no number")
            by = found[item, system, criterion]
            name = rater or f"row {number}"
            if name in by:
                raise BenchmarkError(
                    f"{path}: row {number}: {name} has labelled {item} of {system} by {criterion} before"
                )
            by[name] = score
    if not found:
        raise BenchmarkError(f"{path}: holds no labels")
    return dict(found)


def finite(value: Any) -> float | None:
    """A finite number, or nothing."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def calibrate(items: Items, labels: Labels, pairs: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `python -m benchmark calibrate` writes.

    Args:
        items: as `read_items` has them.
        pairs: the metric that is meant by a criterion; where it is not said, one whose name ends in the
            criterion's, else every metric.

    Raises:
        BenchmarkError: no label is of a result that the run has, or `pairs` names what is not there.
    """
    known = {key: by for key, by in labels.items() if key[1] in items.get(key[0], {}).get("scores", {})}
    if not known:
        item, row, _ = next(iter(labels))
        raise BenchmarkError(
            f"no label is of a result of the run; the first is of item {item!r} and row {row!r}, the run has "
            f"the items {', '.join(list(items)[:3])}... and the rows "
            f"{', '.join(next(iter(items.values()))['scores']) if items else 'none'}"
        )
    people = {key: sum(by.values()) / len(by) for key, by in known.items()}
    criteria = sorted({criterion for *_, criterion in known})
    metrics = list(dict.fromkeys(m for i, r, _ in known for m in items[i]["scores"][r]))
    meant = meant_by(criteria, metrics, pairs or {})
    scores = {
        (item, row, metric): number_in(items[item]["scores"][row].get(metric))
        for item, row, _ in known
        for metric in metrics
    }
    table: dict[str, dict[str, Agreement]] = {}
    for criterion in criteria:
        listed = {(i, r): value for (i, r, c), value in people.items() if c == criterion}
        table[criterion] = {
            metric: agreement(listed, {key: scores[*key, metric] for key in listed})
            for metric in meant[criterion]
        }
    chosen = [found[0] for criterion in criteria if len(found := meant[criterion]) == 1]
    if len(criteria) > 1 and len(chosen) == len(criteria) and len(set(chosen)) == len(chosen):
        whole = means_of(people, criteria)
        judged = {key: mean_of([scores[*key, metric] for metric in chosen]) for key in whole}
        table[OVERALL] = {"mean of " + ", ".join(chosen): agreement(whole, judged)}
    return {
        "items": {
            "run": len(items),
            "labelled": len({item for item, *_ in labels}),
            "used": len({item for item, *_ in known}),
        },
        "labels": {"read": sum(map(len, labels.values())), "used": sum(map(len, known.values()))},
        "clustered_by": "item",
        "ties": "pairs that people tie are left out, ties of the metric count a half",
        "criteria": {c: {m: asdict(a) for m, a in of.items()} for c, of in table.items()},
        "people": {c: asdict(mean) for c in criteria if (mean := among_people(known, c)) is not None},
    }


def meant_by(criteria: Iterable[str], metrics: list[str], pairs: Mapping[str, str]) -> dict[str, list[str]]:
    """The metrics that each criterion is compared with."""
    for criterion, metric in pairs.items():
        if criterion not in criteria:
            raise BenchmarkError(f"--pairs: no label is by {criterion!r}; there are {', '.join(criteria)}")
        if metric not in metrics:
            raise BenchmarkError(f"--pairs: the run has no metric {metric!r}; it has {', '.join(metrics)}")
    found = {}
    for criterion in criteria:
        word = criterion.casefold()
        alike = [m for m in metrics if m.casefold() == word or m.casefold().endswith(f"_{word}")]
        found[criterion] = [pairs[criterion]] if criterion in pairs else alike or metrics
    return found


def agreement(
    people: Mapping[tuple[str, str], float], scores: Mapping[tuple[str, str], float | None]
) -> Agreement:
    """A metric's scores of results (item, row) against people's labels of them."""
    both = {
        key: (label, score)
        for key, label in people.items()
        if (score := scores[key]) is not None and math.isfinite(score)
    }
    by_item: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (item, _), pair in both.items():
        by_item[item].append(pair)
    strict: list[tuple[str, float]] = []
    lenient: list[tuple[str, float]] = []
    judge_ties = 0
    for item, results in by_item.items():
        for (label_a, score_a), (label_b, score_b) in itertools.combinations(results, 2):
            order, told = sign(label_a - label_b), sign(score_a - score_b)
            value = 0.5 if told == 0 else float(order == told)
            if order != 0:
                strict.append((item, value))
                judge_ties += told == 0
            lenient.append((item, value if order != 0 else 1.0))
    return Agreement(
        len(both),
        len(by_item),
        len(strict),
        len(lenient) - len(strict),
        judge_ties,
        share_of(strict),
        share_of(lenient),
        correlation(
            [score for _, score in both.values()],
            [label for label, _ in both.values()],
            [item for item, _ in both],
        ),
    )


def among_people(labels: Labels, criterion: str) -> Mean | None:
    """How often one rater orders two results as the mean of the others does; None without several raters."""
    of: dict[str, list[dict[str, float]]] = defaultdict(list)
    for (item, _, by), raters in labels.items():
        if by == criterion and len(raters) > 1:
            of[item].append(raters)
    values: list[tuple[str, float]] = []
    for item, results in of.items():
        for a, b in itertools.combinations(results, 2):
            for rater in sorted(a.keys() & b.keys()):
                others = a.keys() & b.keys() - {rater}
                if not others:
                    continue
                order = sign(sum(a[other] - b[other] for other in others))
                told = sign(a[rater] - b[rater])
                if order != 0:
                    values.append((item, 0.5 if told == 0 else float(order == told)))
    if not values:
        return None
    return share_of(values)


def share_of(values: list[tuple[str, float]]) -> Mean:
    """The mean of values from 0 to 1 by item, whose interval draws whole items."""
    return mean_interval([value for _, value in values], [item for item, _ in values], bounds=(0.0, 1.0))


def means_of(people: Mapping[Key, float], criteria: list[str]) -> dict[tuple[str, str], float]:
    """The mean over criteria of results that have a label by each."""
    results = {(item, row) for item, row, _ in people}
    means = {key: mean_of([people.get((*key, c)) for c in criteria]) for key in sorted(results)}
    return {key: mean for key, mean in means.items() if mean is not None}


def mean_of(values: list[float | None]) -> float | None:
    """The mean; None where one is missing."""
    had = [value for value in values if value is not None]
    return sum(had) / len(had) if len(had) == len(values) else None


def sign(gap: float) -> int:
    """-1, 0 or 1; 0 also for what rounding leaves of a tie."""
    return 0 if abs(gap) < CLOSE else (1 if gap > 0 else -1)
