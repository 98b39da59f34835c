"""Serves edits on a port until it is told to end: `python -m model serve`."""

from __future__ import annotations

import logging
import tempfile
import threading
from types import FrameType

import uvicorn

from model.serving.api import create_app
from model.serving.config import ServeConfig
from model.serving.edit_queue import STAGED, EditQueue
from model.serving.work import WorkerConfig
from shards.sockets import listen, web_address

LOG = logging.getLogger(__name__)
logging.getLogger("python_multipart").setLevel(
    logging.ERROR
)  # warns of every malformed form, which we refuse


class DrainingServer(uvicorn.Server):
    """Goes on answering after the first signal until the edits that were begun are over, or a second one.

    Args:
        line: printed when the service can be reached.
    """

    def __init__(self, config: uvicorn.Config, queue: EditQueue, line: str) -> None:
        super().__init__(config)
        self.queue, self.line = queue, line

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Start, and say so."""
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            print(self.line, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take in nothing new; end when what was begun is over."""
        if self.queue.is_draining:
            self.should_exit = True
            return
        self.queue.is_draining = True
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        running, seconds = self.queue.pool.num_running, self.queue.config.grace_seconds
        if running:
            LOG.warning("ending: %d edits may go on for %g seconds; once more ends at once", running, seconds)
        if not self.queue.pool.drain(seconds):
            LOG.warning("edits that are not over go on at the next start")
        self.should_exit = True


def serve(config: ServeConfig, workers: WorkerConfig) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        EditVerseError: the folder, the tokens or the editor cannot be used.
        OSError: the address cannot be listened on.
    """
    queue = EditQueue(config, workers)
    with listen(config.host, config.port) as listener, queue.open() as facts:
        tempfile.tempdir = str(config.out / STAGED)  # where forms are held while they arrive
        address = web_address(config.host, listener.getsockname()[1])
        line = f"EditVerse serves edits at {address}/v1/edits (Ctrl-C ends it)"
        settings = uvicorn.Config(
            create_app(queue, facts),
            log_level="warning",
            http="h11",
            ws="none",
            lifespan="off",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        DrainingServer(settings, queue, line).run(sockets=[listener])
