"""Mask detection: from a video and a wish to the region that the wish is about (the paper's template)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.core.results import Candidate
from curation.core.stage import Stage
from curation.core.task import MediaWriter, SampleSpec
from curation.sources.clips import Clip
from curation.tasks.base.derived import DerivedTask
from shards.index import IndexEntry


@dataclass(frozen=True)
class Asked:
    """Details of a candidate: the parent's instruction."""

    text: str


class MaskDetection(DerivedTask):
    """The task, from removals, additions and replacements without a mask in their text (section 4).

    Removal's shards hold each pair as an addition too, so addition's own need not be among the parents.
    """

    name = "mask_detection"

    def __init__(
        self,
        parents: tuple[str, ...],
        tasks: tuple[str, ...] = ("object_removal", "object_addition", "object_replacement"),
        endings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(parents, tasks, endings)

    def takes(self, entry: IndexEntry) -> bool:
        """Whether a parent's sample is taken: a wish that names its mask asks for nothing."""
        return super().takes(entry) and "<mask" not in entry.text

    def stages(self) -> list[Stage]:
        """One candidate per sample."""
        return [Stage(name="mask", run=self._mask)]

    def _mask(self, clip: Clip, folder: Path) -> Candidate:
        record = self.record(clip)
        sample = record.sample
        writer = MediaWriter(folder, sample.media["mask"].fps or 1.0)
        first = next(name for name in ("video1", "image1") if name in sample.media)
        writer.copy("source", record.bytes(first), sample.media[first])
        # the object's own where there is one: the other is all that an edit may have changed around it
        mask = record.mask("mask2" if "mask2" in sample.media else "mask")
        writer.frames("marked", np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=-1))
        return writer.done(Asked(sample.text))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """The wish is the parent's instruction."""
        wish = re.sub(r"<\w+>", "", candidate.details(Asked).text).strip().rstrip(".")
        asked = f"I want to {wish[0].lower()}{wish[1:]}. Detect the region that needs to be edited"
        media = {"video1": "source", "video2": "marked"}
        spec = SampleSpec("", self.name, f"<video1> {asked} <video2>", ("video2",), media)
        return [spec.as_image(candidate.files)]
