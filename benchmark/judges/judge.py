"""A vision-language model grades frames before and after an edit (EditVerseBench's sixth metric, and ours).

Nothing but an answer in the asked form becomes a score: an item of which a frame was not graded is unscored,
with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import Field

from benchmark.core.item import Mode, Reference, RunStopped, Unscored, Worded
from benchmark.metrics.base import Faults
from curation.vlm.client import Answer, ask_json, track_usage
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError
from shards.errors import EditVerseError
from shards.frames import evenly_spaced
from shards.limits import MAX_ANSWER, read_text

RUBRIC = Path(__file__).resolve().parents[1] / "prompts" / "editing.txt"
EXTRACT = (
    "Read this review and answer with its total score, a whole number from 0 to 9, and nothing else.\n\n"
)
ATTEMPTS = 3  # answers asked for until one fits; the published code asks for ever
FRAMES = 3

Reason = Annotated[str, Field(max_length=600)]
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


class Asked(Protocol):
    """A `Vlm` of the curation."""

    def ask(self, media: Sequence[np.ndarray], text: str) -> str: ...


@dataclass(frozen=True)
class Judge:
    """Mean over judged frames of a total from 0 to 9.

    `corrected` judges three frames, the first, the middle and the last, and asks for three grades as JSON by
    our rubric. `official` judges frames 0, n // 3, 2 (n // 3) ... of n, which are 3, 4 or 5 and never the
    last one where 3 divides n; swaps red and blue, as the published code does; asks for a review by the
    prompt and then, in a second call, for the total in it.

    Args:
        model: a `Vlm`, such as `curation.vlm.endpoint.Endpoint`.
        prompt: file with `{instruction}` in it; None is our rubric, which `official` cannot do without the
            published wording.
        swap: whether red and blue are; as the mode says when None.
        moments: which frames are judged, as in another mode.
        concurrency: frames that are asked about at a time.
    """

    model: Asked
    prompt: str | None = None
    concurrency: int = 3
    mode: Mode = "corrected"
    swap: bool | None = None
    moments: Mode | None = None
    name: str = "judge"
    label: str = "Judge"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 9.0)
    version: int = 2
    faults: ClassVar[Faults] = {
        "it sees red and blue swapped": {"swap": False},
        "it judges 3 to 5 frames by length, never the last of 3 k": {"moments": "corrected"},
    }
    waits: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("instruction",)

    def __post_init__(self) -> None:
        if self.mode == "official" and self.prompt is None:
            raise RunStopped(
                "judge: the official mode needs the published prompt, which is not ours to pass on: save it "
                "to a file with {instruction} where the instruction goes, and name it by `prompt`"
            )
        if "{instruction}" not in self.text:
            raise RunStopped(f"{self.prompt}: no {{instruction}} in it, where the instruction goes")

    @cached_property
    def text(self) -> str:
        """The prompt, with `{instruction}` in it."""
        path = Path(self.prompt) if self.prompt else RUBRIC
        try:
            return read_text(path, MAX_ANSWER)
        except (OSError, EditVerseError) as error:
            raise RunStopped(f"{path}: cannot be read as a prompt: {error}") from error

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        instruction = reference.prompts.get("instruction")
        if not instruction:
            return Unscored("the item has no instruction")
        chosen = judged(len(result), self.moments or self.mode)
        if isinstance(chosen, Unscored):
            return chosen
        source = reference.original if self.mode == "official" else reference.source
        if chosen[-1] >= len(source):
            return Unscored(f"frame {chosen[-1]} is judged, the source has {len(source)}")
        text = self.text.replace("{instruction}", instruction)
        grade = self._official if self.mode == "official" else self._own
        with ThreadPoolExecutor(max(1, self.concurrency)) as pool:
            asked = [pool.submit(answered, grade, (source[n], result[n]), text) for n in chosen]
            told = [future.result() for future in asked]
        usage = sum((Counter(t.usage) for t in told), Counter())
        totals = []
        for n, total in zip(chosen, told, strict=True):
            if isinstance(total, Unscored):
                return Unscored(f"frame {n}: {total.reason}", usage)
            totals.append(total)
        words = "\n".join(f"frame {n}: {t.words}" for n, t in zip(chosen, totals, strict=True))
        return Worded(float(np.mean(totals)), words, usage)

    def _own(self, pair: tuple[np.ndarray, np.ndarray], text: str) -> Worded:
        grades = ask_json(self.model, pair, text, Grades, ATTEMPTS)  # type: ignore[arg-type]
        return Worded(grades.total, grades.told())

    def _official(self, pair: tuple[np.ndarray, np.ndarray], text: str) -> Worded:
        for _ in range(ATTEMPTS):
            swapped = self.swap is not False
            review = self.model.ask([picture[..., ::-1] if swapped else picture for picture in pair], text)
            told = self.model.ask([], EXTRACT + review)
            if re.fullmatch("[0-9]", told):
                return Worded(int(told), review)
        raise AnnotatorError(f"no total in {ATTEMPTS} reviews; the last told {told[:80]!r}")


def answered(grade: Callable[..., Worded | Unscored], *asked: Any) -> Worded | Unscored:
    """What `grade(*asked)` says, with what asking took; an answer that cannot be had is a reason.

    Raises RunStopped for an endpoint that cannot be asked at all.
    """
    with track_usage() as spent:
        try:
            told = grade(*asked)
        except AnnotatorError as error:
            return Unscored(str(error), spent)
        except AssetError as error:
            raise RunStopped(f"judge: {error}") from error
    if isinstance(told, Unscored):
        return Unscored(told.reason, spent)
    return Worded(told, told.words, spent)


def judged(frames: int, mode: Mode) -> list[int] | Unscored:
    """Which frames of a result are judged."""
    if mode == "official":
        if frames < 3:
            return Unscored(f"{frames} frames: the published code cannot choose from fewer than 3")
        return list(range(0, frames, frames // 3))
    return np.unique(evenly_spaced(frames, FRAMES)).tolist()
