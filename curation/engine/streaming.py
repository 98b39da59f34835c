"""The run on Ray: one actor pool for each stage, between which rows stream. This is the driver's side.

Ray runs in a process of its own, since it ends its process without a word when its head is lost; the driver
then says so in one line, and keeps nothing of a run in memory.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from curation.core.outcome import Outcome
from curation.engine.local import forkserver
from curation.engine.progress import RunProgress
from curation.engine.ray_driver import StagePool, serve
from curation.engine.task_config import RunError
from curation.engine.watchdog import Watchdog
from curation.engine.worker import Job, open_workspace
from shards.processes import background_processes, uninterrupted

LOST = "Ray: its driver, or the head or raylet that it needs, has ended; repeat the command to go on"
PATIENCE = 20.0  # seconds for Ray to shut down


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
        """All outcomes as they are ready, in whatever order."""
        self._start()
        root = open_workspace(job.workspace).local
        finished = False
        try:
            self._pipe.send(("run", job, list(pools), list(sources), gpus))
            with Watchdog(job.notes, max_silence) as dog:
                while (message := self._receive())[0] != "done":
                    kind, text = message
                    if kind == "error":
                        raise RunError(f"Ray: {text}")
                    if kind == "note":
                        progress.note(text)
                        continue
                    dog.beat()
                    outcome = Outcome.from_row({"outcome": text}, root)
                    progress.arrived(outcome)
                    yield outcome
            finished = True
        except (BrokenPipeError, ConnectionError):
            raise RunError(LOST) from None
        finally:
            # Also when the caller stops listening (a fault, Ctrl-C): closing the generator raises at the
            # yield above. A second Ctrl-C must not leave Ray's processes behind.
            if not finished:
                self.close()

    def _receive(self) -> tuple[str, str]:
        try:
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
            self._pipe.close()
            self._process.join(PATIENCE)
            self._process.kill()
            self._process.join()
        self._process = None
