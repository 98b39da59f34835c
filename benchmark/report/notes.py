"""What a summary says besides its means, as small tables for the page; a part that it lacks has no table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.core.item import SOURCE, TARGET, Unscored
from benchmark.evaluation.results import Run, label_of
from benchmark.statistics.groups import all_pairs

PAIRED = 100  # draws for the intervals of pairs, which are not shown; their p-values do not depend on these


@dataclass(frozen=True)
class Note:
    """A small table: `heads` above the columns, `lines` of texts below, and what it means."""

    title: str
    heads: list[str]
    lines: list[list[str]]
    meaning: str = ""


def notes(run: Run) -> list[Note]:
    """All that there is to say about a run."""
    summary = run.summary()
    found = [
        _aggregates(run, summary.get("aggregates") or {}),
        _groups(run),
        _costs(run, summary.get("seconds_per_edit"), summary.get("peak_bytes")),
        _judges(run, summary.get("judges") or {}),
        _failures(summary.get("failed_by_kind") or {}),
        _unlike(summary.get("differences") or []),
    ]
    return [note for note in found if note is not None]


def _aggregates(run: Run, made: Mapping[str, list[Mapping[str, Any]]]) -> Note | None:
    labels = list(dict.fromkeys(one["label"] for of in made.values() for one in of))
    if not labels:
        return None
    lines = []
    for row, of in made.items():
        values = {one["label"]: one for one in of}
        lines.append([label_of(row), *(_aggregate(values.get(label)) for label in labels)])
    meaning = "As the suite's authors sum up scores; the number of items in brackets."
    return Note(f"{run.suite.name}: as its authors sum up", ["row", *labels], lines, meaning)


def _aggregate(one: Mapping[str, Any] | None) -> str:
    if one is None or one["value"] is None:
        return "-"
    count = f" ({one['n']})" if "n" in one else ""
    return f"{float(one['value']):.4g}{count}"


def _groups(run: Run) -> Note | None:
    """Letters of the systems by metric: two with a letter in common cannot be told apart."""
    rows = [row for row in run.rows if row not in (SOURCE, TARGET)]
    if len(rows) < 2:
        return None
    columns = {}
    for metric in run.metrics:
        values = {row: [_known(o.scores[row][metric.name]) for o in run.outcomes] for row in rows}
        up = metric.higher_is_better
        ranking = all_pairs(values, run.clusters[1], higher_is_better=up, resamples=PAIRED)
        if any(ranking.letters.values()):
            columns[metric.name] = metric.label, ranking.letters
    if not columns:
        return None
    lines = [[label_of(row), *(letters[row] or "-" for _, letters in columns.values())] for row in rows]
    meaning = (
        "Rows that share a letter cannot be told apart at 5 %: all pairs are tested on the items that all of "
        f"them have a score for, by {run.clusters[0]}, and corrected after Holm."
    )
    return Note("What can be told apart", ["row", *(label for label, _ in columns.values())], lines, meaning)


def _known(score: float | Unscored) -> float | None:
    return None if isinstance(score, Unscored) or not math.isfinite(score) else float(score)


def _costs(run: Run, seconds: Any, peak: Any) -> Note | None:
    seconds, peak = (of if isinstance(of, Mapping) else {} for of in (seconds, peak))
    rows = [row for row in run.rows if row in seconds or row in peak]
    if not rows:
        return None
    lines = [
        [
            label_of(row),
            f"{seconds[row]:.2f}" if row in seconds else "-",
            f"{peak[row] / 2**30:.2f}" if row in peak else "-",
        ]
        for row in rows
    ]
    return Note("What an edit takes", ["row", "seconds per edit", "peak memory, GiB"], lines)


def _judges(run: Run, judges: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Note | None:
    labels = {metric.name: metric.label for metric in run.metrics}
    lines = [
        [
            label_of(row),
            labels.get(name, name),
            f"{of['repeats']:g}",
            f"{of['items']:g}",
            f"{of['deviation']:.3f}",
        ]
        for row, by_metric in judges.items()
        for name, of in by_metric.items()
    ]
    if not lines:
        return None
    meaning = "A judge that is asked several times: the standard deviation of its answers about an item."
    return Note("How steady judges are", ["row", "judge", "repeats", "items", "deviation"], lines, meaning)


def _failures(kinds: Mapping[str, int]) -> Note | None:
    if not kinds:
        return None
    lines = [[kind, str(count)] for kind, count in kinds.items()]
    asked = "Later runs ask these again, --retry times at most."
    return Note("Failures by kind", ["kind", "scores"], lines, asked)


def _unlike(differences: list[Mapping[str, str]]) -> Note | None:
    counted = Counter((one["row"], one["note"]) for one in differences)
    lines = [[label_of(row), note, str(count)] for (row, note), count in counted.most_common(20)]
    if not lines:
        return None
    return Note("Results unlike their source", ["row", "difference", "items"], lines)
