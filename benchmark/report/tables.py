"""How numbers are printed, and the score table on the terminal.

The page uses the same formatting.
"""

from __future__ import annotations

import math
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from benchmark.evaluation.results import COMMON, ROW_NOTES, Run, label_of
from benchmark.metrics import Metric
from benchmark.statistics.correlation import Correlation
from benchmark.statistics.groups import Ranking
from benchmark.statistics.intervals import Mean
from benchmark.statistics.power import Power


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
    seconds, peaks = run.seconds_per_edit(), run.peak_bytes()
    if seconds:
        table.add_column("per edit\ns", justify="right", no_wrap=True)
        table.add_column("memory\nGiB", justify="right", no_wrap=True)
    tasks = {outcome.item.task for outcome in run.outcomes}
    for name, members in run.groups():
        if name not in ("all", COMMON) and name not in tasks:
            continue
        table.add_section()
        table.add_row(f"[bold]{name}[/bold]")
        for row in run.rows:
            means = [run.mean(row, m, members) for m in run.metrics]
            note = f" ({ROW_NOTES.get(row)})" if ROW_NOTES.get(row, "") else ""
            cells = [
                f"{number(mean.value, m)}\n[dim]{escape(interval(mean, m))}[/dim]"
                for mean, m in zip(means, run.metrics, strict=True)
            ]
            scored, failed = spread([m.scored for m in means]), spread([m.failed for m in means])
            taken = cost(seconds.get(row), peaks.get(row)) if seconds and name == "all" else ()
            table.add_row(f"  {label_of(row)}{note}", *cells, scored, failed, *taken)
    return table


def cost(seconds: float | None, peak: int | None) -> tuple[str, str]:
    """What an edit took, as tables print it: seconds, and GiB at most; dashes where that is not known."""
    return plain(seconds, 2), plain(None if peak is None else peak / 2**30, 2)


def aggregate_table(run: Run) -> Table | None:
    """What the suite itself makes of the scores, a line per number; None where it makes nothing."""
    made = run.aggregates()
    if not made:
        return None
    table = Table(Column("aggregate", no_wrap=True), title=f"{run.suite.name}: as its authors sum up")
    for row in made:
        table.add_column(escape(label_of(row)), justify="right", no_wrap=True)
    labels = list(dict.fromkeys(a.label for of in made.values() for a in of))
    for label in labels:
        found = [next((a for a in of if a.label == label), None) for of in made.values()]
        cells = ["-" if a is None else f"{plain(a.value)} [dim]n={a.n}[/dim]" for a in found]
        table.add_row(escape(label), *cells)
    return table


def spread(values: list[int]) -> str:
    """One number, or `lowest-highest` where the metrics differ."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"


def comparison_table(first: str, second: str, found: dict[str, Any]) -> Table:
    """What `compare` found, a metric per line."""
    title = f"{escape(second)} less {escape(first)}: {found['items']} items, by {found['clustered_by']}"
    table = Table(Column("metric", no_wrap=True), title=title)
    for name in ("first", "second", "difference", "95 %", "p", "effect", "scored", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric, of in found["metrics"].items():
        mean = of["mean"]
        bounds = "n/a" if mean["low"] is None else f"[{mean['low']:.3f}, {mean['high']:.3f}]"
        shown = [plain(of[name]) for name in ("first", "second")] + [plain(mean["value"]), escape(bounds)]
        shown += [plain(of["p"], 4), plain(of["effect"])]
        table.add_row(metric, *shown, str(mean["scored"]), str(mean["failed"]))
    return table


def correlation_table(found: dict[tuple[str, str], Correlation], title: str) -> Table:
    """Pairs of what was correlated."""
    table = Table(Column("metrics", no_wrap=True), title=title)
    for name in ("n", "clusters", "Pearson", "95 %", "Spearman", "95 %", "Kendall"):
        table.add_column(name, justify="right", no_wrap=True)
    for (a, b), of in found.items():
        ends = [
            "n/a" if low is None else f"[{low:.2f}, {high:.2f}]"
            for low, high in ((of.low, of.high), (of.spearman_low, of.spearman_high))
        ]
        clusters = "-" if of.clusters is None else str(of.clusters)
        cells = [clusters, plain(of.pearson, 2), escape(ends[0]), plain(of.spearman, 2), escape(ends[1])]
        cells.append(plain(of.kendall, 2))
        table.add_row(f"{a}, {b}", str(of.n), *cells)
    return table


def ranking_table(metric: str, of: Ranking) -> Table:
    """Systems by one metric, best first, with the letters that they share."""
    title = f"{metric}: means over the {of.items} items that all have; one letter in common: not told apart"
    table = Table(Column("row", no_wrap=True), title=escape(title))
    for name in ("mean", "groups", "to the next", "95 %", "p", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
    pairs = {(p.first, p.second): p for p in of.pairs}
    for name, after in zip(of.order, [*of.order[1:], None], strict=True):
        cells = [plain(of.means[name]), of.letters[name] or "-"]
        if after is not None:
            pair = pairs[name, after]
            mean = pair.difference.mean
            ends = "n/a" if mean.low is None else f"[{mean.low:.3f}, {mean.high:.3f}]"
            cells += [plain(mean.value), escape(ends), plain(pair.difference.p, 4), plain(pair.corrected, 4)]
        table.add_row(escape(name), *cells)
    return table


def power_table(title: str, wanted: dict[str, float], found: dict[str, Power], chance: float) -> Table:
    """How many items tell two rows apart, a metric per line."""
    table = Table(Column("metric", no_wrap=True), title=escape(title))
    share = f"{100 * chance:g} %"
    for name in ("items", "clusters", "difference", "chance here", f"items for {share}", f"seen at {share}"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric, of in found.items():
        needed = "-" if of.needed_items is None else str(of.needed_items)
        cells = [str(of.items), str(of.clusters), f"{wanted[metric]:g}", f"{100 * of.chance:.0f} %"]
        table.add_row(metric, *cells, needed, f"{of.least:.3g}")
    return table


def plain(value: float | None, decimals: int = 3) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.{decimals}f}"
