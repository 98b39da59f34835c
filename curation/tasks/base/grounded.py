"""Tasks about objects that are found by name (section 4): one recipe up to the edit, and after it.

Names -> detection -> SAM 2 -> gates on confidence, area and steadiness -> words -> the task's edit -> gates
on its result -> grades: each a stage with a model of its own. What a gate or a grade refuses is decided on
stored results, so a changed threshold computes nothing anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from curation.core.interfaces import Detections, Inpainter, ObjectFinder, TrackedObject
from curation.core.results import Candidate, StageResult, refused
from curation.core.stage import Item, Results, Stage
from curation.core.task import MediaWriter, Task, seed_of
from curation.ops import mask_augmentation, masks
from curation.sources.clips import Clip, Cut, load_frames
from curation.text.vlm_captions import Writer
from curation.text.vlm_filter import Judge, judge_stage
from shards.frames import psnr
from shards.media import read_mask, write_mask
from shards.sample import Given


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


class Keyframe(NamedTuple):
    """What was detected in a frame of a window: boxes [N, 4] in pixels, scores, names; a list in JSON."""

    frame: int
    boxes: list[list[float]]
    scores: list[float]
    labels: list[str]


@dataclass(frozen=True, kw_only=True)
class GroundedObjects(StageResult):
    """The detections by name of a window."""

    keyframes: list[Keyframe]

    def as_detections(self) -> dict[int, Detections]:
        """Frame -> detections as arrays."""
        return {
            one.frame: Detections(
                np.array(one.boxes, np.float32).reshape(-1, 4),
                np.array(one.scores, np.float32),
                tuple(one.labels),
            )
            for one in self.keyframes
        }


@dataclass(frozen=True, kw_only=True)
class FoundObjects(StageResult):
    """The objects of a window; the masks of number `n` are in its folder as object<n>.mkv."""

    things: list[ObjectMeasures]

    def mask(self, number: int) -> np.ndarray:
        """The mask of an object, bool [T, H, W]."""
        return read_mask(self.folder / f"object{number}.mkv")


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

    code: ClassVar[tuple[Any, ...]] = (masks, mask_augmentation)
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
        self.detector, self.follower = finder.annotators()
        self.inpainter = inpainter
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

    def mask_mode(self, words: dict[str, str]) -> str:
        """How the object's mask is widened for the edit, one of `mask_augmentation.MODES`."""
        return "original"

    # ---- the recipe ---------------------------------------------------------------------------------------

    def thresholds(self) -> Mapping[str, object]:
        """Of objects, edits and grades."""
        return {"gates": asdict(self.gates), "grades": self.judge.thresholds}

    def settings(self) -> Mapping[str, object]:
        """Windows, names and growth."""
        return {"length": self.length, "names": list(self.names), "grow": self.grow}

    def start(self, clip: Clip) -> list[Item]:
        """The windows of a clip, with the names if they are given."""
        spans = self.windows(clip, self.length, self.most)
        items = [Item(values={"span": list(span)}) for span in spans]
        return [item.also(names=list(self.names)) for item in items] if self.names else items

    def stages(self) -> list[Stage]:
        """From names to graded pairs: one for each object of each window."""
        name = Stage(
            name="name",
            run=self._name,
            result=ObjectNames,
            annotators=[self.writer],
            values=("span",),
            decide=self._named,
        )
        return [
            *([] if self.names else [name]),
            Stage(
                name="ground",
                run=self._ground,
                result=GroundedObjects,
                annotators=[self.detector],
                values=("span", "names"),
            ),
            Stage(
                name="segment",
                run=self._segment,
                result=FoundObjects,
                annotators=[self.follower],
                values=("span",),
                inputs=("ground",),
                decide=self._choose,
            ),
            Stage(
                name="write",
                run=self._write,
                result=PairWords,
                annotators=[self.writer],
                values=("span", "number"),
                inputs=("segment",),
                decide=self._worded,
            ),
            Stage(
                name=self.stage,
                run=self._edit,
                annotators=[self.inpainter],
                values=("span", "number", "prompt", "mask_mode"),
                inputs=("segment",),
                settings={"grow": self.grow},
                decide=self._check,
            ),
            judge_stage(self.judge, self.stage, self._complete),
        ]

    # ---- what the stages compute --------------------------------------------------------------------------

    def _name(self, clip: Clip, folder: Path, span: tuple[int, int]) -> ObjectNames:
        return ObjectNames(names=self.writer.names(load_frames(clip)[slice(*span)]))

    def _ground(self, clip: Clip, folder: Path, span: tuple[int, int], names: list[str]) -> GroundedObjects:
        detected = self.detector.detect(load_frames(clip)[slice(*span)], names)
        return GroundedObjects(
            keyframes=[
                Keyframe(t, found.boxes.tolist(), found.scores.tolist(), list(found.labels))
                for t, found in detected.items()
            ]
        )

    def _segment(
        self, clip: Clip, folder: Path, span: tuple[int, int], ground: GroundedObjects
    ) -> FoundObjects:
        frames = load_frames(clip)[slice(*span)]
        things = self.follower.follow(frames, ground.as_detections())
        for number, thing in enumerate(things):
            write_mask(folder / f"object{number}.mkv", thing.masks, clip.fps)
        return FoundObjects(things=[measured(thing) for thing in things])

    def _write(
        self, clip: Clip, folder: Path, span: tuple[int, int], number: int, segment: FoundObjects
    ) -> PairWords:
        frames, mask = load_frames(clip)[slice(*span)], segment.mask(number)
        return PairWords(words=self.words(frames, mask, segment.things[number].label))

    def _edit(
        self,
        clip: Clip,
        folder: Path,
        span: tuple[int, int],
        number: int,
        prompt: str,
        mask_mode: str,
        segment: FoundObjects,
    ) -> Candidate:
        frames, thing = load_frames(clip)[slice(*span)], segment.things[number]
        hole = self.hole(segment, number, mask_mode)
        seed = seed_of(clip, span, number)
        edited, changed = self.inpainter.inpaint(frames, hole, clip.fps, prompt, seed)
        writer = MediaWriter(folder, clip.fps)
        writer.video("source", frames)
        writer.video("target", edited)
        writer.mask("mask", changed)
        writer.mask("object", segment.mask(number))
        scores = {"confidence": thing.score, **compared(frames, edited, hole, changed)}
        given = {self.stage: Given(prompt=prompt, seed=seed)}
        return writer.done(Labelled(thing.label), first=span[0], stop=span[1], scores=scores, given=given)

    def hole(self, segment: FoundObjects, number: int, mode: str) -> np.ndarray:
        """What the edit may fill, bool [T, H, W]: the object's mask, grown, and widened to `mode`.

        Where widening would take of another object, that stays as it is.
        """
        own = segment.mask(number)
        grown = np.stack([masks.dilate(m, self.grow) for m in own])
        if mode == "original":
            return grown
        widened = mask_augmentation.augment(own, mode)
        for other in range(len(segment.things)):
            if other != number:
                widened &= ~segment.mask(other)
        return grown | widened

    # ---- what is decided on it ----------------------------------------------------------------------------

    def _named(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        """A window with the names of what it shows; one in which nothing is named has no object."""
        names = results["name"].names
        return [item.also(names=names) if names else refused("no object named")]

    def _choose(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        """The objects of a window that the gates let through."""
        things = results["segment"].things
        if not things:
            return [refused("no object of these names")]
        reasons = map(self.object_reason, things)
        return [refused(reason) if reason else item.also(number=n) for n, reason in enumerate(reasons)]

    def _worded(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        words = results["write"].words
        prompt = self.prompt(words) if self.inpainter.prompted else ""
        said = {"prompt": prompt, "instruction": words["instruction"]}
        return [item.also(**said, mask_mode=self.mask_mode(words))]

    def _check(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        reason = self.pair_reason(results[self.stage].scores)
        return [replace(self._complete(item, results), reason=reason) if reason else item]

    def _complete(self, item: Item, results: Results) -> Candidate:
        """The pair with its words."""
        pair: Candidate = results[self.stage]
        return pair.also(words=dict(results["write"].words))

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


def compared(
    source: np.ndarray, target: np.ndarray, mask: np.ndarray, changed: np.ndarray
) -> dict[str, float]:
    """How a pair differs: PSNR in dB outside of `changed` (at most 100), mean levels inside of `mask`.

    Both are bool [T, H, W]: `mask` the hole that was to be filled, `changed` all that may differ.
    """
    apart = source.astype(np.float32) - target
    outside = float((apart[~changed] ** 2).mean()) if (~changed).any() else 0.0
    inside = float(np.abs(apart[mask]).mean()) if mask.any() else 0.0
    return {"outside_psnr": round(min(100.0, psnr(outside, peak=255)), 3), "inside_change": round(inside, 3)}
