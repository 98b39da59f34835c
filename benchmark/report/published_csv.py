"""The table of scores that a suite's published program writes, for whoever reads that one.

EditVerseBench's has the columns id, six metrics and type, a line per item and a last one of means, called
Average (adobe-research/EditVerse, automatic_evaluation/__init__.py). A score that is missing is an empty
cell; the published program ends there, or asks for ever.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from benchmark.evaluation.results import Run
from shards.files import write_bytes


def write_published(run: Run, out: Path) -> list[Path]:
    """Write `published_<row>.csv` for every row of a run in mode `official`; the files written.

    Of suites whose `columns` name the published columns by metric, in their order; others have none.
    """
    columns: dict[str, str] = getattr(run.suite, "columns", {})
    known = {column: name for name, column in columns.items() if name in {m.name for m in run.metrics}}
    if run.config.mode != "official" or not known:
        return []
    written = []
    for row in run.rows:
        numbers = {o.item.id: o.numbers(row) for o in run.outcomes}
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["id", *known, "type"])
        for outcome in run.outcomes:
            scores = numbers[outcome.item.id]
            lines.writerow([outcome.item.id, *(_cell(scores[n]) for n in known.values()), outcome.item.task])
        lines.writerow(["Average", *(_cell(_mean(n, numbers)) for n in known.values()), ""])
        path = out / f"published_{re.sub('[^A-Za-z0-9_.-]', '_', row)}.csv"
        write_bytes(path, text.getvalue().encode())
        written.append(path)
    return written


def _mean(name: str, numbers: dict[str, dict[str, float | None]]) -> float | None:
    values = [v for scores in numbers.values() if (v := scores[name]) is not None]
    return sum(values) / len(values) if values else None


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)
