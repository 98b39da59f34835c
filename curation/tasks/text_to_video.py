"""Text to video, or to a picture where the parent has pictures: from a caption to the video."""

from __future__ import annotations

from curation.core.results import Candidate, Captioned
from curation.core.task import MediaWriter, SampleSpec
from curation.sources.clips import Clip
from curation.tasks.image_to_video import ImageToVideo


class TextToVideo(ImageToVideo):
    """The task: image to video without the image."""

    name = "text_to_video"
    kinds = ("video", "image")

    def write_media(self, writer: MediaWriter, clip: Clip, element: str) -> None:
        """The medium alone."""
        record = self.record(clip)
        writer.copy("video", record.bytes(element), record.sample.media[element])

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        caption = candidate.details(Captioned).caption
        media, told = {"video1": "video"}, {"target": caption}
        spec = SampleSpec("", self.name, f"{caption} <video1>", ("video1",), media, told)
        return [spec.as_image(candidate.files)]
