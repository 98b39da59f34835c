"""Has every editor of a run edit what it has not edited yet, one after the other, before any scoring.

So one editor's weights are in memory at a time, and none beside the metrics' networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console

from benchmark.core.item import BenchmarkError, RunStopped, Unscored
from benchmark.core.progress import bars
from benchmark.evaluation.setup import Evaluation
from benchmark.evaluation.worker_pool import evaluation_here, in_processes
from benchmark.systems.results_folder import Result
from shards.files import sweep_temporaries


@dataclass(frozen=True)
class Edits:
    """What came of the edits of a run.

    Attributes:
        made: just now; reused: those that were there.
        stopped: why no further edit can be made, naming the editor; None where all were tried.
    """

    made: int
    reused: int
    stopped: RunStopped | None = None


def make_edits(bench: Evaluation, console: Console, workers: int = 1, retry: int = 0) -> Edits:
    """Make what is missing; failures are kept, and are the reasons of the scores.

    Args:
        workers: processes, each with the editor's weights, spread over the GPUs.
        retry: how often an edit that failed is tried again, over all runs.
    """
    count = reused = 0
    if bench.makers:
        sweep_temporaries(bench.out / "edits")
    with bars(console) as progress:
        for place, system in enumerate(bench.makers):
            kept, waiting = _sorted(bench, place, retry)
            reused += len(kept)
            bar = progress.add_task(f"edit: {system.rows[0]}", total=len(waiting))
            try:
                for _, made in _made(bench, place, waiting, min(workers, len(waiting))):
                    count += isinstance(made, Result)
                    progress.advance(bar)
            except RunStopped as error:
                return Edits(count, reused, RunStopped(f"{system.rows[0]}: {error}"))
            finally:
                system.release()
    return Edits(count, reused)


def with_edits(bench: Evaluation) -> list[int]:
    """The numbers of the items that an editor of the run has edited."""
    kept = [_sorted(bench, place, 0)[0] for place in range(len(bench.makers))]
    return sorted(set().union(*kept))


def _sorted(bench: Evaluation, place: int, retry: int) -> tuple[list[int], list[int]]:
    """(items that an editor has edited, items that it has yet to edit), by number.

    Damaged facts of an edit are said with its scores.
    """
    system, kept, waiting = bench.makers[place], list[int](), list[int]()
    for number, item in enumerate(bench.items):
        if item.fault:
            continue
        try:
            if system.stored(item) is not None:
                kept.append(number)
            elif system.failures(item) <= retry:
                waiting.append(number)
        except BenchmarkError:
            continue
    return kept, waiting


def _made(
    bench: Evaluation, place: int, waiting: list[int], workers: int
) -> Iterator[tuple[int, Result | Unscored]]:
    if workers > 1:
        yield from in_processes(
            bench.config, bench.out, [(number, place) for number in waiting], workers, work=edit_item
        )
        return
    for number in waiting:
        yield number, edit_of(bench, number, place)


def edit_item(number: int, place: int) -> Result | Unscored:
    """In a worker process: one edit by the editor at a place of `Evaluation.makers`."""
    return edit_of(evaluation_here(), number, place)


def edit_of(bench: Evaluation, number: int, place: int) -> Result | Unscored:
    """An edit, or why there is none: a source that cannot be read is said again where it is scored."""
    item = bench.items[number]
    try:
        return bench.makers[place].make(item, item.load)
    except RunStopped:
        raise
    except BenchmarkError as error:
        return Unscored(str(error))
