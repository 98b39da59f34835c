"""`python -m benchmark calibrate`: a run's metrics against people's labels of the same results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from benchmark.analysis.calibrate import calibrate as calibrated
from benchmark.analysis.calibrate import read_labels
from benchmark.analysis.compare import read_items
from shards.files import write_json
from shards.terminal import print_table


def calibrate(
    run: str = "runs/bench",
    human: str = "labels.csv",
    pairs: dict[str, str] = {},  # noqa: B006 (never changed)
    columns: dict[str, str] = {},  # noqa: B006
    out: str | None = None,
) -> None:
    """Say how often metrics order two results of an item as people do, by criterion, with intervals.

    Pairs that people tie are left out, ties of a metric count a half; the intervals draw whole items.

    Args:
        run: output folder of the run, with two systems or more
        human: table of labels (CSV, JSON, JSONL, Parquet) with the columns item, row, criterion and score,
            and rater if there are several
        pairs: which metric is meant by a criterion, as JSON: {"IF": "vefx_if"}; if not given, that whose
            name ends in the criterion's, else all
        columns: what the table calls its columns, as JSON: {"item": "video", "IF": "if_score"}; a name other
            than those above is a criterion with a column of its own
        out: file for the result as JSON; calibration.json in the run's folder when not given
    """
    found = calibrated(read_items(Path(run)), read_labels(Path(human), columns), pairs)
    print_table(calibration_table(found))
    for criterion, mean in found["people"].items():
        print(f"{criterion}: a rater and the others order {share(mean)} of pairs alike {interval(mean)}")
    items, labels = found["items"], found["labels"]
    print(
        f"{labels['used']} of {labels['read']} labels used, of {items['used']} items; "
        f"{items['labelled']} are labelled, the run has {items['run']}; {found['ties']}"
    )
    path = Path(out) if out is not None else Path(run) / "calibration.json"
    write_json(path, found)
    print(f"wrote {path}")


def calibration_table(found: dict[str, Any]) -> Table:
    """A line per criterion and metric."""
    table = Table(
        Column("criterion", no_wrap=True), Column("metric", no_wrap=True), title="metrics against people"
    )
    for name in ("items", "pairs", "in their order", "95 %", "ties right", "Spearman", "95 %", "Kendall"):
        table.add_column(name, justify="right", no_wrap=True)
    for criterion, metrics in found["criteria"].items():
        for metric, of in metrics.items():
            accuracy, rank = of["accuracy"], of["correlation"]
            cells = [str(of["items"]), str(of["pairs"]), share(accuracy), escape(interval(accuracy))]
            cells += [share(of["ties_right"])]
            spread = {"low": rank["spearman_low"], "high": rank["spearman_high"]}
            cells += [decimal(rank["spearman"]), escape(interval(spread)), decimal(rank["kendall"])]
            table.add_row(escape(criterion), escape(metric), *cells)
    return table


def decimal(value: float | None) -> str:
    """A correlation, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def share(mean: dict[str, Any]) -> str:
    """A share of pairs, or a dash."""
    return "-" if mean["value"] is None else f"{mean['value']:.3f}"


def interval(mean: dict[str, Any]) -> str:
    """`[low, high]`, or n/a."""
    return "n/a" if mean["low"] is None else f"[{mean['low']:.3f}, {mean['high']:.3f}]"
