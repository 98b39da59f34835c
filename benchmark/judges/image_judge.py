"""ImgEdit-Bench's judge: a picture before and after an edit, three grades from 1 to 5."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from benchmark.core.item import Mode, Reference, RunStopped, Unscored, Worded
from benchmark.judges.judge import ATTEMPTS, Asked, Reason, answered
from curation.vlm.client import Answer, ask_json
from shards.errors import EditVerseError
from shards.limits import read_json

RUBRIC = Path(__file__).resolve().parents[1] / "prompts" / "pictures.txt"

Grade = Annotated[int, Field(ge=1, le=5, strict=True)]


class Grades(Answer):
    """What `corrected` asks for."""

    instruction: Grade
    seamlessness: Grade
    fidelity: Grade
    reason: Reason = ""


@dataclass(frozen=True)
class PictureJudge:
    """Mean of three grades from 1 to 5.

    `corrected` asks by our rubric for three grades as JSON, and lowers the second and third to the first, as
    the published prompts ask and their code does not see to. `official` asks by the published prompt of the
    kind of edit and takes the mean, rounded to two places, of whatever lines end in ": " and digits.

    Args:
        prompts: JSON file of the published prompts by kind of edit, with `<edit_prompt>` in them.
    """

    model: Asked
    prompts: str | None = None
    mode: Mode = "corrected"
    name: str = "imgedit"
    label: str = "ImgEdit"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (1.0, 5.0)
    version: int = 1
    waits: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("instruction", "kind")

    def __post_init__(self) -> None:
        if self.mode == "official" and self.prompts is None:
            raise RunStopped(
                "imgedit: the official mode needs the published prompts, Benchmark/Basic/prompts.json of "
                "PKU-YuanGroup/ImgEdit; name the file by `prompts`"
            )

    @cached_property
    def published(self) -> Mapping[str, str]:
        """Prompts by kind of edit."""
        path = Path(self.prompts or "")
        try:
            held = read_json(path)
        except (OSError, EditVerseError) as error:
            raise RunStopped(f"{path}: cannot be read as prompts by kind of edit: {error}") from error
        if not isinstance(held, dict) or not all(isinstance(v, str) for v in held.values()):
            raise RunStopped(f"{path}: should be an object of prompts by kind of edit")
        return held

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        instruction, kind = (reference.prompts.get(name, "") for name in ("instruction", "kind"))
        if not instruction:
            return Unscored("the item has no instruction")
        pair = reference.original[0], result[0]
        if self.prompts is None:
            return answered(self._own, pair, instruction)
        return answered(self._published, pair, instruction, kind)

    @cached_property
    def rubric(self) -> str:
        """Our own prompt, with `{instruction}` in it."""
        return RUBRIC.read_text(encoding="utf-8")

    def _own(self, pair: tuple[np.ndarray, np.ndarray], instruction: str) -> Worded:
        text = self.rubric.replace("{instruction}", instruction)
        told = ask_json(self.model, pair, text, Grades, ATTEMPTS)  # type: ignore[arg-type]
        grades = [told.instruction] + [min(g, told.instruction) for g in (told.seamlessness, told.fidelity)]
        return Worded(float(np.mean(grades)), told.model_dump_json())

    def _published(
        self, pair: tuple[np.ndarray, np.ndarray], instruction: str, kind: str
    ) -> Worded | Unscored:
        if kind not in self.published:
            return Unscored(f"{self.prompts} has no prompt for {kind!r}")
        told = self.model.ask(pair, self.published[kind].replace("<edit_prompt>", instruction))
        lines = [line.strip().split(": ") for line in told.splitlines()]
        # longer numbers are no grades, and other scripts' digits are no numbers to Python
        grades = [int(p[1]) for p in lines if len(p) == 2 and re.fullmatch("[0-9]{1,4}", p[1])]
        if not grades:
            return Unscored(f"no line of the answer ends in a grade: {told[:80]!r}")
        if self.mode == "corrected" and (len(grades) != 3 or not all(1 <= g <= 5 for g in grades)):
            return Unscored(f"{grades} are not three grades from 1 to 5")
        if self.mode == "corrected":
            return Worded(float(np.mean([min(g, grades[0]) for g in grades])), told)
        return Worded(round(sum(grades) / len(grades), 2), told)
