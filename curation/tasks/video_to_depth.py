"""Video to depth: the samples of `cg_depth` the other way round."""

from __future__ import annotations

from curation.tasks.base.control import BackToControl


class VideoToDepth(BackToControl):
    """The task."""

    name, control = "video_to_depth", "depth"
