"""Depth to video. Offline there is no depth model, so depth is that of rendered scenes: `cg_depth`'s samples.

For real clips the reference preset has an estimator; this one does not look at them.
"""

from __future__ import annotations

from curation.controls import ToVideo


class DepthToVideo(ToVideo):
    """The task."""

    name, control = "depth_to_video", "depth"
