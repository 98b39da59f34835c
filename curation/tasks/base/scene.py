"""Tasks over scenes of computer graphics, drawn up from seeds.

The ground truth is exact, whatever clips there are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from curation import cg
from curation.cg import camera, render, scene, screen, words
from curation.cg.camera import Pose, orbit_pose, trajectory
from curation.cg.render import Renderer
from curation.cg.scene import Scene, SceneSettings, as_dict, scene_of
from curation.core import cache
from curation.core.cache import Workspace
from curation.core.results import Candidate
from curation.core.stage import Stage
from curation.core.task import MediaWriter, Task
from curation.sources.clips import Clip
from curation.sources.listing import Sources
from shards.hashing import digest
from shards.sample import Given, Provenance, Step


class SceneTask(Task):
    """A task over scenes from seeds, whatever clips there are.

    Args:
        scenes: how many.
        first: seed of the first one.
        heldout_fraction: share of the scenes, the last ones, that is held out.
        reserved: looks ("green cylinder") that only scenes held out have.
    """

    from_files = False
    note = "rendered from seeds; --clips is not looked at"
    code: ClassVar[tuple[Any, ...]] = (cg, camera, render, scene, screen, words)

    def __init__(
        self,
        scene: SceneSettings | None = None,
        scenes: int = 24,
        first: int = 0,
        heldout_fraction: float = 0.2,
        reserved: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.reserved = tuple(reserved)
        self.scene, self.scenes = scene or SceneSettings(), scenes
        self.first, self.heldout_fraction = first, heldout_fraction

    def find(self, clips: str) -> Sources:
        """One source per seed."""
        return Sources(tuple(f"seed {self.first + i}" for i in range(self.scenes)))

    def units(self, source: str, space: Workspace) -> list[Clip]:
        """The scene of a seed as a clip; its hash is that of the scene's description."""
        made, size = self.scene_of(source), self.scene
        split = "heldout" if self._held(made.seed) else "train"
        name, key = f"scene-{made.seed:06d}", digest(as_dict(made))
        return [Clip(source, key, name, 0, size.frames, size.fps, size.height, size.width, split)]

    def scene_of(self, source: str) -> Scene:
        """The scene of a source."""
        seed = int(source.rpartition(" ")[2])
        settings = self.scene if self._held(seed) else replace(self.scene, without=self.reserved)
        return scene_of(seed, settings)

    def still_stage(self) -> Stage:
        """The stage "source": the scene seen by a camera at rest. It is rendered once for all tasks."""
        return Stage(
            name="source",
            run=self._render_still,
            recipe=SceneTask,
            decide=lambda clip, item, results: [item],
        )

    def _render_still(self, clip: Clip, folder: Path) -> Candidate:
        scene, writer = self.scene_of(clip.source), MediaWriter(folder, clip.fps)
        with Renderer(scene) as renderer:
            writer.frames("source", renderer.frames(trajectory(still_pose(scene), None, clip.frames)))
        return writer.done()

    def preview(self, folder: Path, candidate: Candidate) -> None:
        """As every task, but of pairs alone: neither masks nor a source are one."""
        if sum(medium.kind != "mask" for medium in candidate.files.values()) > 1:
            super().preview(folder, candidate)

    def _held(self, seed: int) -> bool:
        return seed - self.first >= round(self.scenes * (1 - self.heldout_fraction))

    def provenance(self, clip: Clip, candidate: Candidate, steps: list[Step]) -> Provenance:
        """With the seed of the scene."""
        made = super().provenance(clip, candidate, steps)
        seed = Given(seed=self.scene_of(clip.source).seed)
        return made.model_copy(update={"given": {"render": seed, **made.given}})

    def license(self, clip: Clip) -> str:
        """Rendered by us."""
        return "CC0-1.0 (rendered)"

    def steps(self) -> list[Step]:
        """The renderer comes first, with the version of the code that draws up and renders scenes."""
        import mujoco

        made = f"scenes {cache.code_of(*SceneTask.code)}"
        version = mujoco.__version__
        rendered = Step(stage="render", backend="mujoco", model=made, revision=version, license="Apache-2.0")
        return [rendered, *super().steps()]


def still_pose(scene: Scene) -> Pose:
    """Where the still camera of a scene stands."""
    return orbit_pose(scene.azimuth, scene.elevation, scene.distance)
