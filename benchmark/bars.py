"""Bars of means by group, one figure per metric, as SVG: which system does what kind of edit how well."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from benchmark.curves import nice_ticks
from benchmark.metrics import Metric
from benchmark.outcome import Run, label_of
from benchmark.stats import Mean
from benchmark.systems import TARGET

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 440, 150, 24, 6, 26
BAR, GAP = 10, 10  # pixels: of a bar, between groups


@dataclass(frozen=True)
class Figure:
    """A metric's figure; `rows` are the systems by the number of their colour."""

    name: str
    note: str
    rows: list[str]
    svg: str


def figures(run: Run) -> list[Figure]:
    """One per metric that has a finite mean in two groups at least; none where there is one group."""
    groups = [(name, members) for name, members in run.groups() if name != "all"]
    rows = [row for row in run.rows if row != TARGET]  # the ceiling's scores are perfect or infinite
    found = []
    for metric in run.metrics:
        means = {name: [run.mean(row, metric, members) for row in rows] for name, members in groups}
        known = {n: of for n, of in means.items() if any(finite(mean) for mean in of)}
        if len(known) < 2:
            continue
        note = f"{metric.unit} {'higher' if metric.higher_is_better else 'lower'} is better".strip()
        found.append(Figure(metric.label, note, [label_of(r) for r in rows], svg(metric, known)))
    return found


def finite(mean: Mean) -> bool:
    """Whether it can be drawn."""
    return mean.value is not None and math.isfinite(mean.value)


def svg(metric: Metric, groups: dict[str, list[Mean]]) -> str:
    """Horizontal bars with their intervals, a block of systems per group."""
    ends = [v for of in groups.values() for m in of if finite(m) for v in (m.value, m.low, m.high)]
    numbers = [v for v in ends if v is not None]
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    if low >= 0 and min(numbers) > 0.6 * high:  # bars from 0 would all look alike; the axis says so
        low = min(numbers) - 0.25 * (high - min(numbers) or high)
    rows = len(next(iter(groups.values())))
    height = TOP + BOTTOM + len(groups) * (rows * BAR + GAP)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / span

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(metric.label)} by group">']
    for tick in nice_ticks(low, high, 4):
        at = f'x1="{x(tick):.1f}" x2="{x(tick):.1f}"'
        parts.append(f'<line class="grid" {at} y1="{TOP}" y2="{height - BOTTOM}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    y = float(TOP) + GAP / 2
    start = x(max(low, 0.0))
    for name, of in groups.items():
        middle = y + rows * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(short(name))}</text>')
        for number, mean in enumerate(of):
            if finite(mean) and mean.value is not None:
                left, right = sorted((start, x(mean.value)))
                label = f"{name}: {mean.value:.4g}, {mean.scored} scored, {mean.failed} failed"
                place = f'x="{left:.1f}" y="{y + number * BAR:.1f}" width="{max(1.0, right - left):.1f}"'
                title = f"<title>{escape(label)}</title>"
                parts.append(f'<rect class="bar s{number % 6}" {place} height="{BAR - 2}">{title}</rect>')
                if mean.low is not None and mean.high is not None:
                    line = y + number * BAR + BAR / 2 - 1
                    parts.append(
                        f'<line class="axis" x1="{x(max(low, mean.low)):.1f}" x2="{x(mean.high):.1f}" '
                        f'y1="{line:.1f}" y2="{line:.1f}"/>'
                    )
        y += rows * BAR + GAP
    return "".join(parts) + "</svg>"


def short(name: str, most: int = 24) -> str:
    """Names that fit beside the bars."""
    return name if len(name) <= most else name[: most - 1] + "…"
