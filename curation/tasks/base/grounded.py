"""Tasks about objects that are found by name (section 4): one recipe up to the edit, and after it.

Names -> Grounded-SAM-2 -> gates on confidence, area and steadiness -> words -> the task's edit -> gates on
its result -> grades. What a gate or a grade refuses is decided on stored results: a changed threshold
computes nothing anew.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curation.core.cache import Workspace
from curation.core.interfaces import Inpainter, ObjectFinder, TrackedObject
from curation.core.results import Candidate, StageResult, refused
from curation.core.task import MediaWriter, Task, attempt
from curation.ops import masks
from curation.sources.clips import Clip, Cut, load_frames
from curation.text.vlm_captions import Writer
from curation.text.vlm_filter import Judge, judged
from curation.vlm.interface import Annotator
from shards.frames import psnr
from shards.media import read_mask, write_mask


@dataclass(frozen=True)
class ObjectGates:
    """What an object must be like. Shares are of the picture or the frames, 0 to 1."""

    confidence: float = 0.35
    area: tuple[float, float] = (0.01, 0.4)  # mean over the frames in which it is
    presence: float = 0.9  # frames in which it is
    steady: float = 0.5  # largest standard deviation of its area over the mean
    jump: float = 0.3  # least IoU of its masks in frames that follow each other
    border: float = 0.5  # largest share of frames in which it touches the picture's edge
    preserved: float = 30.0  # dB, least PSNR outside the mask
    changed: float = 4.0  # levels, least mean difference inside the mask


@dataclass(frozen=True, kw_only=True)
class ObjectNames(StageResult):
    """Kinds of objects that a window shows."""

    names: list[str]


@dataclass(frozen=True)
class ObjectMeasures:
    """What the gates go by of one object, see `ObjectGates`; `seen` counts the detections joined in it."""

    label: str
    score: float
    seen: int
    presence: float
    area: float
    spread: float
    jump: float
    border: float


@dataclass(frozen=True, kw_only=True)
class FoundObjects(StageResult):
    """The objects of a window; the masks of number `n` are in its folder as object<n>.mkv."""

    things: list[ObjectMeasures]


@dataclass(frozen=True, kw_only=True)
class PairWords(StageResult):
    """What is said of a pair, see `GroundedTask.words`."""

    words: dict[str, str]


@dataclass(frozen=True)
class Labelled:
    """Details of a candidate: the name that its object was found by."""

    label: str


@dataclass(frozen=True)
class Worded:
    """Details of a candidate: what is said of it."""

    words: dict[str, str]


class GroundedTask(Task):
    """The recipe; subclasses write `words`, `prompt` and `samples`.

    Args:
        finder: objects by name.
        inpainter: what is put in an object's place.
        writer: names, instructions and captions.
        judge: grades and their thresholds.
        names: kinds of objects to look for; asked of the writer's model for each window when left out.
        length: frames of a window; most: windows of a clip.
        grow: pixels that the mask is grown by before the edit.
    """

    code: ClassVar[tuple[Any, ...]] = (masks,)
    stage: ClassVar[str]  # the edit's, in the workspace

    def __init__(
        self,
        finder: ObjectFinder,
        inpainter: Inpainter,
        writer: Writer,
        judge: Judge,
        cut: Cut | None = None,
        gates: ObjectGates | None = None,
        names: tuple[str, ...] = (),
        length: int = 81,
        most: int = 2,
        grow: int = 4,
    ) -> None:
        super().__init__(cut)
        self.finder, self.inpainter = finder, inpainter
        self.writer, self.judge = writer, judge
        self.gates, self.names = gates or ObjectGates(), tuple(names)
        self.length, self.most, self.grow = length, most, grow

    # ---- of the task --------------------------------------------------------------------------------------

    def words(self, frames: np.ndarray, mask: np.ndarray, label: str) -> dict[str, str]:
        """What is said of the pair: at least "instruction"; from frames, the object's mask and its name."""
        raise NotImplementedError

    def prompt(self, words: dict[str, str]) -> str:
        """What the inpainter is told of the result, of all `words`."""
        raise NotImplementedError

    # ---- the recipe ---------------------------------------------------------------------------------------

    def annotators(self) -> dict[str, Annotator]:
        """The annotators by stage."""
        edit = {self.stage: self.inpainter}
        return {"find": self.finder, "write": self.writer, **edit, "judge": self.judge}

    def thresholds(self) -> Mapping[str, object]:
        """Of objects and grades; windows, names and growth go into the results by value."""
        windows = {"length": self.length, "names": list(self.names), "grow": self.grow}
        return {"gates": asdict(self.gates), "grades": self.judge.thresholds, **windows}

    def process(self, clip: Clip, space: Workspace) -> list[Candidate]:
        """One candidate for each object of each window."""
        candidates: list[Candidate] = []
        for span in self.windows(clip, self.length, self.most):
            found = attempt(functools.partial(self._found, clip, space, span))
            if isinstance(found, Candidate):
                candidates.append(found)
                continue
            for number, thing in enumerate(found.things):
                if reason := self.object_reason(thing):
                    candidates.append(refused(reason))
                    continue
                candidates.append(attempt(functools.partial(self._pair, clip, space, span, found, number)))
            if not found.things:
                candidates.append(refused("no object of these names"))
        return candidates

    def _found(self, clip: Clip, space: Workspace, span: tuple[int, int]) -> FoundObjects:
        names = list(self.names)
        if not names:
            uses = [self.writer]
            names = self.cached(space, "name", clip, self._name, uses, kind=ObjectNames, span=span).names
        return self.cached(
            space, "find", clip, self._find, [self.finder], kind=FoundObjects, span=span, names=names
        )

    def _name(self, clip: Clip, folder: Path, span: tuple[int, int]) -> ObjectNames:
        return ObjectNames(names=self.writer.names(load_frames(clip)[slice(*span)]))

    def _find(self, clip: Clip, folder: Path, span: tuple[int, int], names: list[str]) -> FoundObjects:
        frames = load_frames(clip)[slice(*span)]
        things = self.finder.objects(frames, names)
        for number, thing in enumerate(things):
            write_mask(folder / f"object{number}.mkv", thing.masks, clip.fps)
        return FoundObjects(things=[measured(thing) for thing in things])

    def _pair(
        self, clip: Clip, space: Workspace, span: tuple[int, int], found: FoundObjects, number: int
    ) -> Candidate:
        """Words, the edit and the grades of one object; what a gate refuses goes no further."""
        thing = found.things[number]
        of = found.folder.name

        def cut_out() -> tuple[np.ndarray, np.ndarray]:
            mask = read_mask(found.folder / f"object{number}.mkv")
            return load_frames(clip)[slice(*span)], mask

        def write(clip: Clip, _: Path, **__: Any) -> PairWords:
            return PairWords(words=self.words(*cut_out(), thing.label))

        def edit(clip: Clip, into: Path, prompt: str, grow: int, **__: Any) -> Candidate:
            frames, mask = cut_out()
            hole = np.stack([masks.dilate(m, grow) for m in mask])
            edited = self.inpainter.inpaint(frames, hole, clip.fps, prompt)
            writer = MediaWriter(into, clip.fps)
            writer.video("source", frames)
            writer.video("target", edited)
            writer.mask("mask", hole)
            scores = {"confidence": thing.score, **compared(frames, edited, hole)}
            return writer.done(Labelled(thing.label), first=span[0], stop=span[1], scores=scores)

        words = self.cached(
            space,
            "write",
            clip,
            write,
            [self.writer],
            kind=PairWords,
            span=span,
            find=of,
            number=number,
        ).words
        pair = self.cached(
            space,
            self.stage,
            clip,
            edit,
            [self.inpainter],
            span=span,
            find=of,
            number=number,
            prompt=self.prompt(words) if self.inpainter.prompted else "",
            grow=self.grow,
        )
        pair = pair.also(words=dict(words))
        if reason := self.pair_reason(pair.scores):
            return replace(pair, reason=reason)
        return judged(self, space, clip, self.judge, pair, words["instruction"])

    # ---- the gates ----------------------------------------------------------------------------------------

    def object_reason(self, thing: ObjectMeasures) -> str:
        """Why an object is not taken; "" when it is."""
        gates = self.gates
        reasons = (
            (thing.score < gates.confidence, "object found with low confidence"),
            (thing.presence < gates.presence, "object absent from too many frames"),
            (thing.area < gates.area[0], "object too small"),
            (thing.area > gates.area[1], "object too large"),
            (thing.spread > gates.steady, "object's area not steady"),
            (thing.jump < gates.jump, "object's mask jumps"),
            (thing.border > gates.border, "object cut by the picture's edge"),
        )
        return next((reason for fails, reason in reasons if fails), "")

    def pair_reason(self, scores: Mapping[str, float]) -> str:
        """Why a pair is not taken; "" when it is."""
        if scores["outside_psnr"] < self.gates.preserved:
            return "changed outside the mask"
        return "hardly changed inside the mask" if scores["inside_change"] < self.gates.changed else ""


