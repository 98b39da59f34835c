"""Which runs wait and which run in Gradio's queue, and the end of those whose client is gone.

Gradio gives a run up when its page closes (`Blocks.unload`). It works on for a client that lets go of the
stream of messages and nothing else, and for one that never asks for it; neither can see the result any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from model.app.service import EditService

if TYPE_CHECKING:
    import gradio as gr
    from gradio.queueing import Event

LOG = logging.getLogger(__name__)
GRACE = 10.0  # seconds in which the messages about a run have to be asked for
BEGINNING = 5.0  # seconds that a run may need from the queue to the editor


def waiting_runs(page: gr.Blocks) -> list[Event]:
    """Runs that wait, the next one first; `session_hash` says whose."""
    queues = list(page._queue.event_queue_per_concurrency_id.values())
    return [event for queue in queues for event in list(queue.queue) if event.fn.name == "run"]


def active_runs(page: gr.Blocks) -> list[Event]:
    """Runs that have begun, as far as Gradio still follows them."""
    jobs = [job for job in page._queue.active_jobs if job]
    return [event for job in jobs for event in job if event.fn.name == "run"]


class Audience:
    """Who listens for the results of `page`; runs, which are jobs of `desk`, end when nobody does.

    Args:
        grace: seconds that a run may be without a listener. One that was cut off is not waited for: what
            Gradio had for it is lost by then.
    """

    def __init__(self, page: gr.Blocks, desk: EditService, grace: float = GRACE) -> None:
        self.page, self.desk, self.grace = page, desk, grace
        self._listeners: Counter[str] = Counter()
        self._left: dict[str, float] = {}  # when the last listener of a session let go
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop itself keeps no reference

    @contextlib.contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """Be the stream of messages of a session."""
        self._listeners[session] += 1
        try:
            yield
        finally:
            self._listeners[session] -= 1
            if not self._listeners[session]:
                del self._listeners[session]
                self._left[session] = time.monotonic()
                self.check_later()

    def check_later(self) -> None:
        """Give up what nobody listens for when the grace is over; to be called when a run joins the queue."""
        self._behind(self._check())

    async def drop(self, session: str) -> None:
        """Take a session's waiting runs out of the queue and stop the one that has begun."""
        runs = [event for event in self._runs() if event.session_hash == session]
        if not runs:
            return
        LOG.info("a client is gone: its edits are given up")
        self.stop(session)
        await self.page._queue.clean_events(session_hash=session)
        if session not in self._listeners:
            self.page._queue.pending_messages_per_session.pop(session, None)

    def stop(self, session: str) -> None:
        """Stop the run of a session that has begun, at once or as soon as its edit is under way."""
        begun = [event for event in active_runs(self.page) if event.session_hash == session]
        if begun and not self.desk.stop(session):
            self._behind(self._stop_soon(session, begun))

    async def _stop_soon(self, session: str, begun: list[Event]) -> None:
        """Stop an edit that begins in a moment; Gradio reads what it was sent, then hands it to a thread."""
        until = time.monotonic() + BEGINNING
        while time.monotonic() < until and not self.desk.stop(session):
            newer = [event for event in self._runs() if event.session_hash == session and event not in begun]
            if newer:  # the person has begun anew
                return
            await asyncio.sleep(0.02)

    async def _check(self) -> None:
        await asyncio.sleep(self.grace + 0.05)
        now, runs = time.monotonic(), [event for event in self._runs() if event.alive]
        self._left = {event.session_hash: self._left.get(event.session_hash, 0.0) for event in runs}
        for session, left in list(self._left.items()):
            joined = max(event.enqueue_time for event in runs if event.session_hash == session)
            if session not in self._listeners and now - max(joined, left) >= self.grace:
                await self.drop(session)

    def _runs(self) -> list[Event]:
        return [*waiting_runs(self.page), *active_runs(self.page)]

    def _behind(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
