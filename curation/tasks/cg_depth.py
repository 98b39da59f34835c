"""Depth to video and video to depth in rendered scenes, whose depth is exact."""

from __future__ import annotations

from pathlib import Path

from curation.cg import words
from curation.cg.camera import trajectory
from curation.cg.render import Renderer
from curation.core.results import Candidate
from curation.core.stage import Stage
from curation.core.task import MediaWriter, SampleSpec
from curation.ops.control_signals import depth_video
from curation.sources.clips import Clip
from curation.tasks.base import control
from curation.tasks.base.control import from_video, to_video
from curation.tasks.base.scene import SceneTask, still_pose


class CgDepth(SceneTask):
    """The task: depth is normalised once per clip; near is bright."""

    name = "cg_depth"
    code = (control,)

    def stages(self) -> list[Stage]:
        """The still view, then one candidate per scene."""
        return [self.still_stage(), Stage(name="render", run=self._render, inputs=("source",))]

    def _render(self, clip: Clip, folder: Path, source: Candidate) -> Candidate:
        scene, writer = self.scene_of(clip.source), MediaWriter(folder, clip.fps)
        with Renderer(scene) as renderer:
            depth = renderer.depth(trajectory(still_pose(scene), None, clip.frames))
        writer.video("control", depth_video(depth))
        writer.take("video", source, "source")
        return writer.done()

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample each way."""
        caption = words.caption(self.scene_of(clip.source))
        return [to_video("depth", caption), from_video("depth", caption)]