def measured(thing: TrackedObject) -> ObjectMeasures:
    """What the gates look at, as plain numbers."""
    areas = thing.masks.mean((1, 2))
    there = areas > 0
    shown = thing.masks[there]
    edges = [bool(m[0].any() | m[-1].any() | m[:, 0].any() | m[:, -1].any()) for m in shown]
    follows = [float((a & b).sum() / max(1, (a | b).sum())) for a, b in itertools.pairwise(shown)]
    return ObjectMeasures(
        label=thing.label,
        score=round(thing.score, 4),
        seen=thing.seen,
        presence=round(float(there.mean()), 4),
        area=round(float(areas[there].mean()) if there.any() else 0.0, 6),
        spread=round(float(areas[there].std() / areas[there].mean()) if there.any() else 0.0, 4),
        jump=round(min(follows, default=0.0), 4),
        border=round(float(np.mean(edges)) if edges else 0.0, 4),
    )


def compared(source: np.ndarray, target: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """PSNR in dB outside mask [T, H, W] (at most 100) and the mean absolute difference in levels inside."""
    apart = source.astype(np.float32) - target
    outside = float((apart[~mask] ** 2).mean()) if (~mask).any() else 0.0
    inside = float(np.abs(apart[mask]).mean()) if mask.any() else 0.0
    return {"outside_psnr": round(min(100.0, psnr(outside, peak=255)), 3), "inside_change": round(inside, 3)}
