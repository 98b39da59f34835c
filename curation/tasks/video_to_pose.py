"""Video to pose: the samples of `pose_to_video` the other way round."""

from __future__ import annotations

from curation.controls import BackToControl


class VideoToPose(BackToControl):
    """The task."""

    name, control = "video_to_pose", "pose"
