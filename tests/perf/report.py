"""The benchmark's command without a model: a first run, a second run that reuses all, and the page alone.

Three held-out pairs of 17 frames at 320x240.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

from benchmark.evaluation.results import Run, RunConfig
from benchmark.evaluation.runner import execute
from benchmark.report.html import write_report
from shards.writer import write_shards
from tests.perf.measure import Figure, per, timed
from tests.perf.shards import make_items


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Time scoring and the page."""
    count = 2 if quick else 4
    write_shards(scratch / "shards", make_items(scratch / "media", count, heldout=count - 1))
    config = RunConfig("heldout", str(scratch / "shards"), None)
    out, console = scratch / "out", Console(quiet=True)

    def first() -> None:
        shutil.rmtree(out, ignore_errors=True)
        again()

    def again() -> Run:
        return execute(config, out, console, gallery=count)

    figures = [per("run, nothing stored", timed(first, quick), count - 1, "item")]
    figures.append(per("run, all stored", timed(again, quick), count - 1, "item"))
    run = again()
    page = out / "report.html"
    seconds = timed(lambda: write_report(page, run, [], {}), quick)
    megabytes = page.stat().st_size / 1e6
    figures.append(per("write the page", seconds, 1, "page", f"{megabytes:.3g} MB"))
    return figures
