"""Has every editor of a run edit what it has not edited yet, one after the other, before any scoring.

So one editor's weights are in memory at a time, and none beside the metrics' networks.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from benchmark.core.item import BenchmarkError, RunStopped, Unscored
from benchmark.core.progress import bars
from benchmark.evaluation.setup import Evaluation
from benchmark.evaluation.worker_pool import evaluation_here, in_processes
from benchmark.systems.results_folder import Result
from shards.files import sweep_temporaries


def make_edits(bench: Evaluation, console: Console, workers: int = 1, retry: bool = True) -> int:
    """Make what is missing; failures are kept, and are the reasons of the scores. Returns the number made.

    Args:
        workers: processes, each with the editor's weights, spread over the GPUs.
        retry: edits that failed in a run before are tried again.

    Raises:
        RunStopped: an editor can edit nothing at all.
    """
    count = 0
    if bench.makers:
        sweep_temporaries(bench.out / "edits")
    with bars(console) as progress:
        for place, system in enumerate(bench.makers):
            waiting = list(_waiting(bench, place, retry))
            bar = progress.add_task(f"edit: {system.rows[0]}", total=len(waiting))
            for _, made in _made(bench, place, waiting, min(workers, len(waiting))):
                count += isinstance(made, Result)
                progress.advance(bar)
            system.release()
    return count


def _waiting(bench: Evaluation, place: int, retry: bool) -> Iterator[int]:
    """The items that an editor has yet to edit; damaged facts of an edit are said with its scores."""
    system = bench.makers[place]
    for number, item in enumerate(bench.items):
        if item.fault:
            continue
        try:
            if system.stored(item) is not None:
                continue
            if retry:
                system.forget_failure(item)
            if system.failure(item) is None:
                yield number
        except BenchmarkError:
            continue


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
