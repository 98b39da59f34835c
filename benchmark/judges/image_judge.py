"""ImgEdit-Bench's judge: a picture before and after an edit, three grades from 1 to 5."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from benchmark.core.item import Mode, Reference, RunStopped, Unscored, Worded
from benchmark.core.media import IMAGES
from benchmark.judges.asking import ATTEMPTS, Asked, answered, repeated
from benchmark.judges.wording import PROMPTS, Reason, read_prompts
from curation.vlm.client import Answer, ask_json
from curation.vlm.endpoint import Endpoint
from curation.vlm.plain_requests import complete, data_url

RUBRIC = PROMPTS / "pictures.txt"

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
    kind of edit and takes the mean, rounded to two places, of whatever lines end in ": " and digits. Its
    requests are the published ones (PKU-YuanGroup/ImgEdit, Benchmark/Basic/basic_bench.py): chat completions
    by the server's own defaults, the words before the pictures, the files' own bytes, all called PNG.

    Args:
        prompts: JSON file of the published prompts by kind of edit, with `<edit_prompt>` in them.
        repeats: how often all is asked; the score is the mean.
    """

    model: Asked
    prompts: str | None = None
    mode: Mode = "corrected"
    repeats: int = 1
    name: str = "imgedit"
    label: str = "ImgEdit"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (1.0, 5.0)
    version: int = 2
    waits: ClassVar[bool] = True
    needs_source: ClassVar[bool] = True
    reads_files: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("instruction", "kind")

    def __post_init__(self) -> None:
        if self.mode == "official" and self.prompts is None:
            raise RunStopped(
                "imgedit: the official mode needs the published prompts, Benchmark/Basic/prompts.json of "
                "PKU-YuanGroup/ImgEdit; name the file by `prompts`"
            )
        if self.repeats < 1:
            raise RunStopped(f"imgedit: repeats {self.repeats}: needs at least 1")

    @cached_property
    def published(self) -> Mapping[str, str]:
        """Prompts by kind of edit."""
        return read_prompts(self.prompts or "", "prompts by kind of edit")

    def __call__(
        self, reference: Reference, result: np.ndarray, file: Path | None = None
    ) -> float | Unscored:
        """`file` is the result's own; a result without one, or an editor's video, is sent as PNG."""
        instruction, kind = (reference.prompts.get(name, "") for name in ("instruction", "kind"))
        if not instruction:
            return Unscored("the item has no instruction")
        pair = reference.original[0], result[0]
        if self.prompts is None:
            return repeated(self.repeats, partial(answered, self._own, pair, instruction))
        if kind not in self.published:
            return Unscored(f"{self.prompts} has no prompt for {kind!r}")
        text = self.published[kind].replace("<edit_prompt>", instruction)
        given = reference.inputs.get("image1")
        after = file.read_bytes() if file and file.suffix in IMAGES else None
        files = [data or _png(p) for p, data in zip(pair, (given, after), strict=True)]
        return repeated(self.repeats, partial(answered, self._published, pair, files, text))

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
        self, pair: tuple[np.ndarray, np.ndarray], files: list[bytes], text: str
    ) -> Worded | Unscored:
        if isinstance(self.model, Endpoint):
            told = complete(self.model, text, [data_url(file, "image/png") for file in files])
        else:  # has but one form
            told = self.model.ask(pair, text)
        lines = [line.strip().split(": ") for line in told.splitlines()]
        # longer numbers are no grades, and other scripts' digits are no numbers to Python
        grades = [int(p[1]) for p in lines if len(p) == 2 and re.fullmatch("[0-9]{1,4}", p[1])]
        if not grades:
            return unusable(f"no line of the answer ends in a grade: {told[:80]!r}")
        if self.mode == "corrected" and (len(grades) != 3 or not all(1 <= g <= 5 for g in grades)):
            return unusable(f"{grades} are not three grades from 1 to 5")
        if self.mode == "corrected":
            return Worded(float(np.mean([min(g, grades[0]) for g in grades])), told)
        return Worded(round(sum(grades) / len(grades), 2), told)


def unusable(reason: str) -> Unscored:
    """An answer that holds no score: another one may."""
    return Unscored(reason, retry=True, kind="answer")


def _png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()
