"""Recipes whose units are no video files: scenes of computer graphics, and samples that another task made."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from curation import cg, workspace
from curation.cg import camera, render, scene, screen, words
from curation.cg.scene import Scene, SceneSettings, as_dict, scene_of
from curation.clips import Clip
from curation.recipe import Recipe
from curation.workspace import Workspace, digest
from shards.index import IndexEntry, ShardError, read_manifest
from shards.reader import Record, ShardSet
from shards.sample import Provenance, Step


class SceneRecipe(Recipe):
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

    def find(self, clips: Path) -> list[str]:
        """One source per seed."""
        return [f"seed {self.first + i}" for i in range(self.scenes)]

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

    def _held(self, seed: int) -> bool:
        return seed - self.first >= round(self.scenes * (1 - self.heldout_fraction))

    def license(self, clip: Clip) -> str:
        """Rendered by us."""
        return "CC0-1.0 (rendered)"

    def steps(self) -> list[Step]:
        """The renderer comes first, with the version of the code that draws up and renders scenes."""
        import mujoco

        made = f"scenes {workspace.code_of(*SceneRecipe.code)}"
        rendered = Step(stage="render", backend="mujoco", model=made, revision=mujoco.__version__)
        return [rendered, *super().steps()]


class DerivedRecipe(Recipe):
    """A task over finished samples of other tasks, whose media it uses again.

    Args:
        parents: folders of shards of those tasks.
        tasks: of the samples that are taken; subclasses have their own default.
        endings: of the keys of those samples; all where there are none.
    """

    from_files = False
    note = "made from the samples of other tasks; --clips is not looked at"

    def __init__(
        self, parents: tuple[str, ...], tasks: tuple[str, ...], endings: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.parents, self.tasks, self.endings = tuple(parents), tuple(tasks), tuple(endings)

    def find(self, clips: Path) -> list[str]:
        """The parents' shards; ShardError for a parent that is not there."""
        found = []
        for folder in self.parents:
            try:
                found += [f"{folder}/{row.shard}" for row in read_manifest(folder)]
            except ShardError as error:
                raise ShardError(f"{error} `make curate TASK={Path(folder).name}` makes it") from None
        return found

    def units(self, source: str, space: Workspace) -> list[Clip]:
        """The samples of a shard that are taken, as clips."""
        folder, _, shard = source.rpartition("/")
        made = []
        opened = _open(folder)
        digests = {row.shard: row.sha256 for row in opened.rows}
        split = shard.rpartition("-")[0]
        for key in opened.keys:
            entry = opened.entry(key)
            if entry.split == split and self.takes(entry) and opened.shard_of(key) == shard:
                _, frames, height, width = next(iter(entry.media.values()))
                unit = digest([digests[shard], key])
                made.append(Clip(f"{folder}#{key}", unit, key, 0, frames, 1.0, height, width, split))
        return made

    def takes(self, entry: IndexEntry) -> bool:
        """Whether a parent's sample is taken."""
        return entry.task in self.tasks and (not self.endings or entry.key.endswith(self.endings))

    def record(self, clip: Clip) -> Record:
        """The parent's sample."""
        folder, _, key = clip.source.rpartition("#")
        return _open(folder)[key]

    def provenance(self, clip: Clip, result: dict[str, Any], steps: list[Step]) -> Provenance:
        """The parent's, and our own steps after its."""
        parent = self.record(clip).sample.provenance
        return Provenance(clip=parent.clip, steps=[*parent.steps, *steps])


@functools.lru_cache(maxsize=8)
def _open(folder: str) -> ShardSet:
    return ShardSet(folder)
