"""Video to sketch: the samples of `sketch_to_video` the other way round."""

from __future__ import annotations

from curation.tasks.base.control import BackToControl


class VideoToSketch(BackToControl):
    """Give the edges of a video as a drawing."""

    name, control = "video_to_sketch", "sketch"
