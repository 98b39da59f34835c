"""What is asked of a vision-language model, and how its answers are checked."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from curation.vlm.interface import AnnotatorError, NoAnswerError, Rating, Vlm
from shards.errors import EditVerseError
from shards.frames import evenly_spaced
from shards.limits import MAX_ANSWER, parse_json

LEAST_MASS = 0.01  # probability of all grades together, below which an answer is none
REFUSALS = ("i'm sorry", "i am sorry", "i cannot", "i can't", "as an ai", "unable to")


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    if not text:
        raise ValueError("is empty")
    if len(text) > 600:
        raise ValueError("is longer than 600 characters")
    if set("<>{}") & set(text):
        raise ValueError("holds one of < > { }, which are kept for media tags")
    if text.lower().startswith(REFUSALS):
        raise ValueError("is a refusal")
    return text


Sentence = Annotated[str, AfterValidator(_sentence)]


_spent: ContextVar[Counter[str] | None] = ContextVar("spent", default=None)


@contextlib.contextmanager
def track_usage() -> Iterator[Counter[str]]:
    """Counts what is asked inside: `requests`, and the tokens that endpoints tell of."""
    counted: Counter[str] = Counter()
    token = _spent.set(counted)
    try:
        yield counted
    finally:
        _spent.reset(token)


def spend(**amounts: int) -> None:
    """Add to what is counted, if anybody counts."""
    counted = _spent.get()
    if counted is not None:
        counted.update(amounts)


class Answer(BaseModel):
    """Base of the answers: no other fields than those that were asked for."""

    model_config = ConfigDict(extra="forbid")


A = TypeVar("A", bound=Answer)


def ask_json(vlm: Vlm, media: Sequence[np.ndarray], prompt: str, kind: type[A], attempts: int = 3) -> A:
    """A checked answer. An answer that does not fit is asked for again, with what was wrong with it.

    Raises AnnotatorError after `attempts` answers that did not fit, were empty or refused, and at once when
    the model fails otherwise.
    """
    fields = ", ".join(f'"{name}"' for name in kind.model_fields)
    asked, wrong = f"{prompt}\nAnswer with one JSON object with the fields {fields}, and nothing else.", ""
    told = ""
    for _ in range(attempts):
        text = asked + (f"\nYour last answer {wrong}." if wrong else "")
        try:
            if getattr(vlm, "structured", False):
                told = vlm.ask(media, text, schema=kind.model_json_schema())  # type: ignore[call-arg]
            else:
                told = vlm.ask(media, text)
            return kind.model_validate(object_in(told))
        except NoAnswerError:
            told, wrong = "", "was empty or a refusal"
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))[:80]
            wrong = f"was wrong in {where!r}: {first['msg'][:200]}"
        except ValueError as error:
            wrong = str(error)
    said = f"no usable answer in {attempts} attempts; the last {wrong}"
    raise AnnotatorError(f"{vlm.describe().model}: {said}" + (f": {told[:120]!r}" if told else ""))


def ask_grade(
    vlm: Vlm,
    media: Sequence[np.ndarray],
    text: str,
    *,
    system: str = "",
    times: Sequence[Sequence[float]] = (),
    attempts: int = 3,
) -> Rating:
    """A grade from 0 to 10; a model that says something else is asked again, `attempts` times in all.

    Raises AnnotatorError after the last, and at once when the model fails otherwise; never 0 for no grade.
    """
    asked, wrong = text, ""
    for _ in range(attempts):
        try:
            return vlm.rate(media, asked, system=system, times=times)
        except NoAnswerError as error:
            wrong = str(error)
            asked = f"{text}\nYour last answer held no grade. Answer with one number from 0 to 10 alone."
    raise AnnotatorError(f"{wrong} ({attempts} attempts)")


def object_in(text: str) -> object:
    """The JSON object in an answer, bare or with words or a code fence around it; of several the last.

    Raises ValueError if there is none.
    """
    if len(text) > MAX_ANSWER:
        raise ValueError(f"held {len(text)} characters")
    stop = text.rfind("}") + 1
    for candidate in (text, text[text.find("{") : stop], text[max(0, text.rfind("{", 0, stop)) : stop]):
        try:
            value: Any = parse_json(candidate, "the answer")
        except EditVerseError:  # nested too deep, or no JSON
            continue
        if isinstance(value, dict):
            return value
    raise ValueError("held no JSON object")


def sampled(count: int, most: int) -> np.ndarray:
    """Numbers of at most `most` frames, evenly over all `count`, the first and the last among them."""
    return np.unique(evenly_spaced(count, min(count, most)))


def expected(weights: np.ndarray, who: str = "") -> Rating:
    """The mean grade and its entropy from the probabilities [11] of the grades 0 to 10.

    Raises NoAnswerError where all grades together are less likely than `LEAST_MASS`: the model is about to
    say something else, and what is left is no opinion. `who` begins that line: the model and its word.
    """
    total = float(weights.sum())
    if not np.isfinite(total) or total < LEAST_MASS:
        raise NoAnswerError(
            f"{who or 'the answer'} is no grade: all grades together have probability {total:.2g}"
        )
    shares = weights / total
    entropy = float(-(shares * np.log(np.maximum(shares, 1e-12))).sum())
    return Rating(float(shares @ np.arange(11)), entropy, str(int(shares.argmax())))
