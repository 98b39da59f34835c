"""How a judge asks: with a reason where there is no answer, several things at once, several times over."""

from __future__ import annotations

import contextvars
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from benchmark.core.item import RunStopped, Unscored, Worded
from curation.vlm.client import track_usage
from curation.vlm.errors import AssetError
from curation.vlm.exchange import asking
from curation.vlm.interface import AnnotatorError

ATTEMPTS = 3  # answers asked for until one fits; published programs ask for ever

T = TypeVar("T")


class Asked(Protocol):
    """A `Vlm` of the curation."""

    def ask(self, media: Sequence[np.ndarray], text: str) -> str: ...


def answered(grade: Callable[..., Worded | Unscored], *asked: Any, **about: Any) -> Worded | Unscored:
    """What `grade(*asked)` says, with what asking took; an answer that cannot be had is a reason.

    A failure is one that a later run asks again, and the answers that led to it are not taken from the log
    then (`benchmark.judges.answer_log`).

    Args:
        about: what the log says of the requests, such as `frame`.

    Raises:
        RunStopped: the endpoint cannot be asked at all.
    """
    with track_usage() as spent, asking(**about) as question:
        try:
            told = grade(*asked)
        except AnnotatorError as error:
            question.reject()
            return Unscored(str(error), spent, retry=True, kind=error.kind or question.failed or "answer")
        except AssetError as error:
            raise RunStopped(f"judge: {error}") from error
        if isinstance(told, Unscored):
            if told.retry:
                question.reject()
            return Unscored(told.reason, spent, told.retry, told.kind)
    return Worded(told, told.words, spent)


def in_threads(jobs: Iterable[Callable[[], T]], most: int) -> list[T]:
    """What all jobs give, at most so many at a time; what they ask belongs to the question outside."""
    with ThreadPoolExecutor(max(1, most)) as pool:
        # a context cannot be entered twice at a time: each job has a copy
        asked = [pool.submit(contextvars.copy_context().run, job) for job in jobs]
        return [future.result() for future in asked]


def repeated(times: int, judge: Callable[[], Worded | Unscored]) -> Worded | Unscored:
    """The mean of what `judge()` says, asked so many times, each with answers of its own.

    The score has the single values (`Worded.repeats`) where there are several. It is unscored when one is:
    the others need no new request when it is asked again.
    """
    if times == 1:
        return judge()
    told = []
    for number in range(times):
        with asking(repeat=number):
            told.append(judge())
    usage = sum((Counter(t.usage) for t in told), Counter())
    scores = []
    for number, one in enumerate(told, 1):
        if isinstance(one, Unscored):
            return Unscored(f"time {number} of {times}: {one.reason}", usage, one.retry, one.kind)
        scores.append(one)
    values = tuple(float(s) for s in scores)
    words = "\n".join(f"time {n}, {s:g}: {s.words}" for n, s in enumerate(scores, 1))
    return Worded(float(np.mean(values)), words, usage, values)
