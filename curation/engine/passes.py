"""Stage after stage over all clips, each in a fresh process: one model at a time, as on a single GPU.

Between two stages the rows lie in a file. A process that is killed costs the clip that it was at: the next
one goes on where the file ends.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from curation.core.outcome import Outcome
from curation.engine.local import end_with_parent, forkserver
from curation.engine.progress import RunProgress
from curation.engine.store import OutcomeStore
from curation.engine.task_config import RunError
from curation.engine.watchdog import Watchdog
from curation.engine.worker import ATTEMPTS, SCREEN, Job, Worker, given_up
from shards.errors import EditVerseError
from shards.files import naming
from shards.processes import background_processes, uninterrupted, work_in_background

LOOK = 0.2  # seconds between two looks at what a process has written


def run_passes(
    job: Job,
    stages: Sequence[str],
    sources: Sequence[str],
    store: OutcomeStore,
    progress: RunProgress,
    max_silence: float,
) -> Generator[Outcome, None, None]:
    """All outcomes, when they have passed the last stage."""
    before = store.folder / "sources.jsonl"
    with before.open("w") as file:
        for number, source in enumerate(sources):
            file.write(line_of([Outcome(source, number=(number, 0))], store.root))
    for place, stage in enumerate(stages):
        after = store.folder / f"{place}.jsonl"
        one = Pass(job, stage, before, store.folder / "pass.jsonl", store.root)
        try:
            with Watchdog(job.notes, max_silence) as dog, after.open("w") as rows:
                for outcome in one.outcomes():
                    dog.beat()
                    if stage == SCREEN:
                        progress.arrived(outcome)
                        outcome = store.screened(outcome)
                    if outcome.fault or stage == stages[-1]:
                        yield outcome
                    else:
                        rows.write(line_of([outcome], store.root))
        finally:
            with uninterrupted():
                one.kill()
        before.unlink()
        before = after


def line_of(outcomes: Sequence[Outcome], root: Path) -> str:
    """Outcomes as one line of a file."""
    return json.dumps([outcome.to_row(root)["outcome"] for outcome in outcomes]) + "\n"


def outcomes_of(line: str | bytes, root: Path) -> list[Outcome]:
    """Inverse of `line_of`."""
    return [Outcome.from_row({"outcome": row}, root) for row in json.loads(line)]


class Pass:
    """One stage over all rows of a file.

    Its process writes one line for each of `before` into `made`, so that the number of lines says where it
    is: the next process goes on there, and a row that killed `ATTEMPTS` of them is left out.
    """

    def __init__(self, job: Job, stage: str, before: Path, made: Path, root: Path) -> None:
        self.job, self.stage, self.before, self.made, self.root = job, stage, before, made, root
        self._process: Any = None
        self._faults: Any = None

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes of all rows as they come, in order."""
        self.made.write_bytes(b"")
        done, place, ended = 0, 0, False
        deaths, left_out = Counter[int](), set[int]()
        starts = 0  # of processes that ended before any row of theirs
        while not ended:
            self._start(done)
            over = False
            while not over:
                self._process.join(LOOK)
                over = not self._process.is_alive()  # before the look, so that nothing is missed
                for line in whole_lines(self.made, place):
                    place += len(line)
                    starts = starts if done in left_out else 0
                    done += 1
                    yield from outcomes_of(line, self.root)
            ended = self._process.exitcode == 0
            if not ended:
                with contextlib.suppress(EOFError):  # killed, which says nothing
                    raise RunError(self._faults.recv())
                os.truncate(self.made, place)  # what it was writing
                deaths[done] += 1
                starts += 1
                if starts > 2 * ATTEMPTS:
                    who = f"stage {self.stage}: its process"
                    raise RunError(f"{who} died {starts} times before any result")
                if deaths[done] >= ATTEMPTS:
                    left_out.add(done)
                    self._leave_out(done)

    def _start(self, done: int) -> None:
        context = forkserver()
        self._faults, theirs = context.Pipe(duplex=False)
        arguments = (self.job, self.stage, self.before, self.made, done, theirs)
        with background_processes():
            self._process = context.Process(target=_work, args=arguments, name=self.stage)
            self._process.start()
        theirs.close()

    def _leave_out(self, number: int) -> None:
        with self.before.open() as file:
            (outcome,) = outcomes_of(next(itertools.islice(file, number, None)), self.root)
        with self.made.open("a") as made:
            made.write(line_of([given_up(outcome, ATTEMPTS)], self.root))

    def kill(self) -> None:
        """End the process at once, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()


def whole_lines(path: Path, begin: int) -> Iterator[bytes]:
    """The lines of a file from a byte on that are complete."""
    with path.open("rb") as file:
        file.seek(begin)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield line


def _work(job: Job, stage: str, before: Path, made: Path, done: int, faults: Any) -> None:
    """What the process of a pass does: every row of `before` but the first `done`."""
    work_in_background()
    end_with_parent()
    root = job.root
    try:
        worker = Worker(job)
        with before.open() as rows, made.open("a") as out, naming(made):
            for line in itertools.islice(rows, done, None):
                (outcome,) = outcomes_of(line, root)
                out.write(line_of(worker.step(stage, outcome), root))
                out.flush()
    except (EditVerseError, OSError) as error:  # a full disk: nothing can be written any more
        faults.send(f"stage {stage}: {error}")
        os._exit(1)
