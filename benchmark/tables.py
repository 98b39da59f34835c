"""How numbers are printed, and the score table on the terminal.

The page uses the same formatting.
"""

from __future__ import annotations

import math

from rich.markup import escape
from rich.table import Table

from benchmark.metrics import Metric
from benchmark.runner import ROW_LABELS, ROW_NOTES, Run
from benchmark.stats import Mean


def number(value: float | None, metric: Metric) -> str:
    """Two decimals, three for SSIM-like ranges; infinity as ∞, nothing as a dash."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.3f}" if metric.range[1] <= 1 else f"{value:.2f}"


def interval(mean: Mean, metric: Metric) -> str:
    """`[low, high]`, or n/a where an interval means nothing."""
    if mean.low is None or mean.high is None:
        return "n/a"
    return f"[{number(mean.low, metric)}, {number(mean.high, metric)}]"


def heading(metric: Metric) -> str:
    """Label, unit and direction."""
    return f"{metric.label} {unit_and_arrow(metric)}"


def unit_and_arrow(metric: Metric) -> str:
    """The second line of a column's heading."""
    return f"{metric.unit} {'↑' if metric.higher_is_better else '↓'}".strip()


def terminal_table(run: Run) -> Table:
    """The table printed at the end of a run: all items, then each task; wordings are on the page."""
    table = Table(title=f"{run.suite.name}: {len(run.outcomes)} items", show_lines=False)
    table.add_column("", no_wrap=True)
    for metric in run.metrics:
        table.add_column(f"{metric.label}\n{unit_and_arrow(metric)}", justify="right", no_wrap=True)
    table.add_column("scored", justify="right", no_wrap=True)
    table.add_column("failed", justify="right", no_wrap=True)
    tasks = {outcome.item.task for outcome in run.outcomes}
    for name, members in run.groups():
        if name != "all" and name not in tasks:
            continue
        table.add_section()
        table.add_row(f"[bold]{name}[/bold]")
        for row in run.rows:
            means = [run.mean(row, m, members) for m in run.metrics]
            note = f" ({ROW_NOTES[row]})" if ROW_NOTES[row] else ""
            cells = [
                f"{number(mean.value, m)}\n[dim]{escape(interval(mean, m))}[/dim]"
                for mean, m in zip(means, run.metrics, strict=True)
            ]
            scored, failed = spread([m.scored for m in means]), spread([m.failed for m in means])
            table.add_row(f"  {ROW_LABELS[row]}{note}", *cells, scored, failed)
    return table


def spread(values: list[int]) -> str:
    """One number, or `lowest-highest` where the metrics differ."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"
