"""`python -m tests.perf`: the project's benchmarks (`make perf`): prints tables, writes runs/perf/*.json.

Every file says on which machine, with which versions, at which commit and when it was measured.
"""

from __future__ import annotations

import importlib
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datetime
import importlib.metadata
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from shards.files import write_json
from tests.perf.measure import Figure

GROUPS = (
    "media",
    "shards",
    "engine",
    "metrics",
    "cost",
    "report",
    "page",
    "suite",
    "planning",
    "sharing",
    "index",
    "model",
    "editing",
    "step",
    "wan",
    "shortcuts",
    "sparse_context",
    "packing",
    "loading",
    "truth",
    "clips",
    "importing",
    "defects",
    "coverage",
    "study",
    "votes",
    "streaming",
)
PACKAGES = ("torch", "av", "opencv-python-headless", "numpy", "scipy", "jinja2")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.is_file()
        else []
    )
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "commit": subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        or "unknown",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def perf(
    only: list[str] | None = None, out: str = "runs/perf", device: str = "cpu", quick: bool = False
) -> None:
    """Measure and print.

    Args:
        only: groups to run: media, shards, engine, metrics, cost, report, page, suite, planning,
            sharing, index, model, editing, step, wan, shortcuts, sparse_context, packing, loading,
            truth, clips, importing, defects, coverage, study, votes, streaming; all when not given
        out: folder for the JSON files, one per group
        device: where the model's steps run: cpu or cuda
        quick: one short repetition of everything, to see that it runs
    """
    unknown = set(only or []) - set(GROUPS)
    if unknown:
        print(
            f"error: --only {sorted(unknown)[0]}: no such group; there are: {', '.join(GROUPS)}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    console = Console()
    console.width = max(console.width, 110)
    facts = machine() | {"device": device}
    console.print(
        f"{facts['cpu']}, {facts['cores']} cores (load {facts['load_at_start']:.1f}), {facts['system']}, "
        f"python {facts['python']}, "
        + ", ".join(f"{n} {v}" for n, v in facts["versions"].items())
        + f", commit {facts['commit']}, {facts['date']}",
        highlight=False,
    )
    for group in only or GROUPS:
        module = importlib.import_module(f"tests.perf.{group}")
        with tempfile.TemporaryDirectory() as scratch:
            figures: list[Figure] = module.measure(Path(scratch), device=device, quick=quick)
        table = Table("what", "median", "best", "unit", "rate", title=group)
        for column in table.columns[1:3]:
            column.justify = "right"
        for figure in figures:
            times = ("" if t is None else f"{t:.3g}" for t in (figure.median, figure.best))
            table.add_row(figure.what, *times, figure.unit, figure.rate)
        console.print(table)
        write_json(Path(out) / f"{group}.json", facts | {"figures": [asdict(f) for f in figures]})
    console.print(f"written to {out}")


if __name__ == "__main__":
    auto_cli(perf, prog="python -m tests.perf")
