"""What papers and authors' pages report on a suite, and how far they are apart about one model.

The rows are `published/reports.yaml`, each with its source, its date, its judge and what was changed; nothing
there was measured here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from benchmark.core.item import BenchmarkError

REPORTS = Path(__file__).resolve().parent / "published" / "reports.yaml"


class Report(BaseModel):
    """One table of one source: a row by model, a value by column of its suite, None where it has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    said: str = ""
    date: str
    judge: str
    changed: str
    rows: dict[str, list[float | None]]

    @field_validator("date", mode="before")
    @classmethod
    def _text(cls, value: object) -> str:
        return str(value)


class Reports(BaseModel):
    """All that is known of a suite; `headline` is the column that models are ordered by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    headline: str
    columns: dict[str, str]
    reports: list[Report] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Reports:
        if self.headline not in self.columns:
            raise ValueError(f"no column {self.headline}")
        for report in self.reports:
            for name, values in report.rows.items():
                if len(values) != len(self.columns):
                    raise ValueError(f"{report.source}: {name}: {len(values)} of {len(self.columns)} values")
        return self


@dataclass(frozen=True)
class Spread:
    """What several reports say of one model in one column.

    Attributes:
        values: (report's number in its suite, value), by date.
        low, high: the least and the most of those by the same judge as the first of them; a different judge
            is no spread between papers but another measure.
    """

    model: str
    values: list[tuple[int, float]]
    low: float
    high: float


@cache
def published_suites() -> dict[str, Reports]:
    """Reports by the name of their suite."""
    read = yaml.safe_load(REPORTS.read_text(encoding="utf-8"))
    return {name: Reports.model_validate(of) for name, of in read.items()}


def reports_on(suite: str) -> Reports:
    """Reports on a suite; BenchmarkError where there are none."""
    known = published_suites()
    if suite not in known:
        raise BenchmarkError(f"--suite {suite}: there are reports on {', '.join(known)}")
    return known[suite]


def spreads(suite: str, column: str | None = None) -> list[Spread]:
    """Models by their best value, and how far reports are apart about each.

    Args:
        suite: its name.
        column: of its tables; the headline's if not given.
    """
    of = reports_on(suite)
    column = column or of.headline
    if column not in of.columns:
        raise BenchmarkError(f"--column {column}: {suite} has {', '.join(of.columns)}")
    place = list(of.columns).index(column)
    found: dict[str, list[tuple[int, float]]] = {}
    for number, report in enumerate(of.reports):
        for model, row in report.rows.items():
            value = row[place]
            if value is not None:
                found.setdefault(model, []).append((number, value))
    made = []
    for model, values in found.items():
        judge = of.reports[values[0][0]].judge
        same = [v for n, v in values if of.reports[n].judge == judge or not known_judge(of.reports[n])]
        made.append(Spread(model, values, min(same), max(same)))
    return sorted(made, key=lambda s: -s.high)


def known_judge(report: Report) -> bool:
    """Whether a report says who judged."""
    return not report.judge.startswith("not stated")
