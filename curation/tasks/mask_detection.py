"""Mask detection: from a video and a wish to the region that the wish is about (the paper's template)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from curation.core.cache import Workspace
from curation.core.task import MediaWriter, SampleSpec
from curation.sources.clips import Clip
from curation.tasks.base.derived import DerivedTask
from shards.index import IndexEntry


class MaskDetection(DerivedTask):
    """The task, from removal samples without a mask in their text."""

    name = "mask_detection"

    def __init__(
        self,
        parents: tuple[str, ...],
        tasks: tuple[str, ...] = ("object_removal",),
        endings: tuple[str, ...] = ("-remove",),
    ) -> None:
        super().__init__(parents, tasks, endings)

    def takes(self, entry: IndexEntry) -> bool:
        """Whether a parent's sample is taken: a wish that names its mask asks for nothing."""
        return super().takes(entry) and "<mask" not in entry.text

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per sample."""
        return {"candidates": [self.once(space, "mask", clip, self._mask)]}

    def _mask(self, clip: Clip, folder: Path) -> dict[str, Any]:
        record = self.record(clip)
        sample = record.sample
        shelf = MediaWriter(folder, sample.media["mask"].fps or 1.0)
        first = next(name for name in ("video1", "image1") if name in sample.media)
        shelf.copy("source", record.bytes(first), sample.media[first])
        shelf.frames("marked", np.repeat(record.mask("mask")[..., None].astype(np.uint8) * 255, 3, axis=-1))
        return shelf.done(text=sample.text)

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """The wish is the parent's instruction."""
        wish = re.sub(r"<\w+>", "", result["text"]).strip().rstrip(".")
        asked = f"I want to {wish[0].lower()}{wish[1:]}. Detect the region that needs to be edited"
        media = {"video1": "source", "video2": "marked"}
        draft = SampleSpec("", self.name, f"<video1> {asked} <video2>", ("video2",), media)
        return [draft.as_image(result["files"])]
