"""A vision-language model that takes videos grades an edit by the whole of both, and so what moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar, Protocol

import numpy as np

from benchmark.core.item import Reference, RunStopped, Unscored, Worded
from benchmark.judges.asking import ATTEMPTS, answered, repeated
from benchmark.judges.judge import Grades
from benchmark.judges.wording import PROMPTS, filled, read_prompt
from curation.vlm.client import ask_json, sampled


class SeesVideos(Protocol):
    """A `Vlm` of the curation: a local Qwen-VL takes videos, an endpoint their frames with times."""

    def ask(
        self, media: Sequence[np.ndarray], text: str, *, times: Sequence[Sequence[float]] = ()
    ) -> str: ...


@dataclass(frozen=True)
class VideoJudge:
    """A total from 0 to 9 of three grades, as the judge of frames gives one, of source and result as videos.

    Args:
        model: see above.
        prompt: file with `{instruction}` in it; our rubric if not given.
        frames: of each video at most, evenly over it, the first and the last among them.
        repeats: how often all is asked; the score is the mean.
    """

    model: SeesVideos
    prompt: str | None = None
    frames: int = 16
    repeats: int = 1
    name: str = "video_judge"
    label: str = "Video judge"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 9.0)
    version: int = 1
    waits: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("instruction",)

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.frames < 2:
            raise RunStopped("video_judge: needs at least 1 for repeats and 2 for frames")
        filled(self.prompt, self.text, "instruction")

    @cached_property
    def text(self) -> str:
        """The prompt, with `{instruction}` in it."""
        return read_prompt(self.prompt or PROMPTS / "video.txt")

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        instruction = reference.prompts.get("instruction")
        if not instruction:
            return Unscored("the item has no instruction")
        text = self.text.replace("{instruction}", instruction)
        chosen = sampled(len(result), self.frames)
        shown = Timed(self.model, [(chosen / reference.geometry.fps).tolist()] * 2)
        videos = [reference.source[chosen], result[chosen]]
        return repeated(self.repeats, partial(answered, _grade, shown, videos, text))


class Timed:
    """A `Vlm` that is told the times of the frames whenever it is asked."""

    def __init__(self, model: SeesVideos, times: Sequence[Sequence[float]]) -> None:
        self.model, self.times = model, times
        self.structured = getattr(model, "structured", False)
        self.describe = model.describe  # type: ignore[attr-defined]

    def ask(self, media: Sequence[np.ndarray], text: str, **options: object) -> str:
        """Its answer."""
        return self.model.ask(media, text, times=self.times, **options)


def _grade(shown: Timed, videos: Sequence[np.ndarray], text: str) -> Worded:
    grades = ask_json(shown, videos, text, Grades, ATTEMPTS)  # type: ignore[arg-type]
    return Worded(grades.total, grades.told())
