"""Worker processes and the edits that wait for them; a worker that dies is started again."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from model.serving.work import EditorFacts, Listener, Outcome, Work, WorkerConfig
from model.serving.worker import CANCEL, EDIT, PROGRESS, READY, run_worker
from shards.errors import ConfigError
from shards.processes import background_processes

LOG = logging.getLogger(__name__)
MAX_TRIES = 2  # an edit whose worker dies is begun once more
MAX_PAUSE = 60.0  # seconds before a worker that cannot load its editor tries again
LOOK = 0.2  # seconds between two looks at whether a worker lives
END = 5.0  # seconds that a worker's process has to end, or to give up an edit that took too long


class WorkerDiedError(Exception):
    """A worker's process has ended; the message says how."""


@dataclass
class Slot:
    """One worker's place: its process, what it is at, and how often it was started again."""

    number: int
    device: str
    process: Any = None
    connection: Connection | None = None
    ready: bool = False
    work: Work | None = None
    sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, kind: str, content: Any) -> None:
        """Send the worker a message; WorkerDiedError where it has gone."""
        try:
            with self.sending:
                assert self.connection is not None
                self.connection.send((kind, content))
        except OSError:
            raise WorkerDiedError(self.death()) from None

    def death(self) -> str:
        """How the process ended."""
        self.process.join(END)
        code = self.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"status {code}"
        return f"worker {self.number} on {self.device} ended with {how}"


