"""Commands that print tables: comparisons, correlations, faults, the paper's tables, what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console

from benchmark.analysis.compare import compare as compare_runs
from benchmark.analysis.compare import correlations, powers, read_items, read_metric_facts
from benchmark.analysis.compare import rank as rank_runs
from benchmark.analysis.human_correlation import agreements, read_ratings
from benchmark.analysis.paper_tables import Filled, paper_table, read_rows
from benchmark.analysis.published_rows import reports_on, spreads
from benchmark.analysis.reference_bugs import effects, table
from benchmark.core.item import BenchmarkError
from benchmark.core.media import reading
from benchmark.evaluation.setup import evenly_spaced
from benchmark.metrics import known_metrics
from benchmark.metrics.config import read_metrics
from benchmark.report.tables import comparison_table, correlation_table, power_table, ranking_table
from benchmark.suites import describe, names, open_suite
from benchmark.systems.results_folder import PrecomputedResults
from shards.devices import choose_device
from shards.files import write_json
from shards.terminal import print_table

console = Console()


def compare(
    first: str, second: str, row: str = "model", second_row: str | None = None, out: str | None = None
) -> None:
    """Compare two systems over the same items: the mean difference, its interval and p-value.

    Args:
        first: output folder of a run
        second: output folder of the other, or of the same
        row: which row of their tables
        second_row: the row of the second, if it is called otherwise
        out: file for the comparison as JSON
    """
    items = read_items(Path(first)), read_items(Path(second))
    facts = read_metric_facts(Path(first)) | read_metric_facts(Path(second))
    found = compare_runs(*items, row, second_row, facts)
    title = "metrics of the second run against each other, over items"
    print_table(comparison_table(f"{first} {found['row']}", f"{second} {found['second_row']}", found))
    print_table(correlation_table(correlations(items[1], found["second_row"]), title))
    if out is not None:
        write_json(Path(out), found)


def rank(
    runs: tuple[str, ...] = ("runs/bench",),
    rows: tuple[str, ...] = (),
    metrics: tuple[str, ...] = (),
    out: str | None = None,
) -> None:
    """Compare all pairs of systems and say which cannot be told apart, Holm's correction applied.

    Args:
        runs: output folders of one run or more over the same items
        rows: only these rows; all but the target if not given
        metrics: only these metrics; all if not given
        out: file for all pairs as JSON
    """
    from dataclasses import asdict

    folders = [Path(run) for run in runs]
    facts = {name: of for folder in reversed(folders) for name, of in read_metric_facts(folder).items()}
    found = rank_runs({str(f): read_items(f) for f in folders}, rows, metrics, facts)
    for metric, of in found.items():
        print_table(ranking_table(metric, of))
    if out is not None:
        write_json(Path(out), {metric: asdict(of) for metric, of in found.items()})


def power(
    first: str,
    second: str,
    difference: dict[str, float] = {},  # noqa: B006 (never changed)
    row: str = "model",
    second_row: str | None = None,
    chance: float = 0.8,
    comparisons: int = 1,
) -> None:
    """Say how many items tell two editors apart, from how their scores differ on the items of runs.

    Args:
        first: output folder of a run
        second: output folder of the other, or of the same
        difference: to be seen, by metric, as JSON: {"judge": 0.3}
        row: which row of their tables
        second_row: the row of the second, if it is called otherwise
        chance: to see it
        comparisons: how many are made at once; each test's size is 0.05 over their number
    """
    if not 0.05 < chance < 1:
        raise BenchmarkError(f"--chance {chance}: lies between 0.05 and 1")
    if not difference:
        raise BenchmarkError('--difference: name a metric and the difference to be seen: {"judge": 0.3}')
    if comparisons < 1:
        raise BenchmarkError(f"--comparisons {comparisons}: needs at least 1")
    other = second_row or row
    items = read_items(Path(first)), read_items(Path(second))
    found = powers(*items, row, other, difference, chance, comparisons)
    print_table(power_table(f"{first} {row} against {second} {other}", difference, found, chance))


def correlate(run: str = "runs/bench", human: str = "ratings.csv") -> None:
    """Say how a run's metrics go together with people's ratings of the same results.

    Args:
        run: output folder of the run
        human: CSV of ratings with the columns item, row and score
    """
    found = agreements(read_items(Path(run)), read_ratings(Path(human)))
    for what, of in (("result by result", "results"), ("means of systems", "systems")):
        pairs = {(metric, "people"): getattr(a, of) for metric, a in found.items()}
        print_table(correlation_table(pairs, f"metrics against people, {what}"))


def faults(
    suite: str = "editversebench",
    data: str = "data/EditVerseBench",
    results: str = "results",
    metrics: str | None = None,
    limit: int | None = None,
    device: str = "auto",
    out: str | None = None,
) -> None:
    """Say what each fault of the published code is worth: official scores with one mended at a time.

    Args:
        suite: whose items and metrics
        data: the suite's data
        results: folder of finished results
        metrics: YAML file of metrics; the suite's own if not given
        limit: only so many items, spread evenly over the suite
        device: of the metrics' networks: auto, cpu or cuda
        out: file for the table as JSON
    """
    from dataclasses import asdict

    device = choose_device(device)
    with reading("official"):
        opened, finished = open_suite(suite, Path(data)), PrecomputedResults("results", Path(results))
    chosen = metrics or opened.metrics
    if chosen is None:
        raise BenchmarkError(f"--suite {suite}: its metrics are ours; no published code has faults in them")
    items = [opened.items[n] for n in evenly_spaced(len(opened.items), limit)]
    with console.status("scoring") as status:
        found = effects(
            items,
            finished,
            read_metrics(Path(chosen), "official", device),
            status.update,
        )
    print_table(table(found))
    if out is not None:
        write_json(Path(out), [asdict(effect) for effect in found])


def tables(
    table: str = "2", rows: str | None = None, format: Literal["text", "csv", "latex"] = "text"
) -> None:
    """Print a result table of the paper, with own rows in it; published rows are marked as such.

    Args:
        table: its number in the paper: 2, 3, 6, 7, 8 or 9
        rows: YAML or JSON file of own rows, {method: {column: value}}; the CSV names the columns
        format: text for the terminal, csv, or latex
    """
    chosen = paper_table(table)
    filled = Filled(chosen, read_rows(Path(rows), chosen) if rows else {})
    if format == "text":
        print_table(filled.text())
    else:
        print(filled.csv() if format == "csv" else filled.latex(), end="")


def published(suite: str = "editversebench", column: str | None = None) -> None:
    """Print what papers and authors' pages report on a suite, and how far they are apart about a model.

    Args:
        suite: editversebench or openve
        column: of their tables; the suite's headline if not given
    """
    from rich.table import Table

    of = reports_on(suite)
    table = Table("model", *(str(n + 1) for n in range(len(of.reports))), "spread")
    table.title = f"{of.title}: {of.columns[column or of.headline]}, as published"
    for spread in spreads(suite, column):
        values = dict(spread.values)
        cells = [f"{values[n]:.2f}" if n in values else "" for n in range(len(of.reports))]
        apart = f"{spread.high - spread.low:.2f}" if len(values) > 1 else ""
        table.add_row(spread.model, *cells, apart)
    print_table(table)
    for n, report in enumerate(of.reports):
        said = f" (read in {report.said})" if report.said else ""
        console.print(
            f"{n + 1}: {report.source}{said}, {report.date}. Judge: {report.judge}. "
            f"Changed: {report.changed}",
            highlight=False,
            markup=False,
        )
    print("spread: between reports by the same judge, or that do not say who judged")


def list_() -> None:
    """List suites and metrics."""
    from rich.table import Table

    suites = Table("suite", "what", title="suites")
    for name in names():
        suites.add_row(name, describe(name))
    metrics = Table("class_path", "range", "version", "what", title="metrics, for a metrics file")
    for path, kind in (known_metrics() | known_metrics("benchmark.judges")).items():
        about = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        low, high = kind.range
        metrics.add_row(path, f"{low:g} to {high:g}", str(kind.version), about)
    print_table(suites)
    print_table(metrics)
