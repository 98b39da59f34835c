"""Camera change in rendered scenes: the same moving objects, seen by a camera at rest and by a moving one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curation.cg import words
from curation.cg.camera import MOVEMENTS, trajectory
from curation.cg.render import Renderer
from curation.core.results import Candidate
from curation.core.stage import Item, Stage
from curation.core.task import MediaWriter, SampleSpec, key_of
from curation.sources.clips import Clip
from curation.tasks.base.scene import SceneTask, still_pose
from curation.text.templates import draw

WORDINGS = (
    "Change the camera to {movement}.",
    "Make it a {lower} shot.",
    "Film the same scene with a {lower}.",
    "Move the camera: {lower}.",
)


@dataclass(frozen=True)
class CameraPath:
    """Details of a candidate.

    Attributes:
        movement: one of `MOVEMENTS`.
        poses: of the moving camera in each frame: position (3 numbers), rotation (3 rows of 3), fovy in
            degrees.
    """

    movement: str
    poses: list[tuple[list[float], list[list[float]], float]]


class CgCamera(SceneTask):
    """The task: one of ReCamMaster's ten movements per scene, in turn."""

    name = "cg_camera"

    def start(self, clip: Clip) -> list[Item]:
        """The scene and a movement."""
        seed = self.scene_of(clip.source).seed
        return [Item(values={"movement": MOVEMENTS[seed % len(MOVEMENTS)]})]

    def stages(self) -> list[Stage]:
        """The still view, then one candidate per scene."""
        moving = Stage(name="render", run=self._render, values=("movement",), inputs=("source",))
        return [self.still_stage(), moving]

    def _render(self, clip: Clip, folder: Path, movement: str, source: Candidate) -> Candidate:
        """Both views, and the moving camera's poses."""
        scene, writer = self.scene_of(clip.source), MediaWriter(folder, clip.fps)
        poses = trajectory(still_pose(scene), movement, clip.frames)
        writer.take("source", source, "source")
        with Renderer(scene) as renderer:
            writer.video("target", renderer.frames(poses))
        told = [(p.position.round(5).tolist(), p.rotation.round(6).tolist(), round(p.fovy, 4)) for p in poses]
        return writer.done(CameraPath(movement, told))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        key = key_of(clip, "camera_change", number, "")
        movement = candidate.details(CameraPath).movement
        text = draw(WORDINGS, key, "form").format(movement=movement, lower=movement.lower())
        told = words.caption(self.scene_of(clip.source))
        return [
            SampleSpec(
                "",
                "camera_change",
                f"<video1> {text} <video2>",
                ("video2",),
                {"video1": "source", "video2": "target"},
                {"source": told, "target": f"{told} The camera moves: {movement.lower()}."},
            )
        ]
