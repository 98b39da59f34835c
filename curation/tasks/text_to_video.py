"""Text to video, or to a picture where the parent has pictures: from a caption to the video."""

from __future__ import annotations

from typing import Any

from curation.core.task import MediaWriter, SampleSpec
from curation.sources.clips import Clip
from curation.tasks.image_to_video import ImageToVideo


class TextToVideo(ImageToVideo):
    """The task: image to video without the image."""

    name = "text_to_video"
    kinds = ("video", "image")

    def shelve(self, shelf: MediaWriter, clip: Clip, element: str) -> None:
        """The medium alone."""
        record = self.record(clip)
        shelf.copy("video", record.bytes(element), record.sample.media[element])

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """One sample."""
        media, told = {"video1": "video"}, {"target": result["caption"]}
        draft = SampleSpec("", self.name, f"{result['caption']} <video1>", ("video1",), media, told)
        return [draft.as_image(result["files"])]
