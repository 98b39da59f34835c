"""The paper's filter (section 4): a model grades every generated pair from 0 to 10 on eight criteria.

One criterion a question. A grade that cannot be had is never 0: the candidate goes to quarantine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from curation.core.results import Candidate, StageResult
from curation.core.stage import Item, Results, Stage
from curation.ops.masks import bounds, grow
from curation.sources.clips import Clip
from curation.vlm import client as asking
from curation.vlm.client import sampled
from curation.vlm.interface import Backend, Vlm
from shards.errors import SettingError
from shards.hashing import digest
from shards.limits import in_range
from shards.media import read_mask, read_video

VERSION = 1  # of the questions; their text is part of the provenance too

PAIRED = 'The pictures are frames of a video before and after the edit "{instruction}", in pairs.'
AFTER = 'The pictures are consecutive frames of a video after the edit "{instruction}".'
CLOSE = 'The pictures show, close up, the place of the edit "{instruction}" in frames of the edited video.'

CRITERIA = {
    "instruction_adherence": (
        PAIRED,
        "How well does the edit do what was asked, all of it?",
    ),
    "context_preservation": (PAIRED, "How well is everything preserved that the edit should not touch?"),
    "sharpness": (PAIRED, "How sharp are the edited frames, compared with those before?"),
    "temporal_consistency": (AFTER, "How steady is the video, without flicker, jumps and drifting shapes?"),
    "artifacts": (CLOSE, "How free is it of artifacts: smears, ghosts, seams, leftovers, broken textures?"),
    "object_integrity": (CLOSE, "How whole and well-formed are the objects that it shows?"),
    "aesthetics": (AFTER, "How pleasing is it to look at?"),
    "physical_plausibility": (AFTER, "How plausible are light, shadows, contacts and motion?"),
}
RENAMED = {"content_preservation": "context_preservation"}  # the paper's word
SCALE = "Grade it from 0 (not at all) to 10 (perfectly). Answer with the number alone."


@dataclass(frozen=True, kw_only=True)
class Grades(StageResult):
    """What `Judge.grades` gives of a pair."""

    grades: dict[str, float]


class Judge:
    """Grades pairs and refuses those below a threshold.

    Args:
        thresholds: criterion -> least grade. The paper chose its own by looking at samples and does not tell
            them; these are to be set the same way.
        frames: pictures of each video that are shown.
    """

    code = (asking,)

    def __init__(self, vlm: Vlm, thresholds: dict[str, float] | None = None, frames: int = 4) -> None:
        self.vlm, self.thresholds, self.frames = vlm, thresholds or {}, frames
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
        """The model and the questions; the thresholds change no grade."""
        questions = {"questions": VERSION, "text": digest([CRITERIA, SCALE])}
        return self.vlm.describe().also(**questions, frames=self.frames)

    def grades(
        self, source: np.ndarray, target: np.ndarray, instruction: str, mask: np.ndarray | None = None
    ) -> dict[str, float]:
        """Criterion -> grade 0 to 10, and `<criterion>_entropy` (nats) where the model gives probabilities.

        Args:
            source, target: uint8 [T, H, W, 3].
            mask: bool [T, H, W], where the edit is; the whole picture when left out.
        """
        some = sampled(len(target), self.frames)
        middle = max(0, len(target) // 2 - self.frames // 2)
        shown: dict[str, Sequence[np.ndarray]] = {
            PAIRED: [picture for t in some for picture in (source[t], target[t])],
            AFTER: list(target[middle : middle + self.frames]),
            CLOSE: [close_up(target[t], None if mask is None else mask[t]) for t in some],
        }
        found = {}
        for name, (pictures, question) in CRITERIA.items():
            text = f"{pictures.format(instruction=instruction)} {question} {SCALE}"
            rating = self.vlm.rate(shown[pictures], text)
            found[name] = round(rating.value, 4)
            if rating.entropy is not None:
                found[f"{name}_entropy"] = round(rating.entropy, 4)
        return found

    def reason(self, grades: dict[str, float]) -> str:
        """Which threshold refuses the pair; "" for none."""
        low = [name for name, least in self.thresholds.items() if grades[name] < least]
        return f"judged low on {low[0]}" if low else ""


def close_up(frame: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The part of a frame [H, W, 3] around the mask [H, W], twice its size; all where there is none."""
    box = None if mask is None else bounds(mask)
    if box is None:
        return frame
    left, top, right, bottom = grow(box, 2.0, frame.shape, pad=28)
    return frame[top:bottom, left:right]


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
        videos = [read_video(paths[name])[0] for name in ("source", "target")]
        mask = read_mask(paths["mask"]) if "mask" in paths else None
        return Grades(grades=judge.grades(videos[0], videos[1], instruction, mask))

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
