"""FiVE-Bench's judge: is what was asked for in the edited video? Questions that come with every item.

Yes or no: a question about the source's object, to be answered no, and one about the target's, to be answered
yes. Multiple choice: the second of two answers is the target's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from benchmark.core.item import Mode, Reference, RunStopped, Unscored, Worded
from benchmark.judges.asking import ATTEMPTS, Asked, answered
from benchmark.judges.wording import read_prompts
from curation.vlm.client import Answer, ask_json
from shards.frames import evenly_spaced

FRAMES = 4


class YesNo(Answer):
    """What `corrected` asks for."""

    answer: Literal["yes", "no"]


class Choice(Answer):
    """What `corrected` asks for where there are two answers."""

    answer: Literal["a", "b"]


@dataclass(frozen=True)
class FiveAcc:
    """1 for a right answer, 0 for a wrong one.

    `corrected` shows four frames, evenly over the video, and asks for JSON. `official` asks by the published
    templates and reads the first letters of the answer; it shows frames at the stride n // (n // 4), which is
    every fourth or so and not four of them.

    Args:
        of: `yn`, both yes-or-no questions right, or `mc`, the multiple choice.
        prompts: JSON file of the published templates, `yn` and `mc`, with {question} in them.
    """

    model: Asked
    of: Literal["yn", "mc"]
    prompts: str | None = None
    mode: Mode = "corrected"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    version: int = 1
    waits: ClassVar[bool] = True
    needs_source: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ("choice", "source_question", "target_question")

    def __post_init__(self) -> None:
        if self.of not in ("yn", "mc"):
            raise RunStopped(f"five_acc: {self.of!r} is neither yn nor mc")
        if self.mode == "official" and self.prompts is None:
            raise RunStopped(
                "five_acc: the official mode needs the published templates, get_template in "
                "evaluation/metrics_calculator.py of MinghanLi/FiVE-Bench; name by `prompts` a JSON file "
                "with them as `yn` and `mc`, with {question} in them"
            )

    @property
    def name(self) -> str:
        """The column."""
        return f"five_{self.of}"

    @property
    def label(self) -> str:
        """The column's heading."""
        return "FiVE yes/no" if self.of == "yn" else "FiVE choice"

    @cached_property
    def published(self) -> Mapping[str, str]:
        """Templates, `yn` and `mc`."""
        return read_prompts(self.prompts or "", "templates", ("yn", "mc"), "{question}")

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        choice, before, after = (reference.prompts.get(name, "") for name in self.reads)
        if not choice or not after:
            return Unscored("the item has no questions")
        if self.mode == "official":
            if len(result) < FRAMES:
                return Unscored(f"{len(result)} frames: the published code cannot sample fewer than {FRAMES}")
            stride = len(result) // (len(result) // FRAMES)
            shown = result[stride // 2 :: stride]
        else:
            shown = result[np.unique(evenly_spaced(len(result), min(len(result), FRAMES)))]
        if self.of == "mc":
            return answered(self._choice, shown, choice)
        return answered(self._both, shown, before, after)

    def _both(self, shown: np.ndarray, before: str, after: str) -> Worded:
        """The source's question is left out where the item has none, as for additions."""
        told = [self._yes_no(shown, question) for question in (before, after) if question]
        right = told[-1] == "yes" and (len(told) == 1 or told[0] == "no")
        return Worded(float(right), ", ".join(told))

    def _yes_no(self, shown: np.ndarray, question: str) -> str:
        if self.mode == "official":
            told = (
                self.model.ask([shown], self.published["yn"].replace("{question}", question)).strip().lower()
            )
            return next((word for word in ("yes", "no") if told.startswith(word)), told[:40])
        asked = f"Look at the video and answer yes or no.\n{question}"
        return ask_json(self.model, [shown], asked, YesNo, ATTEMPTS).answer  # type: ignore[arg-type]

    def _choice(self, shown: np.ndarray, question: str) -> Worded:
        if self.mode == "official":
            told = self.model.ask([shown], self.published["mc"].replace("{question}", question))
        else:
            asked = f"Look at the video and answer by the letter of the right choice.\n{question}"
            told = ask_json(self.model, [shown], asked, Choice, ATTEMPTS).answer  # type: ignore[arg-type]
        return Worded(float(told.strip()[:1].lower() == "b"), told)
