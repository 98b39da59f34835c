"""Stages of work side by side, in threads with bounded queues between them.

The stage in the middle, such as the sampling, stays in the caller's thread: what is set there (a device, a
counter of operations) holds, and an interrupt ends it. PyTorch, FFmpeg and OpenCV let other threads run while
they compute.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_POLL = 0.1  # seconds between looks at whether the consumer has left


class _Failure:
    """An exception on its way from a stage's thread to its consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Abandoned(Exception):
    """The stage before has failed; raised inside the stage that takes its items, so that it cleans up."""


_END = object()


def _start(work: Callable[[], None]) -> threading.Thread:
    """A running thread; what it calls knows whom it serves by the caller's context."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    thread.start()
    return thread


def prefetch(items: Iterable[T], depth: int = 1) -> Generator[T, None, None]:
    """The items of an iterable, made by a thread that is at most `depth` + 1 items ahead.

    What the iterable raises is raised here, after the items before. Closing this generator ends the thread
    once it has made the item in hand, and waits for that. A depth of 0 makes them in the caller's thread.
    """
    if not depth:
        yield from items
        return
    ready: queue.Queue[object] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: object) -> bool:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=_POLL)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    break
            else:
                put(_END)
        except BaseException as error:  # noqa: BLE001 (raised by the consumer)
            put(_Failure(error))
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = _start(work)
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()


def behind(items: Iterable[T], work: Callable[[T], R], depth: int = 1) -> Generator[R, None, None]:
    """What `work` makes of each item, by a thread that works while the caller's makes the next `depth` items.

    A depth of 0 does one after the other. What `work` raises is raised here.
    """
    if not depth:
        yield from map(work, items)
        return
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            while len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def consume(items: Iterable[T], work: Callable[[Iterator[T]], R], depth: int = 1) -> R:
    """`work(items)`, in a thread, while the caller's makes the items; at most `depth` wait between the two.

    What either raises is raised here; when the items do, or the caller is interrupted, `work` ends by an
    exception too. A depth of 0 does all in the caller's thread.
    """
    if not depth:
        return work(iter(items))
    waiting: queue.Queue[object] = queue.Queue(depth)
    results: list[R] = []
    failures: list[BaseException] = []

    def taken() -> Iterator[T]:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Abandoned):
                raise item
            yield item  # type: ignore[misc]

    def run() -> None:
        try:
            results.append(work(taken()))
        except BaseException as error:  # noqa: BLE001 (raised by the caller)
            failures.append(error)

    def put(item: object) -> None:
        while thread.is_alive():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=_POLL)
                return

    thread = _start(run)
    try:
        for item in items:
            put(item)
            if not thread.is_alive():
                break
        put(_END)
    except BaseException:
        put(_Abandoned())
        thread.join()
        raise
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
