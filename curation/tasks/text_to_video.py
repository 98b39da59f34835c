"""Text to video: from a caption to the video."""

from __future__ import annotations

from typing import Any

from curation.clips import Clip
from curation.recipe import Draft
from curation.tasks.image_to_video import ImageToVideo


class TextToVideo(ImageToVideo):
    """The task: image to video without the image."""

    name = "text_to_video"

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[Draft]:
        """One sample."""
        media, told = {"video1": "video"}, {"target": result["caption"]}
        return [Draft("", self.name, f"{result['caption']} <video1>", ("video1",), media, told)]
