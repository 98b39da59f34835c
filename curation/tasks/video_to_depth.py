"""Video to depth: the samples of `cg_depth` the other way round."""

from __future__ import annotations

from curation.tasks.base.control import BackToControl


class VideoToDepth(BackToControl):
    """Give the depth of a video in grey."""

    name, control = "video_to_depth", "depth"
