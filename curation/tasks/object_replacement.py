"""Object replacement; everything else stays, to the bit.

Offline, `ObjectReplacement` gives a person's top, trousers or clothes another colour. It is made from
finished removal pairs, whose clean background says where the person is; joints and colours say which of that
is the garment, and what is not surely so is refused. With the paper's models (`GroundedReplacement`) another
object is generated in the place of the old one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from curation.core.interfaces import Inpainter, ObjectFinder, Segmenter
from curation.core.results import Candidate, StageResult, refused
from curation.core.stage import Item, Results, Stage
from curation.core.task import MediaWriter, SampleSpec, key_of
from curation.ops import garments
from curation.ops.mask_augmentation import MODES
from curation.ops.masks import bounds
from curation.sources.clips import Clip, Cut
from curation.tasks.base.derived import DerivedTask
from curation.tasks.base.grounded import GroundedTask, ObjectGates, Worded
from curation.text import templates
from curation.text.templates import colour_name, draw
from curation.text.vlm_captions import Writer
from curation.text.vlm_filter import Judge
from shards.errors import SettingError
from shards.media import read_mask
from shards.video_writer import write_mask

NO_POSE = "joints not seen"
SMALL_PERSON = "person too small"
SMALL = "garment too small"
PARTS = "part of the garment not recognised"
SPILLS = "head, hands or feet in the garment"
UNSTEADY = "garment's area jumps"
BLACK = "too black to show its folds"
MOTTLED = "garment of several colours"
NO_COLOUR = "no colour that would be another"
OTHER_COLOUR = "result has not the colour"
SAME_NAME = "old and new colour have one name"

# CIELAB, lightness 0 to 100
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (42, 60, 42),
    "green": (46, -44, 36),
    "blue": (40, 6, -54),
    "purple": (38, 46, -44),
    "yellow": (80, 2, 74),
    "orange": (63, 40, 64),
}
RISE = 46  # lightness by which cloth can be lifted before its noise shows
# A smaller object still has to cover the old one; another shape gets the room around its outline.
MASK_MODES = {
    "smaller": "original",
    "similar": "original_expand",
    "larger": "bbox_expand",
    "other": "hull_expand",
}
WORDINGS = (
    "Change the colour of the {garment} of {who} to {colour}.",
    "Give {who} {one}.",
    "Recolour the {garment} of {who} to {colour}.",
    "Recolour the {garment} that {who} wears: {colour} instead of {old}.",
    "Change the {old} {garment} of {who} to {colour} and leave everything else as it is.",
    "Let {who} wear {one} instead.",
    "Dress {who} in {one}.",
    "Replace the {old} {garment} of {who} by {one} of the same cut.",
)
MASKED = (
    "Change the colour of the {garment} marked in <mask> to {colour}.",
    "Make the {garment} that <mask> marks {colour}.",
    "Use <mask> to recolour the {old} {garment} of {who} to {colour}.",
    "Recolour what <mask> marks: {colour} instead of {old}.",
    "Use <mask> to give {who} {one}.",
    "Replace the {old} {garment} marked in <mask> by {one} of the same cut.",
    "Dress {who}, whose {garment} <mask> marks, in {one}.",
)


@dataclass(frozen=True)
class GarmentGates:
    """Thresholds, see `curation.ops.garments.Garment`; lengths in pixels of the working size.

    Attributes:
        visibility, visible_frames: a shoulder, a hip and a knee must be seen so surely (0 to 1), in such a
            share of the frames.
        trunk: least length of the trunk; area: least pixels of a garment, in its smallest frame.
        likeness: above it, top and trousers are of one colour unless their medians are `apart` (CIELAB).
        missing: largest piece that may be missing, in all frames but the worst tenth.
        beyond: see `Garment`; jump: most that an area may differ from those around it.
        black, plain: see `Garment`.
        change: least distance in CIELAB between the old colour and the new one.
    """

    visibility: float = 0.5
    visible_frames: float = 0.8
    trunk: float = 11.0
    area: int = 60
    likeness: float = 0.5
    apart: float = 25.0
    missing: float = 0.16
    beyond: float = 0.25
    jump: float = 1.35
    black: float = 0.5
    plain: float = 0.8
    change: float = 40.0


@dataclass(frozen=True, kw_only=True)
class PoseResult(StageResult):
    """Joints [T, 33, 3] of the person of a pair; who is where in person.mkv, bool [T, H, W]."""

    joints: list[list[list[float]]]


@dataclass(frozen=True)
class GarmentMeasures:
    """What is decided on of a garment, see `curation.ops.garments.Garment`."""

    lab: tuple[float, float, float]
    area: list[int]
    missing: list[float]
    beyond: float
    length: float
    plain: float
    black: float


@dataclass(frozen=True, kw_only=True)
class ClothesResult(StageResult):
    """The garments of a person by name, measured, and how alike the colours of top and trousers are.

    The weights of each, uint8 [T, H, W], in <name>.npz.
    """

    garments: dict[str, GarmentMeasures]
    likeness: float


@dataclass(frozen=True)
class Recoloured:
    """Details of a candidate: what was recoloured, in which colour, and who wears it in the parent's words.

    `result` is the name of the colour that was measured in the end.
    """

    garment: str
    old: str
    colour: str
    result: str
    captions: dict[str, str]


class ObjectReplacement(DerivedTask):
    """The task.

    Args:
        segmenter: gives the person's mask and BlazePose's 33 joints.
        parents, tasks, endings: see `DerivedTask`.
        apart: levels from the background that make a pixel surely the person's.
        gates: what is refused.
    """

    name = "object_replacement"
    code = (templates, garments)

    def __init__(
        self,
        segmenter: Segmenter,
        parents: tuple[str, ...],
        tasks: tuple[str, ...] = ("object_removal",),
        endings: tuple[str, ...] = ("-remove",),
        apart: float = 26.0,
        gates: GarmentGates | None = None,
    ) -> None:
        super().__init__(parents, tasks, endings)
        self.segmenter, self.apart, self.gates = segmenter, apart, gates or GarmentGates()

    def thresholds(self) -> Mapping[str, object]:
        """The gates."""
        return {"gates": asdict(self.gates)}

    def stages(self) -> list[Stage]:
        """The person's joints, the garments by them, and each that is surely known in another colour."""
        settings = {"apart": self.apart}
        return [
            Stage(
                name="joints",
                run=self._joints,
                result=PoseResult,
                annotators=[self.segmenter],
                settings=settings,
                decide=self._posed,
            ),
            Stage(
                name="garments",
                run=self._garments,
                result=ClothesResult,
                inputs=("joints",),
                decide=self._choose,
            ),
            Stage(
                name="recolour",
                run=self._recolour,
                values=("garment", "colour"),
                inputs=("joints", "garments"),
                decide=self._accept,
            ),
        ]

    # ---- what the stages compute ------------------------------------------------------------------------

    def _joints(self, clip: Clip, folder: Path) -> PoseResult:
        source, background, mask = _videos(self, clip)
        joints, people = [], np.zeros(mask.shape, bool)
        for t, (frame, apart) in enumerate(zip(source, _differences(source, background), strict=True)):
            sure = (apart > self.apart) & mask[t]
            body = cv2.morphologyEx(sure.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
            box = bounds(body)
            if box is None:  # nobody stands out: joints that nobody sees
                joints.append(np.zeros((33, 3), np.float32))
                continue
            likely, points = self.segmenter.segment(frame, box)
            joints.append(points)
            # the segmenter leaves out shadows; the background leaves out what is no person
            people[t] = (((likely > 0.5) & (apart > self.apart / 2)) | ((likely > 0.25) & sure)) & mask[t]
        write_mask(folder / "person.mkv", people, 25.0)
        return PoseResult(joints=np.stack(joints).round(3).tolist())

    def _garments(self, clip: Clip, folder: Path, joints: PoseResult) -> ClothesResult:
        person = read_mask(joints.folder / "person.mkv")
        clothes = garments.find_clothes(_videos(self, clip)[0], person, np.array(joints.joints, np.float32))
        measured = {}
        for name, garment in (("top", clothes.top), ("trousers", clothes.trousers), ("clothes", clothes.all)):
            np.savez_compressed(
                folder / f"{name}.npz", weight=(garment.weight * 255).round().astype(np.uint8)
            )
            measures = {k: v for k, v in garment._asdict().items() if k != "weight"}
            measured[name] = GarmentMeasures(**measures)
        return ClothesResult(garments=measured, likeness=clothes.likeness)

    def _recolour(
        self, clip: Clip, folder: Path, garment: str, colour: str, joints: PoseResult, garments: ClothesResult
    ) -> Candidate:
        record, (source, background, _) = self.record(clip), _videos(self, clip)
        person, measures = read_mask(joints.folder / "person.mkv"), garments.garments[garment]
        with np.load(garments.folder / f"{garment}.npz", allow_pickle=False) as stored:
            weight = stored["weight"].astype(np.float32) / 255
        target, mask = _recolour(source, background, person, weight, measures.lab, COLOURS[colour])
        writer = MediaWriter(folder, record.sample.media["video1"].fps or 1.0)
        writer.copy("source", record.bytes("video1"), record.sample.media["video1"])
        writer.video("target", target)
        writer.mask("mask", mask)
        old, result = (colour_name(video[weight > 0.9]) for video in (source, target))
        return writer.done(Recoloured(garment, old, colour, result, record.sample.captions))

    # ---- what is decided on it --------------------------------------------------------------------------

    def _posed(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        joints = np.array(results["joints"].joints, np.float32)
        seen = joints[:, garments.SEEN, 2].max(-1).min(-1) >= self.gates.visibility
        if seen.mean() < self.gates.visible_frames:
            return [refused(NO_POSE)]
        small = float(np.median(garments.trunk_length(joints))) < self.gates.trunk
        return [refused(SMALL_PERSON) if small else item]

    def _choose(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        """Top and trousers where one can tell them, or all clothes; each refused or given a colour."""
        found: ClothesResult = results["garments"]
        top, trousers = found.garments["top"], found.garments["trousers"]
        apart = float(np.linalg.norm(np.subtract(top.lab, trousers.lab)))
        one = found.likeness > self.gates.likeness and apart < self.gates.apart
        following: list[Item | Candidate] = []
        for name in ("clothes",) if one else ("top", "trousers"):
            measures = found.garments[name]
            if reason := self._reason(measures):
                following.append(refused(reason))
                continue
            able = [
                colour
                for colour, lab in COLOURS.items()
                if np.linalg.norm(np.subtract(lab, measures.lab)) >= self.gates.change
                and lab[0] - measures.lab[0] <= RISE
            ]
            if not able:
                following.append(refused(NO_COLOUR))
            else:
                following.append(item.also(garment=name, colour=draw(able, clip.key, name)))
        return following

    def _reason(self, garment: GarmentMeasures) -> str:
        """Why a garment is not recoloured; "" when it is."""
        gates, area = self.gates, np.array(garment.area, float)
        if area.min() < gates.area:
            return SMALL
        around = np.pad(area, 2, mode="edge")
        usual = np.median(np.stack([around[k : k + len(area)] for k in range(5)]), axis=0)
        jump = float(np.maximum(area / usual, usual / area).max())
        reasons = (
            (float(np.percentile(garment.missing, 90)) > gates.missing, PARTS),
            (garment.black > gates.black, BLACK),
            (garment.plain < gates.plain, MOTTLED),
            (garment.beyond > gates.beyond, SPILLS),
            (jump > gates.jump, UNSTEADY),
        )
        return next((reason for fails, reason in reasons if fails), "")

    def _accept(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        pair: Candidate = results["recolour"]
        details = pair.details(Recoloured)
        if details.old == details.colour:  # a light blue made dark: no words say that
            return [refused(SAME_NAME)]
        return [pair if details.result == details.colour else refused(OTHER_COLOUR)]

    # ---- samples ----------------------------------------------------------------------------------------

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """With and without the mask in the text; the mask is where source and target differ.

        Without it only if the parent's words fit the person alone.
        """
        details, made = candidate.details(Recoloured), []
        garment, plural = details.garment, details.garment != "top"
        article = "" if plural else "an " if details.colour[0] in "aeiou" else "a "
        named = self.is_named(clip)
        unnamed = [form for form in MASKED if "{who}" not in form]
        forms = [("", list(WORDINGS)), ("mask", list(MASKED))] if named else [("mask", unnamed)]
        for ending, wordings in forms:
            key = key_of(clip, self.name, number, ending)
            text = draw(wordings, key, "form").format(
                who=f"the {details.captions['object']}",
                garment=garment,
                old=details.old,
                colour=details.colour,
                one=f"{article}{details.colour} {garment}",
            )
            told = {
                "source": details.captions["source"],
                "target": f"{details.captions['source'][:-1]}, whose {garment} "
                f"{'are' if plural else 'is'} {details.colour}.",
                "object": details.captions["object"],
            }
            media = {"video1": "source", "video2": "target", "mask": "mask"}
            made.append(SampleSpec(ending, self.name, f"<video1> {text} <video2>", ("video2",), media, told))
        return made


class GroundedReplacement(GroundedTask):
    """The task with the paper's models; the inpainter must follow a prompt.

    Args:
        mask_modes: for each size that the language model may name of the new object ("smaller", "similar",
            "larger", "other"), how the old one's mask is widened: one of `mask_augmentation.MODES`. Those of
            `MASK_MODES` when left out. Raises SettingError for other sizes or modes.

    The other arguments are those of `GroundedTask`.
    """

    name, stage = "object_replacement", "replace"

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
        grow: int = 8,
        mask_modes: dict[str, str] | None = None,
    ) -> None:
        super().__init__(finder, inpainter, writer, judge, cut, gates, names, length, most, grow)
        self.mask_modes = MASK_MODES if mask_modes is None else mask_modes
        if self.mask_modes.keys() != MASK_MODES.keys() or not set(self.mask_modes.values()) <= set(MODES):
            raise SettingError(
                f"mask_modes: {self.mask_modes}; give each of {', '.join(MASK_MODES)} "
                f"one of {', '.join(MODES)}"
            )

    def words(self, frames: np.ndarray, mask: np.ndarray, label: str) -> dict[str, str]:
        """The model suggests what comes instead."""
        told = self.writer.replacement(frames, mask, label).model_dump()
        return {**told, "instruction": told["replace"]}

    def mask_mode(self, words: dict[str, str]) -> str:
        """By the size that the model gives the new object."""
        return self.mask_modes[words["size"]]

    def prompt(self, words: dict[str, str]) -> str:
        """The caption of the result, not the instruction: so the generator was trained."""
        return words["target_caption"]

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """With and without the mask in the text."""
        words, media = (
            candidate.details(Worded).words,
            {"video1": "source", "video2": "target", "mask": "mask", "mask2": "object"},
        )
        told = {"source": words["source_caption"], "target": words["target_caption"]}
        told["object"] = words["object"]
        return [
            SampleSpec(
                ending, self.name, f"<video1> {words['replace']}{more} <video2>", ("video2",), media, told
            )
            for ending, more in (("", ""), ("mask", " It is marked in <mask>."))
        ]


_recolour = garments.recolour  # the method of this name takes the stages' results


def _differences(source: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Largest channel difference, uint8 [T, H, W]."""
    return np.stack([cv2.absdiff(a, b).max(-1) for a, b in zip(source, background, strict=True)])


@functools.lru_cache(maxsize=1)  # the stages of one pair run one after the other in one process
def _videos(task: ObjectReplacement, clip: Clip) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, clean background and mask of the parent's pair."""
    record = task.record(clip)
    return record.video("video1")[0], record.video("video2")[0], record.mask("mask")
