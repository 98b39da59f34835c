"""Bars of means by group, one figure per metric: which system does what kind of edit how well."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from benchmark.core.item import TARGET
from benchmark.evaluation.results import COMMON, Run, label_of
from benchmark.metrics import Metric
from benchmark.report.training_curves import nice_ticks
from benchmark.statistics.intervals import Mean

BAR = 10  # pixels from a bar to the next
COLOURS = 12  # .s0 to .s11 of report.css


@dataclass(frozen=True)
class Figure:
    """A metric's figure; `rows` are the systems by the number of their colour."""

    name: str
    note: str
    rows: list[str]
    html: str


def figures(run: Run) -> list[Figure]:
    """One per metric that has a finite mean in two groups at least; none where there is one group."""
    groups = [(name, members) for name, members in run.groups() if name not in ("all", COMMON)]
    rows = [row for row in run.rows if row != TARGET]  # the ceiling's scores are perfect or infinite
    found = []
    for metric in run.metrics:
        means = {name: [run.mean(row, metric, members) for row in rows] for name, members in groups}
        known = {n: of for n, of in means.items() if any(finite(mean) for mean in of)}
        if len(known) < 2:
            continue
        note = f"{metric.unit} {'higher' if metric.higher_is_better else 'lower'} is better".strip()
        found.append(Figure(metric.label, note, [label_of(r) for r in rows], plot(metric, known)))
    return found


def finite(mean: Mean) -> bool:
    """Whether it can be drawn."""
    return mean.value is not None and math.isfinite(mean.value)


def plot(metric: Metric, groups: dict[str, list[Mean]]) -> str:
    """Horizontal bars with their intervals, a block of systems per group, as HTML.

    Not SVG: its text neither wraps nor has a width that is known here, so that long names would be cut.
    """
    ends = [v for of in groups.values() for m in of if finite(m) for v in (m.value, m.low, m.high)]
    numbers = [v for v in ends if v is not None]
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    if low >= 0 and min(numbers) > 0.6 * high:  # bars from 0 would all look alike; the axis says so
        low = min(numbers) - 0.25 * (high - min(numbers) or high)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return 100 * (value - low) / span

    ticks = nice_ticks(low, high, 4)
    grid = "".join(f'<i class="grid" style="left:{x(tick):.2f}%"></i>' for tick in ticks)
    start = x(max(low, 0.0))
    parts = [f'<div class="plot" role="group" aria-label="{escape(metric.label)} by group">']
    for name, of in groups.items():
        parts.append(f'<div class="name">{escape(name)}</div>')
        parts.append(f'<div class="track" style="height:{len(of) * BAR}px">{grid}')
        for number, mean in enumerate(of):
            if finite(mean) and mean.value is not None:
                left, right = sorted((start, x(mean.value)))
                label = f"{name}: {mean.value:.4g}, {mean.scored} scored, {mean.failed} failed"
                parts.append(
                    f'<div class="bar s{number % COLOURS}" role="img" aria-label="{escape(label)}" '
                    f'title="{escape(label)}" style="left:{left:.2f}%;width:{right - left:.2f}%;'
                    f'top:{number * BAR}px;height:{BAR - 2}px"></div>'
                )
                if mean.low is not None and mean.high is not None:
                    first, last = x(max(low, mean.low)), x(mean.high)
                    parts.append(
                        f'<i class="interval" style="left:{first:.2f}%;width:{last - first:.2f}%;'
                        f'top:{number * BAR + BAR / 2 - 1:g}px"></i>'
                    )
        parts.append("</div>")
    marks = "".join(f'<span style="left:{x(tick):.2f}%">{tick:g}</span>' for tick in ticks)
    return "".join(parts) + f'<div class="ticks">{marks}</div></div>'
