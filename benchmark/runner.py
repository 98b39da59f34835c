"""Runs a suite: edits what is not yet edited, scores what is not yet scored, aggregates.

Everything computed is kept at once, so an interrupted run continues and a second run computes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmark.editing import Edits
from benchmark.item import BenchmarkError, Item
from benchmark.metrics import Metric, metrics_of
from benchmark.metrics.config import read_metrics
from benchmark.outcome import Run, RunConfig
from benchmark.pool import in_processes
from benchmark.store import ScoreStore
from benchmark.suites import AnySuite, open_suite
from benchmark.systems import Finished, System
from benchmark.worker import Done, Worker, rows_of
from shards.errors import EditVerseError
from shards.files import LOCK, exclusive, is_unused, write_json
from shards.limits import read_json


def claim(out: Path, config: RunConfig) -> None:
    """Make `out` this run's folder; raises BenchmarkError when it holds another configuration's run."""
    path = out / "config.json"
    wanted = json.loads(json.dumps(asdict(config)))
    if path.is_file():
        try:
            held = read_json(path)
        except EditVerseError:
            raise BenchmarkError(f"{path}: damaged; choose another --out or delete {out}") from None
        different = [k for k in wanted if not isinstance(held, dict) or held.get(k) != wanted[k]]
        if different and {p.name for p in out.iterdir()} - {LOCK} != {
            path.name
        }:  # a run that began to store things
            name = different[0]
            was = held.get(name) if isinstance(held, dict) else None
            raise BenchmarkError(
                f"--out {out}: holds another run ({name}: {was!r} there, {wanted[name]!r} asked for); "
                "choose another --out or delete it"
            )
        if different:
            write_json(path, wanted)
        return
    check_folder(out)
    write_json(path, wanted)


def check_folder(out: Path) -> None:
    """Raise BenchmarkError unless a run can have its folder here."""
    if out.exists() and not out.is_dir():
        raise BenchmarkError(f"--out {out}: is not a folder")
    if not is_unused(out) and not (out / "config.json").is_file():
        raise BenchmarkError(f"--out {out}: not empty and no benchmark run (no config.json); choose another")


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold a run's folder: a second run of it, or one that writes its page, is refused (InUseError)."""
    check_folder(out)  # no lock is left in what is no run's folder
    with exclusive(out, "--out"):
        yield


class Bench:
    """A run's parts, made from its configuration: in the main process, and anew in each worker's."""

    def __init__(self, config: RunConfig, out: Path, device: str | None = None) -> None:
        self.config, self.out = config, out
        self.suite: AnySuite = open_suite(config.suite, Path(config.data))
        chosen = spread_out(len(self.suite.items), config.limit)
        self.items: list[Item] = [self.suite.items[n] for n in chosen]
        self.edits = Edits(out / "edits", Path(config.checkpoint), config.edit) if config.checkpoint else None
        self.finished = [Finished(name, Path(folder)) for name, folder in config.results.items()]
        self.systems: list[System] = [*([self.edits] if self.edits else []), *self.finished]
        metrics = config.metrics or self.suite.metrics
        self.metrics: list[Metric] = (
            read_metrics(Path(metrics), config.mode, device or config.device)
            if metrics
            else metrics_of({item.task for item in self.items})
        )
        self.rows = rows_of(self.systems, self.suite.references)
        if not self.rows:
            raise BenchmarkError(
                f"--suite {config.suite}: nothing to score; give --checkpoint, or --results name=folder"
            )

    def worker(self, known: ScoreStore) -> Worker:
        """A worker that has these parts."""
        return Worker(self.out, self.systems, self.suite.references, self.metrics, known)


def execute(
    config: RunConfig,
    out: Path,
    console: Console,
    gallery: int,
    workers: int = 1,
    bench: Bench | None = None,
) -> Run:
    """Edit and score every item of the suite; results lie under `out`.

    Faults of one item or of one result leave the others alone: its scores are `Unscored` with the reason.

    Args:
        gallery: items with videos on the page at most.
        workers: processes; with more than one each loads the networks for itself.
        bench: the run's parts, if they are made already.

    Raises:
        BenchmarkError: a request that is wrong as a whole.
    """
    bench = bench or Bench(config, out)
    claim(out, config)
    store = ScoreStore(out / "scores.jsonl")
    shown = set(spread_out(len(bench.items), gallery))
    jobs = [(number, number in shown) for number in range(len(bench.items))]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    counts: Counter[str] = Counter()
    outcomes: dict[int, Any] = {}
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("edit and score" if bench.edits else "score", total=len(jobs))
        for number, done in _done(bench, store, jobs, workers):
            store.put(done.fresh)
            done.outcome.item = bench.items[number]
            outcomes[number] = done.outcome
            counts.update(scores_computed=len(done.fresh), scores_reused=done.reused)
            counts.update(videos_encoded=done.encoded, edits_made=done.made, edits_reused=done.kept)
            progress.update(bar, description=bench.items[number].id)
            progress.advance(bar)
    return Run(
        config,
        bench.suite,
        bench.metrics,
        [outcomes[number] for number in range(len(jobs))],
        bench.rows,
        bench.edits.sha256 if bench.edits else None,
        {name: counts[name] for name in COUNTED},
        [line for finished in bench.finished for line in finished.extra(bench.suite.items)],
    )


COUNTED = ("edits_made", "edits_reused", "scores_computed", "scores_reused", "videos_encoded")


def _done(
    bench: Bench, store: ScoreStore, jobs: list[tuple[int, bool]], workers: int
) -> Iterator[tuple[int, Done]]:
    if workers > 1:
        yield from in_processes(bench.config, bench.out, jobs, workers)
        return
    worker = bench.worker(store)
    for number, page in jobs:
        yield number, worker.item(bench.items[number], page)


def spread_out(count: int, most: int | None) -> list[int]:
    """Up to `most` of 0..count-1, evenly spread: items are sorted by task, so the first ones would not do."""
    chosen = count if most is None else min(count, most)
    return [n * count // chosen for n in range(chosen)]