class WorkerPool:
    """Workers that take edits in the order in which they were submitted.

    May be used from several threads. Every edit that was submitted is `finished` once, unless the pool is
    closed before.

    Args:
        config: of the workers.
        listener: hears what becomes of the edits.
        most: workers that there is work for.
        edit_timeout: seconds that a worker may be at an edit, 0 for ever. What takes longer has failed: its
            worker gives it up between two solver steps, or is ended.
    """

    def __init__(
        self, config: WorkerConfig, listener: Listener, most: int | None = None, edit_timeout: float = 0
    ) -> None:
        self.config, self.listener, self.edit_timeout = config, listener, edit_timeout
        self.slots = [Slot(number, device) for number, device in enumerate(config.devices()[:most])]
        self.restarts = 0
        self.facts: EditorFacts | None = None
        self._threads = max(1, (os.cpu_count() or 1) // len(self.slots))
        self._waiting: deque[Work] = deque()
        self._tries: Counter[str] = Counter()
        self._cancelled: set[str] = set()
        self._changed = threading.Condition()
        self._paused = self._closed = False
        self._failure: str | None = None
        self._supervisors: list[threading.Thread] = []

    def start(self) -> EditorFacts:
        """Start the workers and wait for the first editor to be loaded.

        Raises:
            ConfigError: the editor cannot be loaded.
        """
        with background_processes():
            for slot in self.slots:
                self._spawn(slot)
        for slot in self.slots:
            thread = threading.Thread(target=self._supervise, args=(slot,), daemon=True)
            self._supervisors.append(thread)
            thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self.facts is not None or self._failure is not None)
            if self.facts is not None:
                return self.facts
        self.close()
        raise ConfigError(self._failure)

    def submit(self, work: Work) -> None:
        """Put an edit behind the others."""
        with self._changed:
            self._waiting.append(work)
            self._changed.notify()

    def cancel(self, id: str) -> bool:
        """Give an edit up: at once if it waits, else between two solver steps; whether it was there."""
        with self._changed:
            waiting = next((work for work in self._waiting if work.id == id), None)
            if waiting is not None:
                self._waiting.remove(waiting)
                self._tries.pop(id, None)
            slot = next((s for s in self.slots if s.work is not None and s.work.id == id), None)
            if slot is not None:
                self._cancelled.add(id)
        if waiting is not None:
            self.listener.finished(id, Outcome("cancelled", "cancelled before it was begun"))
        if slot is not None:
            with contextlib.suppress(WorkerDiedError):  # its supervisor sees to that
                slot.send(CANCEL, id)
        return waiting is not None or slot is not None

    def position(self, id: str) -> int | None:
        """How many edits are begun before this one, itself counted; None where it does not wait."""
        with self._changed:
            return next((n for n, work in enumerate(self._waiting, 1) if work.id == id), None)

    @property
    def num_waiting(self) -> int:
        """Edits that no worker has begun."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Edits that workers are at."""
        return sum(slot.work is not None for slot in self.slots)

    @property
    def num_ready(self) -> int:
        """Workers whose editor is loaded."""
        return sum(slot.ready for slot in self.slots)

    def drain(self, seconds: float) -> bool:
        """Begin no more edits, and wait until those that were begun are over; whether they are."""
        with self._changed:
            self._paused = True
            return self._changed.wait_for(lambda: not self.num_running, seconds)

    def wait(self, seconds: float) -> bool:
        """Wait until nothing waits and nothing is made, but not for longer; whether it is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self.num_running, seconds)

    def close(self) -> None:
        """End the workers, whatever they are at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for slot in self.slots:
            if slot.process is not None:
                slot.process.kill()
        for thread in self._supervisors:
            if thread is not threading.current_thread():
                thread.join(2 * END)

    # A worker's supervisor, a thread.

    def _spawn(self, slot: Slot) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA cannot be used in a fork
        ours, theirs = context.Pipe()
        arguments = (theirs, self.config, slot.device, self._threads)
        slot.process = context.Process(target=run_worker, args=arguments, daemon=True)
        slot.process.start()
        theirs.close()  # else its end would not be seen here
        slot.connection = ours

    def _supervise(self, slot: Slot) -> None:
        failures = 0
        while not self._closed:
            try:
                self._load(slot)
                failures = 0
                while (work := self._take(slot)) is not None:
                    self._run(slot, work)
            except (WorkerDiedError, ConfigError) as error:
                if self._closed or (self.facts is None and self._failure is not None):
                    break  # the pool is not started
                LOG.warning("%s; it is started again", error)
                failures += not slot.ready
                if self.facts is None and failures == MAX_TRIES:
                    self._fail(str(error))
                    break
            self._end_process(slot)
            if failures:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, min(MAX_PAUSE, 2.0**failures))
            self.restarts += 1
            if not self._closed:
                self._spawn(slot)
        self._end_process(slot)

    def _end_process(self, slot: Slot) -> None:
        slot.ready = False
        slot.process.kill()
        slot.process.join(END)

    def _load(self, slot: Slot) -> None:
        """Wait for a worker's editor."""
        message = self._receive(slot)
        assert message is not None  # there is no deadline
        kind, content = message
        with self._changed:
            if kind == READY:
                self.facts, slot.ready = content, True
            self._changed.notify_all()
        if kind != READY:
            if self.facts is None:
                self._fail(content)
            raise ConfigError(content)

    def _fail(self, line: str) -> None:
        """Give up before the first editor is loaded."""
        with self._changed:
            self._failure = line
            self._changed.notify_all()

    def _take(self, slot: Slot) -> Work | None:
        """The next edit, once there is one; None when the pool is closed."""
        with self._changed:
            while not self._closed:
                if not slot.process.is_alive():
                    raise WorkerDiedError(slot.death())
                if self._waiting and not self._paused:
                    slot.work = self._waiting.popleft()
                    return slot.work
                self._changed.wait(LOOK)
        return None

    def _run(self, slot: Slot, work: Work) -> None:
        """Have a worker make an edit; one whose worker dies goes back to the head of the queue, once."""
        self._tries[work.id] += 1
        self.listener.started(work.id)
        began = time.monotonic()
        deadline, is_late = began + (self.edit_timeout or math.inf), False

        def too_long() -> Outcome:
            line = f"took longer than the {self.edit_timeout:g} s that an edit may take here (--edit_timeout)"
            return Outcome("failed", line, time.monotonic() - began)

        try:
            slot.send(EDIT, work)
            while True:
                message = self._receive(slot, deadline)
                if message is None and is_late:
                    slot.process.kill()
                    raise WorkerDiedError(f"worker {slot.number} on {slot.device} did not give up an edit")
                if message is None:
                    deadline, is_late = deadline + END, True
                    slot.send(CANCEL, work.id)
                    continue
                kind, content = message
                if kind != PROGRESS:
                    given_up = is_late and content.state == "cancelled" and work.id not in self._cancelled
                    self._end(slot, work, too_long() if given_up else content)
                    return
                self.listener.progressed(work.id, *content)
        except WorkerDiedError as error:
            if self._closed:
                raise
            if work.id in self._cancelled:
                self._end(slot, work, Outcome("cancelled", "cancelled while it was made"))
            elif is_late:
                self._end(slot, work, too_long())
            elif self._tries[work.id] < MAX_TRIES:
                self.listener.put_back(work.id, f"{error} while it made this edit, which is begun once more")
                with self._changed:
                    self._waiting.appendleft(work)
                    slot.work = None
                    self._changed.notify_all()
            else:
                line = f"{error} while it made this edit, the second time: there may be too little memory"
                self._end(slot, work, Outcome("failed", line))
            raise

    def _end(self, slot: Slot, work: Work, outcome: Outcome) -> None:
        # told before the slot is free, so that whoever waits for the pool knows all outcomes
        self.listener.finished(work.id, outcome)
        with self._changed:
            slot.work = None
            self._cancelled.discard(work.id)
            self._tries.pop(work.id, None)
            self._changed.notify_all()

    def _receive(self, slot: Slot, deadline: float = math.inf) -> tuple[str, Any] | None:
        """A worker's next message; None where the time, as of `time.monotonic`, passes without one."""
        assert slot.connection is not None
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:  # also where messages go on coming
                    return None
                if slot.connection.poll(min(LOOK, left)):
                    break
                if self._closed:
                    raise WorkerDiedError("the pool is closed")
            message: tuple[str, Any] = slot.connection.recv()
        except (EOFError, OSError):
            raise WorkerDiedError(slot.death()) from None
        return message
