"""Video to pose: the samples of `pose_to_video` the other way round."""

from __future__ import annotations

from curation.tasks.base.control import BackToControl


class VideoToPose(BackToControl):
    """Give the poses of a video as a drawing."""

    name, control = "video_to_pose", "pose"
