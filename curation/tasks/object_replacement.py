"""Object replacement; everything else stays, to the bit.

Offline, the clothes of a person get another colour. That is made from finished removal pairs: where source
and clean background differ inside the mask, the person is; lightness is kept, so folds and shadows stay. With
the paper's models another object is generated in the place of the old one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from curation.core.interfaces import Inpainter, ObjectFinder
from curation.core.results import Candidate, StageResult, refused
from curation.core.stage import Item, Results, Stage
from curation.core.task import MediaWriter, SampleSpec, key_of
from curation.ops.mask_augmentation import MODES
from curation.sources.clips import Clip, Cut
from curation.tasks.base.derived import DerivedTask
from curation.tasks.base.grounded import GroundedTask, ObjectGates, Worded
from curation.text import templates
from curation.text.templates import draw
from curation.text.vlm_captions import Writer
from curation.text.vlm_filter import Judge
from shards.errors import SettingError

TOO_SMALL = "hardly any of the object differs from the background"
COLOURS = {"red": (62, 42), "green": (-45, 38), "blue": (12, -60), "yellow": (2, 72)}  # a, b of CIELAB
# A smaller object still has to cover the old one; another shape gets the room around its outline.
MASK_MODES = {
    "smaller": "original",
    "similar": "original_expand",
    "larger": "bbox_expand",
    "other": "hull_expand",
}
WORDINGS = (
    "Change the clothes of {who} to {colour}.",
    "Dress {who} in {colour}.",
    "Replace {who} by the same person in {colour} clothes.",
)


@dataclass(frozen=True, kw_only=True)
class Silhouette(StageResult):
    """The share of a pair's mask in which the person differs from the background."""

    share: float


@dataclass(frozen=True)
class Recoloured:
    """Details of a candidate: the new colour, and text and captions of the removal that it is made from."""

    colour: str
    text: str
    captions: dict[str, str]


class ObjectReplacement(DerivedTask):
    """The task.

    Args:
        apart: levels from the background that make a pixel the person's.
        least: share of the mask that must be the person's.
    """

    name = "object_replacement"
    code = (templates,)

    def __init__(
        self,
        parents: tuple[str, ...],
        tasks: tuple[str, ...] = ("object_removal",),
        endings: tuple[str, ...] = ("-remove",),
        apart: float = 26.0,
        least: float = 0.15,
    ) -> None:
        super().__init__(parents, tasks, endings)
        self.apart, self.least = apart, least

    def thresholds(self) -> Mapping[str, object]:
        """The gate."""
        return {"least": self.least}

    def start(self, clip: Clip) -> list[Item]:
        """The pair and a colour."""
        names = list(COLOURS)
        return [Item(values={"colour": names[int(clip.key[:8], 16) % len(names)]})]

    def stages(self) -> list[Stage]:
        """How much of the mask is the person's, then the person in another colour."""
        settings = {"apart": self.apart}
        return [
            Stage(
                name="silhouette",
                run=self._measure,
                result=Silhouette,
                settings=settings,
                decide=self._large,
            ),
            Stage(name="recolour", run=self._recolour, values=("colour",), settings=settings),
        ]

    def _large(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        return [refused(TOO_SMALL) if results["silhouette"].share < self.least else item]

    def _measure(self, clip: Clip, folder: Path) -> Silhouette:
        _, alpha, mask = _person(self, clip)
        return Silhouette(share=float((alpha > 0.5).sum() / max(1, mask.sum())))

    def _recolour(self, clip: Clip, folder: Path, colour: str) -> Candidate:
        record, (source, alpha, mask) = self.record(clip), _person(self, clip)
        fps = record.sample.media["video1"].fps or 1.0
        writer = MediaWriter(folder, fps)
        writer.copy("source", record.bytes("video1"), record.sample.media["video1"])
        writer.video("target", recoloured(source, alpha, colour))
        writer.mask("mask", mask)
        return writer.done(Recoloured(colour, record.sample.text, record.sample.captions))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """With and without the mask in the text."""
        details, made = candidate.details(Recoloured), []
        person, colour = details.captions["object"], details.colour
        for ending in ("", "mask"):
            key = key_of(clip, self.name, number, ending)
            who = "the person marked in <mask>" if ending else f"the {person}"
            text = draw(WORDINGS, key, "form").format(who=who, colour=colour)
            media = {"video1": "source", "video2": "target", "mask": "mask"}
            told = {
                "source": details.captions["source"],
                "target": f"A scene with a person in {colour}.",
            }
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


def recoloured(frames: np.ndarray, alpha: np.ndarray, colour: str) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] in a hue of `COLOURS`, as far as alpha float [T, H, W] says."""
    a, b = COLOURS[colour]
    out = []
    for frame, weight in zip(frames, alpha, strict=True):
        lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        strength = np.clip(lab[..., 0] / 35, 0.25, 1)  # black cloth takes less colour
        lab[..., 1], lab[..., 2] = a * strength, b * strength
        lab[..., 0] = np.clip(lab[..., 0] * 0.9 + 12, 0, 92)
        painted = np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * 255
        mixed = np.where(weight[..., None] > 0, frame + weight[..., None] * (painted - frame), frame)
        out.append(mixed.round().clip(0, 255).astype(np.uint8))
    return np.stack(out)


@functools.lru_cache(maxsize=1)  # the stages of one pair run one after the other in one process
def _person(task: ObjectReplacement, clip: Clip) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The source, how far each pixel is the person's float32 (0 to 1), and the mask; all [T, H, W]."""
    record = task.record(clip)
    source, background = record.video("video1")[0], record.video("video2")[0]
    mask = record.mask("mask")
    apart = np.abs(source.astype(np.int16) - background).max(-1)
    alpha = np.stack(
        [
            cv2.GaussianBlur((a * m > task.apart).astype(np.float32), (0, 0), 1.2) * m
            for a, m in zip(apart, mask, strict=True)
        ]
    )
    return source, alpha, mask
