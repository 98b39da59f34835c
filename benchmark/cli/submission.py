"""Commands that hand scores in, check what others hand in, and list it: a leaderboard as a static site."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.table import Table

from benchmark.analysis import submission as submissions
from benchmark.core.item import BenchmarkError
from benchmark.report.leaderboard import write_site
from benchmark.suites import open_suite
from shards.terminal import print_table


def make(
    run: str, card: str, out: str = "submission.zip", row: str = "model", results: str | None = None
) -> None:
    """Write a submission: a row's scores, hashes of its results, and a card of the method; no videos.

    Args:
        run: output folder of the run
        card: YAML file about the method: name, base, steps, prompt_enhancer, judge, code, weights, paper
            and notes, all but the name as far as they are known
        out: a new .zip, or a new folder
        row: which row of the run's table
        results: folder of the edited files, which are hashed; the run's own if not given
    """
    made = submissions.make(Path(run), row, Path(card), Path(out), None if results is None else Path(results))
    _tell(made)
    print(f"written to {out}")


def check(submission: str, data: str | None = None, results: str | None = None) -> None:
    """Check a submission: hashes, items, ranges, and means computed again from the items.

    Args:
        submission: the zip or folder
        data: the suite's data, to compare its items with
        results: folder of the edited files, to compare their hashes with
    """
    found = submissions.check(Path(submission))  # what it is by itself comes first: its suite is needed
    if data is not None or results is not None:
        suite = None if data is None else open_suite(found.manifest.suite.name, Path(data))
        found = submissions.check(Path(submission), suite, None if results is None else Path(results))
    _tell(found)
    if data is None:
        print("not compared with the suite's items: give --data")


def leaderboard(folder: str, out: str = "site") -> None:
    """Write a leaderboard over the submissions in a folder: a static site, a page per suite.

    Args:
        folder: of submissions, each a zip or a folder
        out: folder for index.html and a page per suite
    """
    place = Path(folder)
    if not place.is_dir():
        raise BenchmarkError(f"{folder}: is no folder")
    valid, refused = [], []
    for entry in sorted(place.iterdir()):
        if entry.name.startswith(".") or not (entry.is_dir() or entry.suffix == ".zip"):
            continue
        try:
            valid.append(submissions.check(entry))
        except BenchmarkError as error:
            refused.append(str(error).replace(str(entry), entry.name))  # the site names no folders of ours
            print(f"refused: {error}", file=sys.stderr)
    if not valid:
        raise BenchmarkError(f"{folder}: holds no valid submission")
    for path in write_site(Path(out), valid, refused):
        print(path)


def _tell(found: submissions.Submission) -> None:
    suite = found.manifest.suite
    table = Table("metric", title=f"{found.manifest.card.name}: {suite.name}, version {suite.version}")
    for name in ("mean", "95 %", "scored", "failed"):
        table.add_column(name, justify="right")
    for name, mean in found.means.items():
        value = "-" if mean.value is None else f"{mean.value:.4g}"
        ends = "n/a" if mean.low is None else rf"\[{mean.low:.4g}, {mean.high:.4g}]"
        table.add_row(name, value, ends, str(mean.scored), str(mean.failed))
    print_table(table)
