"""Depth to video and video to depth in rendered scenes, whose depth is exact."""

from __future__ import annotations

from pathlib import Path

from curation.cg import words
from curation.cg.camera import orbit_pose, trajectory
from curation.cg.render import Renderer
from curation.core.results import Candidate
from curation.core.stage import Stage
from curation.core.task import MediaWriter, SampleSpec
from curation.ops.control_signals import depth_video
from curation.sources.clips import Clip
from curation.tasks.base import control
from curation.tasks.base.control import from_video, to_video
from curation.tasks.base.scene import SceneTask


class CgDepth(SceneTask):
    """The task: depth is normalised once per clip; near is bright."""

    name = "cg_depth"
    code = (control,)

    def stages(self) -> list[Stage]:
        """One candidate per scene."""
        return [Stage(name="render", run=self._render)]

    def _render(self, clip: Clip, folder: Path) -> Candidate:
        scene, writer = self.scene_of(clip.source), MediaWriter(folder, clip.fps)
        poses = trajectory(orbit_pose(scene.azimuth, scene.elevation, scene.distance), None, clip.frames)
        with Renderer(scene) as renderer:
            writer.video("control", depth_video(renderer.depth(poses)))
            writer.video("video", renderer.frames(poses))
        return writer.done()

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample each way."""
        caption = words.caption(self.scene_of(clip.source))
        return [to_video("depth", caption), from_video("depth", caption)]
