"""Customization: from a picture of a subject and a caption to a video in which the subject is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from curation.core.results import Candidate, Captioned, refused
from curation.core.stage import Item, Results, Stage
from curation.core.task import MediaWriter, SampleSpec
from curation.ops import masks
from curation.ops.masks import bounds
from curation.sources.clips import Clip
from curation.tasks.base.derived import DerivedTask

SMALL = "subject too small in every frame"


@dataclass(frozen=True)
class Subject(Captioned):
    """Details of a candidate: the caption, and the subject's height in pixels."""

    height: float


class Customization(DerivedTask):
    """The task, from removal samples: the subject is cut out where it is largest, on white.

    Args:
        least: pixels of the subject's height.
        apart: levels from the clean background that make a pixel the subject's.
        side: pixels of the picture's sides.
    """

    name = "customization"
    code = (masks,)

    def __init__(
        self,
        parents: tuple[str, ...],
        tasks: tuple[str, ...] = ("object_removal",),
        endings: tuple[str, ...] = ("-remove",),
        least: int = 32,
        apart: float = 26.0,
        side: int = 256,
    ) -> None:
        super().__init__(parents, tasks, endings)
        self.least, self.apart, self.side = least, apart, side

    def thresholds(self) -> Mapping[str, object]:
        """The gate."""
        return {"least": self.least}

    def stages(self) -> list[Stage]:
        """One candidate per sample."""
        settings = {"apart": self.apart, "side": self.side}
        return [Stage(name="subject", run=self._subject, settings=settings, decide=self._large)]

    def _large(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        cut_out: Candidate = results["subject"]
        if not cut_out.reason and cut_out.details(Subject).height < self.least:
            return [replace(cut_out, reason=SMALL)]
        return [cut_out]

    def _subject(self, clip: Clip, folder: Path) -> Candidate:
        record = self.record(clip)
        (source, fps), background = record.video("video1"), record.video("video2")[0]
        apart = np.abs(source.astype(np.int16) - background).max(-1) > self.apart
        shown = apart & record.mask("mask")
        # the middle of the clip's larger half: sharp, whole, and not the first frame
        frame = int(np.argsort(shown.sum((1, 2)))[len(shown) * 3 // 4])
        body = cv2.morphologyEx(shown[frame].astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        box = bounds(body > 0)
        if box is None:
            return refused(SMALL)
        left, top, right, bottom = (round(float(v)) for v in box)
        half = round(0.55 * max(right - left, bottom - top))
        soft = cv2.GaussianBlur(body.astype(np.float32), (0, 0), 0.8)[..., None]
        white = source[frame] * soft + 255 * (1 - soft)
        padded = np.pad(white, ((half, half), (half, half), (0, 0)), constant_values=255)
        x, y = (left + right) // 2, (top + bottom) // 2
        picture = padded[y : y + 2 * half, x : x + 2 * half]
        writer = MediaWriter(folder, fps)
        size = (self.side, self.side)
        writer.image(
            "subject", cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
        )
        writer.copy("video", record.bytes("video1"), record.sample.media["video1"])
        return writer.done(Subject(record.sample.captions["source"], float(box[3] - box[1])))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        caption = candidate.details(Captioned).caption
        text = f"The subject of <image1> is in this video. {caption} <video1>"
        media, told = {"image1": "subject", "video1": "video"}, {"target": caption}
        return [SampleSpec("", self.name, text, ("video1",), media, told)]
