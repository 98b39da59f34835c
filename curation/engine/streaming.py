"""The run on Ray: one actor pool for each stage, between which rows stream. This is the driver's side.

Ray runs in a process of its own, since it ends its process without a word when its head is lost; the driver
then says so in one line, and keeps nothing of a run in memory.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from curation.core.outcome import Outcome
from curation.engine.local import forkserver
from curation.engine.progress import RunProgress
from curation.engine.ray_driver import StagePool, serve
from curation.engine.task_config import RunError
from curation.engine.watchdog import Watchdog
from curation.engine.worker import Job
from shards.processes import background_processes, uninterrupted

LOST = "Ray: its driver, or the head or raylet that it needs, has ended; repeat the command to go on"
PATIENCE = 20.0  # seconds for Ray to shut down
AGENTS_END = 3.0  # seconds for what Ray started to end after it
# Seconds without a result after a node was lost: where nobody works, and where somebody may.
SHORT_WAIT, LONG_WAIT = 60.0, 600.0


class Unfinished:
    """Sources of which outcomes are missing, by their numbers."""

    def __init__(self, sources: Sequence[str]) -> None:
        self.sources = dict(enumerate(sources))
        self._places: dict[int, set[int]] = {}  # clips that came of those

    def takes(self, outcome: Outcome) -> bool:
        """Whether an outcome is one that did not come before."""
        number, place = outcome.number
        if number not in self.sources or place in self._places.get(number, ()):
            return False
        places = self._places.setdefault(number, set())
        places.add(place)
        if len(places) >= max(1, outcome.siblings):
            del self.sources[number], self._places[number]
        return True


class Ray:
    """A Ray that is started once, or a cluster that is joined once, for several runs.

    Args:
        address: of the cluster to join; "" starts a Ray of this machine.
        workers: cores that a Ray of this machine is given.
    """

    def __init__(self, address: str, workers: int) -> None:
        self.address, self.workers = address, workers
        self._process: Any = None
        self._pipe: Any = None

    def run(
        self,
        job: Job,
        pools: Sequence[StagePool],
        sources: Sequence[str],
        progress: RunProgress,
        max_silence: float,
        gpus: float,
    ) -> Generator[Outcome, None, None]:
        """All outcomes as they are ready, in whatever order.

        Ray Data may wait for ever for what was on a node that is lost. Every result is kept, so that what is
        missing then is asked for once more, of a new driver.
        """
        root, unfinished = job.root, Unfinished(sources)
        finished = False
        try:
            with Watchdog(job.notes, max_silence) as dog:
                while not finished:
                    self._start()
                    self._pipe.send(("run", job, list(pools), dict(unfinished.sources), gpus))
                    finished = yield from self._outcomes(root, unfinished, progress, dog)
                    if not finished:
                        self.close()
                        progress.note("Ray: waits for what was on a lost node; what is missing is done again")
        except (BrokenPipeError, ConnectionError):
            raise RunError(LOST) from None
        finally:
            # Also when the caller stops listening (a fault, Ctrl-C): closing the generator raises at the
            # yield above. A second Ctrl-C must not leave Ray's processes behind.
            if not finished:
                self.close()

    def _outcomes(
        self, root: Path, unfinished: Unfinished, progress: RunProgress, dog: Watchdog
    ) -> Generator[Outcome, None, bool]:
        """The outcomes of one driver; returns False when a lost node has it wait or fail."""
        is_lost = False
        while True:
            message = self._receive(1.0 if is_lost else None)
            if message is None:
                if dog.silence > (LONG_WAIT if dog.sees_work() else SHORT_WAIT):
                    return False
                continue
            kind, text = message
            if kind == "done":
                return True
            if kind == "error":
                if is_lost:
                    return False
                raise RunError(f"Ray: {text}")
            if kind == "lost":
                is_lost = True
                progress.note(f"Ray: the node at {text} is lost")
            elif kind == "note":
                progress.note(text)
            else:
                dog.beat()
                outcome = Outcome.from_row({"outcome": text}, root)
                if unfinished.takes(outcome):
                    progress.arrived(outcome)
                    yield outcome

    def _receive(self, seconds: float | None) -> tuple[str, str] | None:
        """The next message; None when none comes within so many seconds."""
        try:
            if not self._pipe.poll(seconds):
                return None
            message: tuple[str, str] = self._pipe.recv()
            return message
        except EOFError:
            raise RunError(LOST) from None

    def _start(self) -> None:
        if self._process is not None and self._process.is_alive():
            return
        context = forkserver()
        self._pipe, theirs = context.Pipe()
        with background_processes():
            self._process = context.Process(target=serve, args=(theirs, self.address, self.workers))
            self._process.start()
        theirs.close()

    def close(self) -> None:
        """Shut Ray down, or leave the cluster."""
        if self._process is None:
            return
        with uninterrupted():
            started = _started_by(self._process)
            self._pipe.close()
            self._process.join(PATIENCE)
            self._process.kill()
            self._process.join()
            # A raylet that does not end within a second is killed by Ray. Its agents then look for the head,
            # which is gone as well, for up to a minute: on a busy machine they would outlive the run.
            _, left = psutil.wait_procs(started, AGENTS_END)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process = None


def _started_by(process: Any) -> list[psutil.Process]:
    """What a process started, and what those did; nothing once it has ended: its number may be another's."""
    with suppress(psutil.NoSuchProcess):
        if process.is_alive():
            return psutil.Process(process.pid).children(recursive=True)
    return []
