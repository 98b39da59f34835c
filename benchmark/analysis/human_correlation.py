"""Metrics against people: how scores of a run go together with ratings of the same results.

Ratings are a CSV with the columns `item`, `row` (the system) and `score`, a line per rating; several ratings
of one result are averaged. Given item by item, with intervals over source clips, since results of one clip go
together whichever system made them, and, where there are three systems or more, system by system.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.analysis.compare import Items
from benchmark.core.item import BenchmarkError
from benchmark.core.score_cache import number_in
from benchmark.statistics.correlation import Correlation, correlation
from benchmark.statistics.intervals import choose_clusters
from shards.errors import EditVerseError
from shards.limits import read_text

COLUMNS = ("item", "row", "score")
Ratings = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Agreement:
    """A metric against people, over results and over systems' means."""

    results: Correlation
    systems: Correlation


def read_ratings(path: Path) -> Ratings:
    """Mean rating by (item, row); BenchmarkError names the file, the line and what is wrong with it."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    try:
        with io.StringIO(read_text(path), newline="") as handle:
            rows = csv.DictReader(handle)
            missing = sorted(set(COLUMNS) - set(rows.fieldnames or ()))
            if missing:
                raise BenchmarkError(f"{path}: no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
            for row in rows:
                try:
                    score = float(row["score"])
                    if not np.isfinite(score):
                        raise ValueError("is not finite")
                except (TypeError, ValueError):
                    raise BenchmarkError(
                        f"{path}: line {rows.line_num}: score {row['score']!r} is no number"
                    ) from None
                found[str(row["item"]), str(row["row"])].append(score)
    except BenchmarkError:
        raise
    except (OSError, EditVerseError, csv.Error) as error:
        raise BenchmarkError(f"{path}: cannot be read: {error}") from error
    if not found:
        raise BenchmarkError(f"{path}: holds no ratings")
    return {key: float(np.mean(scores)) for key, scores in found.items()}


def agreements(items: Items, ratings: Mapping[tuple[str, str], float]) -> dict[str, Agreement]:
    """By metric; BenchmarkError for ratings of an item or a row that the run does not have."""
    for item, row in ratings:
        if item not in items:
            raise BenchmarkError(f"a rating is of item {item!r}, which the run does not have")
        if row not in items[item]["scores"]:
            raise BenchmarkError(
                f"a rating is of {row!r}; the run has the rows {', '.join(items[item]['scores'])}"
            )
    metrics = {m: None for item, row in ratings for m in items[item]["scores"][row]}
    systems = sorted({row for _, row in ratings})
    found = {}
    for metric in metrics:
        scores = {key: number_in(items[key[0]]["scores"][key[1]].get(metric)) for key in ratings}
        both = {key: s for key, s in scores.items() if s is not None and np.isfinite(s)}
        means = {
            row: (
                np.mean([s for (_, r), s in both.items() if r == row]),
                np.mean([ratings[key] for key in both if key[1] == row]),
            )
            for row in systems
            if any(r == row for _, r in both)
        }
        found[metric] = Agreement(
            correlation(
                list(both.values()),
                [ratings[key] for key in both],
                choose_clusters(
                    [items[item]["clip"] for item, _ in both], [items[item]["pair"] for item, _ in both]
                )[1],
            ),
            correlation([float(a) for a, _ in means.values()], [float(b) for _, b in means.values()]),
        )
    return found
