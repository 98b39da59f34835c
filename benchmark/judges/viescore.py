"""GEdit-Bench's judge (VIEScore): semantic consistency of two pictures, perceptual quality of the second.

Both are the lower of two grades from 0 to 10; GEdit-Bench's overall score is the root of their product.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from benchmark.core.item import Mode, Reference, RunStopped, Unscored, Worded
from benchmark.judges.asking import ATTEMPTS, Asked, answered
from benchmark.judges.wording import Reason, read_prompts
from curation.vlm.client import Answer, ask_json
from curation.vlm.interface import AnnotatorError
from shards.errors import EditVerseError
from shards.limits import parse_json
from shards.media import resize

DELIMITER = "||V^=^V||"
TRIES = 2  # after two answers without grades the published code draws one at random
Grade = Annotated[int, Field(ge=0, le=10, strict=True)]

OURS = {
    "sc": (
        "You grade one edit of a picture. The first picture is before the edit, the second after it. The "
        "instruction was:\n\n{instruction}\n\nGive two grades, each a whole number from 0 to 10.\n"
        "success: was done what was asked? 0 - nothing of it. 10 - exactly.\n"
        "restraint: is all else as it was? 0 - it is another picture. 10 - nothing else has changed.\n"
        "Add a reason: one short sentence."
    ),
    "pq": (
        "You grade how a picture looks. Give two grades, each a whole number from 0 to 10.\n"
        "naturalness: could it be seen so, in its distances, light and shadows? 0 - no. 10 - surely.\n"
        "cleanness: is it free of distortions, seams, watermarks and broken bodies? 0 - full of them. "
        "10 - without any.\nAdd a reason: one short sentence."
    ),
}


class Consistency(Answer):
    """What `corrected` asks for about both pictures."""

    success: Grade
    restraint: Grade
    reason: Reason = ""


class Quality(Answer):
    """What `corrected` asks for about the second picture."""

    naturalness: Grade
    cleanness: Grade
    reason: Reason = ""


@dataclass(frozen=True)
class VieScore:
    """The lower of two grades.

    `corrected` asks by our rubric for two grades as JSON, of the pictures at the source's size. `official`
    asks by the published prompts, of the second picture at the first one's size, and reads the answer as the
    published code does, except that broken JSON is not mended, and that an answer without grades leaves the
    score missing where that code draws a random number.

    Args:
        of: `sc`, semantic consistency, or `pq`, perceptual quality.
        prompts: JSON file of the published prompts: `sc`, with <instruction> in it, and `pq`.
    """

    model: Asked
    of: Literal["sc", "pq"]
    prompts: str | None = None
    mode: Mode = "corrected"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 10.0)
    version: int = 1
    waits: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("instruction",)

    def __post_init__(self) -> None:
        if self.of not in OURS:
            raise RunStopped(f"viescore: {self.of!r} is neither sc nor pq")
        if self.mode == "official" and self.prompts is None:
            raise RunStopped(
                "viescore: the official mode needs the published prompts, those of the task `tie` in "
                "GEdit-Bench/viescore/vie_prompts.py of stepfun-ai/Step1X-Edit; name by `prompts` a JSON "
                "file with them as `sc` and `pq`"
            )

    @property
    def name(self) -> str:
        """The column."""
        return f"gedit_{self.of}"

    @property
    def label(self) -> str:
        """The column's heading."""
        return f"GEdit {self.of.upper()}"

    @cached_property
    def published(self) -> Mapping[str, str]:
        """Prompts, `sc` and `pq`."""
        return read_prompts(self.prompts or "", "prompts", tuple(OURS))

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        instruction = reference.prompts.get("instruction", "")
        if not instruction:
            return Unscored("the item has no instruction")
        source = reference.original[0]
        size = source.shape[0], source.shape[1]
        pictures = [
            source,
            by_pillow(result[0], size) if self.mode == "official" else resize(result[0], size),
        ]
        return answered(self._ask, pictures if self.of == "sc" else pictures[1:], instruction)

    def _ask(self, pictures: list[np.ndarray], instruction: str) -> Worded:
        if self.mode == "official":
            text = self.published[self.of].replace("<instruction>", instruction)
            for _ in range(TRIES):
                told = self.model.ask(pictures, text)
                if grades := grades_in(told):
                    return Worded(min(grades), told)
            raise AnnotatorError(f"no grades in {TRIES} answers; the last told {told[:80]!r}")
        text, kind = OURS[self.of], Consistency if self.of == "sc" else Quality
        text = text.replace("{instruction}", instruction)
        answer = ask_json(self.model, pictures, text, kind, ATTEMPTS)  # type: ignore[arg-type]
        values = [v for name, v in answer.model_dump().items() if name != "reason"]
        return Worded(float(min(values)), answer.model_dump_json())


def grades_in(told: str) -> list[float]:
    """The grades in an answer, as `mllm_output_to_dict` of VIEScore finds them; none where it finds none."""
    if told.count(DELIMITER) == 2:
        found = told[told.find(DELIMITER) + len(DELIMITER) : told.rfind(DELIMITER)]
    elif "{" in told and "}" in told:
        found = told[told.find("{") : told.rfind("}") + 1]
    elif re.fullmatch(r"\[[0-9]{1,3}, ?[0-9]{1,3}\]", listed := told[told.find("[") : told.rfind("]") + 1]):
        found = f'{{"score": {listed}}}'
    elif re.fullmatch(r"\s*(10|[0-9])\s*", told):
        found = f'{{"score": [{told.strip()}]}}'
    else:
        return []
    try:
        held = parse_json(found.replace("\n", ""), "the answer")
    except EditVerseError:
        return []
    score = held.get("score") if isinstance(held, dict) else None
    values = score if isinstance(score, list) else [score]
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return numbers if len(numbers) == len(values) else []


def by_pillow(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 RGB [H, W, 3] at another (height, width), as the published code resizes results: bicubic."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize(size[::-1]))
