"""Removal and addition in rendered scenes: the other video is the same scene rendered without the object.

Scenes of one frame give pictures.

Exact by construction: shadow and reflection vanish too, and everything else is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from curation.cg import words
from curation.cg.camera import Pose, orbit_pose, trajectory
from curation.cg.render import Renderer
from curation.cg.scene import Scene, SceneSettings
from curation.core.cache import Workspace
from curation.core.results import Candidate, refused
from curation.core.task import MediaWriter, SampleSpec, key_of
from curation.sources.clips import Clip
from curation.tasks.base.scene import SceneTask
from curation.text import templates
from curation.text.templates import draw

HIDDEN, TOUCHES, UNNAMED = "hardly seen", "touches another object", "no name fits it alone"
FORMS = {  # ending of the key -> task, wordings
    "remove": ("object_removal", templates.REMOVE),
    "remove-mask": ("object_removal", templates.REMOVE_MASKED),
    "add": ("object_addition", templates.ADD),
    "add-mask": ("object_addition", templates.ADD_MASKED),
}


class NamedObject(NamedTuple):
    """An object of a scene by its number, and names that fit it alone; a list of both in JSON."""

    number: int
    names: list[str]


@dataclass(frozen=True)
class SeenObjects:
    """Details of a scene: the objects that a pair is made of, and why others are not."""

    objects: list[NamedObject]
    rejected: list[str]


@dataclass(frozen=True)
class ChosenObject:
    """Details of a candidate: the number of its object in the scene, and names that fit it alone."""

    object: int
    names: list[str]


class CgRemoval(SceneTask):
    """Render every scene with and without one of its objects.

    Args:
        per_scene: most objects of a scene that are taken out, one at a time.
        least_area: share of the picture, averaged over the frames, that an object must cover.
        relations: whether objects may be named by where they stand.
        shapes_alone: whether objects may be named without their colour.
    """

    name = "cg_removal"
    code = (templates,)
    alone = True  # without an object that touches others, they would have moved otherwise

    def __init__(
        self,
        scene: SceneSettings | None = None,
        scenes: int = 24,
        first: int = 0,
        heldout_fraction: float = 0.2,
        reserved: tuple[str, ...] = (),
        per_scene: int = 2,
        least_area: float = 0.006,
        relations: bool = True,
        shapes_alone: bool = True,
    ) -> None:
        super().__init__(scene, scenes, first, heldout_fraction, reserved)
        self.per_scene, self.least_area = per_scene, least_area
        self.relations, self.shapes_alone = relations, shapes_alone

    def settings(self) -> Mapping[str, object]:
        """Which objects are taken."""
        numbers: dict[str, object] = {"per_scene": self.per_scene, "least_area": self.least_area}
        allowances = {"relations": self.relations, "shapes_alone": self.shapes_alone}
        # only what is refused, so that samples of before keep their keys
        return numbers | {name: False for name, allowed in allowances.items() if not allowed}

    def process(self, clip: Clip, space: Workspace) -> list[Candidate]:
        """One candidate per object."""
        whole = self.cached(space, "scene", clip, self._whole)
        seen = whole.details(SeenObjects)

        def render(clip: Clip, folder: Path, number: int, names: list[str], of: str) -> Candidate:
            writer = MediaWriter(folder, clip.fps)
            writer.take("source", whole, "source")
            scene = self.scene_of(clip.source)
            writer.frames("target", self.other(scene, number))
            writer.take("mask", whole, f"mask{number}")
            return writer.done(ChosenObject(number, names))

        candidates = [refused(reason) for reason in seen.rejected]
        for number, names in seen.objects:
            of = whole.folder.name
            candidates.append(self.cached(space, "render", clip, render, number=number, names=names, of=of))
        return candidates

    def _whole(self, clip: Clip, folder: Path) -> Candidate:
        """The source, masks of objects that are seen, stand alone and can be named, and why others do not."""
        scene, rejected = self.scene_of(clip.source), list[str]()
        objects: list[NamedObject] = []
        pose, writer = viewed(scene), MediaWriter(folder, clip.fps)
        with Renderer(scene) as renderer:
            masks = renderer.masks(trajectory(pose, None, clip.frames))
            areas = masks.mean((1, 2, 3))
            for number in np.argsort(-areas).tolist():
                names = words.names(
                    scene,
                    number,
                    renderer.motion.positions[0],
                    pose,
                    self.relations,
                    self.shapes_alone,
                )
                if areas[number] < self.least_area:
                    rejected.append(HIDDEN)
                elif self.alone and renderer.motion.touched[number]:
                    rejected.append(TOUCHES)
                elif not names:
                    rejected.append(UNNAMED)
                elif len(objects) < self.per_scene:
                    objects.append(NamedObject(number, names))
                    writer.mask(f"mask{number}", masks[number])
            if objects:
                writer.frames("source", renderer.frames(trajectory(pose, None, clip.frames)))
        return writer.done(SeenObjects(objects, rejected))

    def other(self, scene: Scene, number: int) -> np.ndarray:
        """The other video, uint8 [T, H, W, 3]: here the scene without the object."""
        with Renderer(scene) as renderer:
            poses = trajectory(viewed(scene), None, scene.settings.frames)
            return renderer.frames(poses, (scene.things[number].name,))

    def preview(self, folder: Path, candidate: Candidate) -> None:
        """As every task, of pairs alone: what was refused has no target."""
        if "target" in candidate.files:
            super().preview(folder, candidate)

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """Removal and addition, with and without the mask in the text."""
        scene, chosen = self.scene_of(clip.source), candidate.details(ChosenObject)
        thing = scene.things[chosen.object]
        captions = words.caption(scene), words.caption(scene, without=chosen.object)
        made = []
        for ending, (task, forms) in FORMS.items():
            key = key_of(clip, task, number, ending)
            removes = task == "object_removal"
            name = f"the {draw(chosen.names, key, 'name')}"
            what = name if removes else f"a {thing.size} {thing.colour} {thing.shape}"
            files = ("source", "target") if removes else ("target", "source")
            told = captions if removes else captions[::-1]
            made.append(
                SampleSpec(
                    ending,
                    task,
                    f"<video1> {draw(forms, key, 'form').format(what=what)} <video2>",
                    ("video2",),
                    {"video1": files[0], "video2": files[1], "mask": "mask"},
                    {"source": told[0], "target": told[1]},
                )
            )
        return [spec.as_image(candidate.files) for spec in made]


def viewed(scene: Scene) -> Pose:
    """Where the still camera of a scene stands."""
    return orbit_pose(scene.azimuth, scene.elevation, scene.distance)
