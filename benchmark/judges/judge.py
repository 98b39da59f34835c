"""A vision-language model grades frames before and after an edit (EditVerseBench's sixth metric, and ours).

Nothing but an answer in the asked form becomes a score: an item of which a frame was not graded is unscored,
with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from benchmark.core.item import Mode, Reference, RunStopped, Unscored, Worded
from benchmark.judges.asking import ATTEMPTS, Asked, answered, in_threads, repeated
from benchmark.judges.wording import PROMPTS, Reason, filled, read_prompt
from benchmark.metrics.base import Faults
from curation.vlm.client import Answer, ask_json
from curation.vlm.endpoint import Endpoint
from curation.vlm.interface import AnnotatorError
from curation.vlm.plain_requests import complete, data_url, respond
from shards.frames import evenly_spaced

RUBRIC = PROMPTS / "editing.txt"
FRAMES = 3
Grade = Annotated[int, Field(ge=0, le=3, strict=True)]


class Grades(Answer):
    """What `corrected` asks for."""

    instruction: Grade
    preservation: Grade
    quality: Grade
    reason: Reason = ""

    def told(self) -> str:
        """Grades and reason, for a reader."""
        grades = f"instruction {self.instruction}, preservation {self.preservation}, quality {self.quality}"
        return f"{grades}. {self.reason}" if self.reason else grades

    @property
    def total(self) -> int:
        """0 to 9; summed here, not by the model."""
        return self.instruction + self.preservation + self.quality


@dataclass(frozen=True)
class Judge:
    """Mean over judged frames of a total from 0 to 9.

    `corrected` judges three frames, the first, the middle and the last, and asks for three grades as JSON by
    our rubric. `official` judges frames 0, n // 3, 2 (n // 3) ... of n, which are 3, 4 or 5 and never the
    last one where 3 divides n; swaps red and blue, as the published code does; asks for a review by the
    prompt, into which the instruction goes with its tags, and then, in a second call, for the total in it.
    Its requests are the published ones (adobe-research/EditVerse, automatic_evaluation): the Responses API,
    the words before the pictures, OpenCV's JPEG files of quality 95, temperature 0, no limit of tokens.

    Args:
        model: a `Vlm`, such as `curation.vlm.endpoint.Endpoint`.
        prompt: file with `{instruction}` in it; None is our rubric, which `official` cannot do without the
            published wording.
        extract: file of the second call's wording with `{review}` in it, for `official`.
        swap: whether red and blue are; as the mode says when None.
        moments: which frames are judged, as in another mode.
        concurrency: frames that are asked about at a time.
        repeats: how often all is asked; the score is the mean.
        api: that `official` uses; `chat` is for an endpoint without the Responses API.
    """

    model: Asked
    prompt: str | None = None
    extract: str | None = None
    concurrency: int = 3
    mode: Mode = "corrected"
    swap: bool | None = None
    moments: Mode | None = None
    repeats: int = 1
    api: Literal["responses", "chat"] = "responses"
    name: str = "judge"
    label: str = "Judge"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 9.0)
    version: int = 3
    faults: ClassVar[Faults] = {
        "it sees red and blue swapped": {"swap": False},
        "it judges 3 to 5 frames by length, never the last of 3 k": {"moments": "corrected"},
    }
    unlike_published: ClassVar[tuple[str, ...]] = (
        f"a total is asked for {ATTEMPTS} times at most; the published code asks for ever",
    )
    waits: ClassVar[bool] = True
    needs_source: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.mode == "official" and (self.prompt is None or self.extract is None):
            name, place = ("prompt", "{instruction}") if self.prompt is None else ("extract", "{review}")
            raise RunStopped(
                "judge: the official mode needs the published prompts of both calls, which are not ours to "
                f"pass on: save the {'first' if name == 'prompt' else 'second'} to a file with {place} where "
                f"it goes, and name it by `{name}`"
            )
        if self.repeats < 1:
            raise RunStopped(f"judge: repeats {self.repeats}: needs at least 1")
        filled(self.prompt, self.text, "instruction")
        if self.mode == "official":
            filled(self.extract, self.second, "review")

    @property
    def reads(self) -> tuple[str, ...]:
        """Words of the item that the score depends on: with tags where the published code sends them."""
        return ("text",) if self.mode == "official" else ("instruction",)

    @cached_property
    def text(self) -> str:
        """The prompt, with `{instruction}` in it."""
        return read_prompt(self.prompt or RUBRIC)

    @cached_property
    def second(self) -> str:
        """The second call's prompt, with `{review}` in it; the published one ends without a new line."""
        return read_prompt(self.extract or "").removesuffix("\n")

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        official = self.mode == "official"
        words = reference.prompts.get("text", "") if official else ""
        instruction = words or reference.prompts.get("instruction")
        if not instruction:
            return Unscored("the item has no instruction")
        chosen = judged(len(result), self.moments or self.mode)
        if isinstance(chosen, Unscored):
            return chosen
        source = reference.original if official else reference.source
        if chosen[-1] >= len(source):
            return Unscored(f"frame {chosen[-1]} is judged, the source has {len(source)}")
        text = self.text.replace("{instruction}", instruction)
        return repeated(self.repeats, partial(self._judged, source, result, chosen, text))

    def _judged(
        self, source: np.ndarray, result: np.ndarray, chosen: list[int], text: str
    ) -> Worded | Unscored:
        """The mean over frames, with what asking for all took."""
        grade = self._official if self.mode == "official" else self._own
        jobs = [partial(answered, grade, (source[n], result[n]), text, frame=n) for n in chosen]
        told = in_threads(jobs, self.concurrency)
        usage = sum((Counter(t.usage) for t in told), Counter())
        totals = []
        for n, total in zip(chosen, told, strict=True):
            if isinstance(total, Unscored):
                return Unscored(f"frame {n}: {total.reason}", usage, total.retry, total.kind)
            totals.append(total)
        words = "\n".join(f"frame {n}: {t.words}" for n, t in zip(chosen, totals, strict=True))
        return Worded(float(np.mean(totals)), words, usage)

    def _own(self, pair: tuple[np.ndarray, np.ndarray], text: str) -> Worded:
        grades = ask_json(self.model, pair, text, Grades, ATTEMPTS)  # type: ignore[arg-type]
        return Worded(grades.total, grades.told())

    def _official(self, pair: tuple[np.ndarray, np.ndarray], text: str) -> Worded:
        swapped = self.swap is not False
        told = ""
        for _ in range(ATTEMPTS):
            review = self._plainly([picture[..., ::-1] if swapped else picture for picture in pair], text)
            told = self._plainly([], self.second.replace("{review}", review))
            if re.fullmatch("[0-9]", told):
                return Worded(int(told), review)
        raise AnnotatorError(f"no total in {ATTEMPTS} reviews; the last told {told[:80]!r}", "answer")

    def _plainly(self, pictures: list[np.ndarray], text: str) -> str:
        """An answer to a question in the published form; a model that is no endpoint has but one form."""
        if not isinstance(self.model, Endpoint):
            return self.model.ask(pictures, text)
        ask = respond if self.api == "responses" else complete
        return ask(self.model, text, [data_url(_jpeg(picture), "image/jpeg") for picture in pictures])


def _jpeg(picture: np.ndarray) -> bytes:
    """A JPEG file of an RGB picture, as OpenCV writes one when nothing else is asked for: quality 95."""
    import cv2

    whole, held = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]))
    assert whole
    return held.tobytes()


def judged(frames: int, mode: Mode) -> list[int] | Unscored:
    """Which frames of a result are judged."""
    if mode == "official":
        if frames < 3:
            return Unscored(f"{frames} frames: the published code cannot choose from fewer than 3")
        return list(range(0, frames, frames // 3))
    return np.unique(evenly_spaced(frames, FRAMES)).tolist()
