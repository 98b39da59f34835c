"""The paper's filter (section 4): a model grades every generated pair from 0 to 10 on eight criteria.

One criterion a question, in the words of the paper's template (appendix A.1): a role, the original beside the
edited video, the instruction, and what 10, 5 and 0 mean. A grade that cannot be had is never 0: the candidate
goes to quarantine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from curation.core.results import Candidate, StageResult
from curation.core.stage import Item, Results, Stage
from curation.sources.clips import Clip
from curation.text import judge_views
from curation.text.judge_views import CLOSE, MOTION, WHOLE, ShownFrames, look, most_suspect, shown_frames
from curation.vlm import client as asking
from curation.vlm.client import ask_grade
from curation.vlm.interface import Backend, Vlm
from shards.errors import SettingError
from shards.hashing import digest
from shards.limits import in_range
from shards.media import read_mask, read_video

VERSION = 2  # of the questions; their text is part of the provenance too

ROLE = (
    "You are an expert in AI-generated video quality assessment. Your task is to evaluate video editing "
    "performance based on the provided frames and the instructions."
)
QUESTION = """Original and edited frames are provided. {shown}
The editing instruction is: {instruction}
Evaluation criteria is {criterion} (0-10):
10 - {ten}
5 - {five}
0 - {zero}
Answer with the number alone."""


@dataclass(frozen=True)
class Criterion:
    """What is shown for a grade, and what 10, 5 and 0 mean."""

    views: str
    ten: str
    five: str
    zero: str


CRITERIA = {
    "instruction_adherence": Criterion(  # the paper's own example
        WHOLE,
        "Instruction is perfectly and completely executed.",
        "Instruction is partially followed, with some elements missing or misinterpreted.",
        "Instruction is completely ignored.",
    ),
    "context_preservation": Criterion(
        WHOLE,
        "Everything that the instruction does not concern is exactly as in the original.",
        "Some of what should stay has visibly changed: background, colours, other objects or people.",
        "Most of what should stay is changed or lost.",
    ),
    "sharpness": Criterion(
        CLOSE,
        "The edited video is as sharp and detailed as the original, also in the edited region.",
        "The edited region, or all of the video, is noticeably softer than the original.",
        "The edited video is blurred beyond recognition.",
    ),
    "temporal_consistency": Criterion(
        MOTION,
        "The edited video is steady from start to end: no flicker, jump or drifting shape that the original "
        "does not have, and the edit holds in every frame.",
        "There is some flicker, a jump, or shapes and colours that drift, in part of the video.",
        "The video flickers or changes shape all the time, or the edit is lost.",
    ),
    "artifacts": Criterion(
        CLOSE,
        "No artifacts: no smears, ghosts, seams, leftovers or broken textures.",
        "Some artifacts are visible on a close look.",
        "Artifacts are obvious everywhere in the edited region.",
    ),
    "object_integrity": Criterion(
        CLOSE,
        "All objects and people are whole and well formed.",
        "Some objects or people are deformed, cut off or incomplete.",
        "Objects and people are deformed beyond recognition.",
    ),
    "aesthetics": Criterion(
        WHOLE,
        "The edited video is as pleasing to look at as a well-made film.",
        "It is acceptable, with unpleasing colours, light or composition in places.",
        "It is ugly to look at.",
    ),
    "physical_plausibility": Criterion(
        MOTION,
        "Light, shadows, reflections, contacts and motion are all as they would be in reality.",
        "Some of them are wrong on a second look, such as a missing shadow or a sliding foot.",
        "The scene is physically impossible at first sight.",
    ),
}
RENAMED = {"content_preservation": "context_preservation"}  # the paper's word


@dataclass(frozen=True, kw_only=True)
class Grades(StageResult):
    """What `Judge.grades` gives of a pair."""

    grades: dict[str, float]


class Judge:
    """Grades pairs and refuses those below a threshold.

    For every criterion the model is shown the original and the edited video as videos, over all their length.
    Motion is judged by runs of consecutive frames besides, at the start, the middle, the end, and where the
    edited video changes most against the original; details are judged close up, where a mask says where.

    Args:
        thresholds: criterion -> least grade. The paper chose its own by looking at samples and does not tell
            them; these are to be set the same way.
        rate: frames a second that are shown of a whole video (2 is Qwen-VL's own rate).
        frames: of a whole video at most; 8 at least, where it has so many.
        run: consecutive frames of a run.
        attempts: times that a model is asked which gives no grade, before the candidate is quarantined.
    """

    code = (asking, judge_views)

    def __init__(
        self,
        vlm: Vlm,
        thresholds: dict[str, float] | None = None,
        rate: float = 2.0,
        frames: int = 24,
        run: int = 6,
        attempts: int = 3,
    ) -> None:
        self.vlm, self.thresholds, self.rate, self.frames = vlm, thresholds or {}, rate, frames
        self.run, self.attempts = run, attempts
        in_range("frames", frames, 1, 256)
        in_range("run", run, 2, 64)
        in_range("attempts", attempts, 1, 100)
        for name, least in self.thresholds.items():
            if name in RENAMED:
                raise SettingError(f"thresholds: {name} is called {RENAMED[name]} now")
            in_range(f"thresholds: {name}", least, 0, 10)
        if unknown := sorted(set(self.thresholds) - set(CRITERIA)):
            raise SettingError(f"thresholds: {unknown[0]!r} is none of {', '.join(CRITERIA)}")

    @property
    def parts(self) -> dict[str, Vlm]:
        """The model."""
        return {"vlm": self.vlm}

    def describe(self) -> Backend:
        """The model, the questions and what is shown; the thresholds change no grade."""
        words = [ROLE, QUESTION, {name: vars(one) for name, one in CRITERIA.items()}]
        questions = {"questions": VERSION, "text": digest(words)}
        shown = {"rate": self.rate, "frames": self.frames, "run": self.run, "attempts": self.attempts}
        return self.vlm.describe().also(**questions, **shown)

    def shown(self, count: int, fps: float, suspect: int | None = None) -> ShownFrames:
        """Which frames are shown of a video of so many frames, a run around frame `suspect` among them."""
        return shown_frames(count, fps, self.rate, self.frames, self.run, suspect)

    def grades(
        self,
        source: np.ndarray,
        target: np.ndarray,
        instruction: str,
        fps: float,
        mask: np.ndarray | None = None,
    ) -> dict[str, float]:
        """Criterion -> grade 0 to 10, and `<criterion>_entropy` (nats) where the model gives probabilities.

        Args:
            source, target: uint8 [T, H, W, 3].
            fps: frames a second of both.
            mask: bool [T, H, W], where the edit is; the whole picture when left out.

        Raises:
            AnnotatorError: the model gives no grade, however often it is asked.
        """
        shown = self.shown(len(target), fps, most_suspect(source, target))
        seen = {views: look(shown, source, target, mask, views) for views in (WHOLE, MOTION, CLOSE)}
        found = {}
        for name, criterion in CRITERIA.items():
            media, times, words = seen[criterion.views]
            text = QUESTION.format(
                shown=words,
                instruction=instruction,
                criterion=name.replace("_", " "),
                ten=criterion.ten,
                five=criterion.five,
                zero=criterion.zero,
            )
            rating = ask_grade(self.vlm, media, text, system=ROLE, times=times, attempts=self.attempts)
            found[name] = round(rating.value, 4)
            if rating.entropy is not None:
                found[f"{name}_entropy"] = round(rating.entropy, 4)
        return found

    def reason(self, grades: dict[str, float]) -> str:
        """Which threshold refuses the pair; "" for none."""
        low = [name for name, least in self.thresholds.items() if grades[name] < least]
        return f"judged low on {low[0]}" if low else ""


def judge_stage(
    judge: Judge, pair: str, complete: Callable[[Item, Results], Candidate] | None = None
) -> Stage:
    """The stage "judge", after the stage `pair` whose source, target and mask it grades.

    The item's value "instruction" says what was asked. The thresholds decide on stored grades.

    Args:
        complete: the candidate that is finished with the grades; the pair itself when left out.
    """

    def grade(clip: Clip, folder: Path, instruction: str, **inputs: Candidate) -> Grades:
        made = inputs[pair]
        paths = {name: made.folder / medium.file for name, medium in made.files.items()}
        (source, _), (target, fps) = (read_video(paths[name]) for name in ("source", "target"))
        mask = read_mask(paths["mask"]) if "mask" in paths else None
        return Grades(grades=judge.grades(source, target, instruction, fps, mask))

    def accept(clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        made: Candidate = complete(item, results) if complete else results[pair]
        grades = results["judge"].grades
        return [replace(made, scores={**made.scores, **grades}, reason=judge.reason(grades))]

    return Stage(
        name="judge",
        run=grade,
        result=Grades,
        annotators=[judge],
        values=("instruction",),
        inputs=(pair,),
        decide=accept,
    )
