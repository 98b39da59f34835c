"""Engines of one machine without Ray: everything in this process, or a pool of processes.

In a pool a clip passes all stages in one process, which keeps its task and what that has loaded.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from curation.core.outcome import Outcome
from curation.engine.progress import RunProgress
from curation.engine.store import OutcomeStore
from curation.engine.task_config import RunError
from curation.engine.watchdog import Watchdog
from curation.engine.worker import ATTEMPTS, Job, Worker, given_up
from shards.errors import EditVerseError
from shards.processes import background_processes, uninterrupted, work_in_background

W = TypeVar("W")
R = TypeVar("R")
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # of a process that shares the cores


def run_here(
    job: Job, sources: Sequence[str], store: OutcomeStore, progress: RunProgress
) -> Generator[Outcome, None, None]:
    """All outcomes, one after the other in this process."""
    worker = Worker(job)
    for number, source in enumerate(sources):
        for outcome in worker.cut(number, source):
            progress.cut(outcome)
            yield worker.finish(store.screened(outcome))


@dataclass(frozen=True)
class Work:
    """What is handed to a process: a file to cut, or a clip to take through the stages."""

    unit: Outcome

    @property
    def is_file(self) -> bool:
        """Whether it is a file that is still to be cut."""
        return self.unit.clip is None


def run_pool(
    job: Job,
    sources: Sequence[str],
    store: OutcomeStore,
    progress: RunProgress,
    workers: int,
    max_silence: float,
    gpus: Sequence[str] = (),
) -> Generator[Outcome, None, None]:
    """All outcomes as they are ready, from `workers` processes, each with one of `gpus` if there are any."""
    with Watchdog(job.notes, max_silence) as dog:
        pool = Pool(job, workers, gpus)
        try:
            for work, results in pool.results(_works(sources)):
                dog.beat()
                if not work.is_file:
                    yield from results
                    continue
                for outcome in results:
                    progress.cut(outcome)
                    outcome = store.screened(outcome)
                    if outcome.goes_on:
                        pool.waiting.append(Work(outcome))
                    else:
                        yield outcome
        finally:
            with uninterrupted():
                pool.kill()


def _works(sources: Sequence[str]) -> Iterator[Work]:
    return (Work(Outcome(source, number=(number, 0))) for number, source in enumerate(sources))


class Pool:
    """Processes that work on files and clips; one that is killed costs what it was at, which is tried again.

    When a process dies all of the pool end with it, and nobody knows whose work it was: what was under way
    is tried again one after the other, so that only the guilty one counts `ATTEMPTS`.
    """

    def __init__(self, job: Job, workers: int, gpus: Sequence[str] = ()) -> None:
        self.job, self.workers, self.gpus = job, workers, gpus
        self.waiting: deque[Work] = deque()  # clips, before further files are cut
        self._suspects: deque[Work] = deque()
        self._deaths: dict[tuple[bool, tuple[int, int]], int] = {}
        self._starts = 0  # of pools that ended before any result
        self._pool = self._start()

    def results(self, files: Iterator[Work]) -> Iterator[tuple[Work, list[Outcome]]]:
        """Each work with its outcomes as they are ready; what is put into `waiting` meanwhile is done too."""
        flying: dict[Future[list[Outcome]], Work] = {}
        while True:
            for work in self._next(files, len(flying)):
                flying[submitted(self._pool, _do, work)] = work
            if not flying:
                return
            lost: list[Work] = []
            for work, outcomes in finished(flying):
                if outcomes is None:
                    lost.append(work)
                else:
                    self._starts = 0
                    yield work, outcomes
            if lost:
                yield from self._recover([*lost, *flying.values()])
                flying.clear()

    def _next(self, files: Iterator[Work], flying: int) -> Iterator[Work]:
        """What is handed out now: never more than the processes take up soon."""
        if self._suspects:
            if not flying:
                yield self._suspects.popleft()
            return
        for _ in range(2 * self.workers - flying):
            work = self.waiting.popleft() if self.waiting else next(files, None)
            if work is None:
                return
            yield work

    def _recover(self, lost: list[Work]) -> Iterator[tuple[Work, list[Outcome]]]:
        """A new pool, and what is to be tried again."""
        self._starts += 1
        if self._starts > 3 * ATTEMPTS:
            raise RunError(f"the processes of the pool died {self._starts} times before any result")
        self.kill()
        self._pool = self._start()
        if len(lost) > 1:
            self._suspects.extend(lost)
            return
        (work,) = lost
        which = work.is_file, work.unit.number
        self._deaths[which] = self._deaths.get(which, 0) + 1
        if self._deaths[which] >= ATTEMPTS:
            yield work, [given_up(work.unit, ATTEMPTS)]
        else:
            self._suspects.appendleft(work)

    def _start(self) -> ProcessPoolExecutor:
        context = forkserver()
        gpus = context.SimpleQueue()
        for gpu in self.gpus:
            gpus.put(gpu)
        return ProcessPoolExecutor(
            self.workers,
            mp_context=context,
            initializer=_begin,
            initargs=(self.job, gpus if self.gpus else None),
        )

    def kill(self) -> None:
        """End the processes at once."""
        end_pool(self._pool)


def submitted(pool: ProcessPoolExecutor, do: Callable[..., R], *work: Any) -> Future[R]:
    """Hand work to a pool; the future fails with BrokenProcessPool where its processes have died since."""
    with background_processes():  # a process may be started now
        try:
            return pool.submit(do, *work)
        except BrokenProcessPool as error:
            failed: Future[R] = Future()
            failed.set_exception(error)
            return failed


def end_pool(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool at once."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.kill()  # `ProcessPoolExecutor.kill_workers` from Python 3.14 on
    pool.shutdown(wait=True, cancel_futures=True)


def finished(flying: dict[Future[R], W]) -> Iterator[tuple[W, R | None]]:
    """Wait until some work of a pool has ended, take it out of `flying`, and give it with its result.

    The result is None where the process has died; what else was in flight is lost with it.
    """
    for future in wait(flying, return_when=FIRST_COMPLETED).done:
        work = flying.pop(future)
        try:
            result = future.result()
        except BrokenProcessPool:
            yield work, None
        else:
            yield work, result


def forkserver() -> Any:
    """Starts processes that have imported the engine already; it lives as long as this process.

    So `curation all` starts its engine once, and each run has new processes with nothing loaded.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    kept = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(THREADS)
    try:
        with background_processes():
            multiprocessing.forkserver.ensure_running()  # type: ignore[attr-defined]
    finally:
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return context


def end_with_parent() -> None:
    """Let this process end when the one that it works for has ended, however that was."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


_worker: Worker | str = "no worker"  # of a process of the pool; a text says why it could not be built


def _begin(job: Job, gpus: Any) -> None:
    """Make this process's worker; with a queue of GPUs it takes one of them and sees no other."""
    global _worker
    work_in_background()
    end_with_parent()
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()
    try:
        _worker = Worker(job)
    except (EditVerseError, OSError) as error:
        _worker = str(error)


def _do(work: Work) -> list[Outcome]:
    if isinstance(_worker, str):
        return [Outcome(work.unit.file, number=work.unit.number, fault=_worker)]
    if work.is_file:
        return _worker.cut(work.unit.number[0], work.unit.file)
    return [_worker.finish(work.unit)]
