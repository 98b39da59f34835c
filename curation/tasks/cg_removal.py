"""Removal and addition in rendered scenes: the other video is the same scene rendered without the object.

Scenes of one frame give pictures.

Exact by construction: shadow and reflection vanish too, and everything else is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.cg import words
from curation.cg.camera import trajectory
from curation.cg.render import Renderer
from curation.cg.scene import Scene, SceneSettings
from curation.core.results import Candidate, refused
from curation.core.stage import Item, Results, Stage
from curation.core.task import MediaWriter, SampleSpec, key_of
from curation.sources.clips import Clip
from curation.tasks.base.scene import SceneTask, still_pose
from curation.text import templates
from curation.text.templates import draw

HIDDEN, TOUCHES, UNNAMED = "hardly seen", "touches another object", "no name fits it alone"
FORMS = {  # ending of the key -> task, wordings
    "remove": ("object_removal", templates.REMOVE),
    "remove-mask": ("object_removal", templates.REMOVE_MASKED),
    "add": ("object_addition", templates.ADD),
    "add-mask": ("object_addition", templates.ADD_MASKED),
}


@dataclass(frozen=True)
class SceneMeasures:
    """Details of a scene: what its objects are chosen by, one value each.

    Attributes:
        areas: shares of the picture, averaged over the frames.
        touched: whether it meets another object.
        positions: where it is in the first frame, in metres.
    """

    areas: list[float]
    touched: list[bool]
    positions: list[list[float]]


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

    def thresholds(self) -> Mapping[str, object]:
        """Which objects are taken."""
        numbers: dict[str, object] = {"per_scene": self.per_scene, "least_area": self.least_area}
        allowances = {"relations": self.relations, "shapes_alone": self.shapes_alone}
        # only what is refused, so that the recipe of before keeps its digest
        return numbers | {name: False for name, allowed in allowances.items() if not allowed}

    def stages(self) -> list[Stage]:
        """What there is in the scene, the source (once for all its objects), then a pair per object.

        The first two are shared with replacement.
        """
        return [
            Stage(name="scene", run=self._measure, recipe=CgRemoval, decide=self._choose),
            self.still_stage(),
            Stage(
                name="render",
                run=self._render,
                values=("number",),
                inputs=("scene", "source"),
                decide=self._named,
            ),
        ]

    def _measure(self, clip: Clip, folder: Path) -> Candidate:
        """The masks of all objects, and what it is decided by which of them are taken."""
        scene, writer = self.scene_of(clip.source), MediaWriter(folder, clip.fps)
        with Renderer(scene) as renderer:
            masks = renderer.masks(trajectory(still_pose(scene), None, clip.frames))
            for number, mask in enumerate(masks):
                writer.mask(f"mask{number}", mask)
            touched = [bool(touched) for touched in renderer.motion.touched]
            positions = renderer.motion.positions[0].tolist()
        return writer.done(SceneMeasures(masks.mean((1, 2, 3)).tolist(), touched, positions))

    def _choose(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        """The objects that are seen, stand alone and can be named; a reason for each other one."""
        scene, seen = self.scene_of(clip.source), results["scene"].details(SceneMeasures)
        rejected: list[Item | Candidate] = []
        chosen: list[Item | Candidate] = []
        for number in np.argsort(-np.array(seen.areas)).tolist():
            positions, pose = np.array(seen.positions), still_pose(scene)
            names = words.names(scene, number, positions, pose, self.relations, self.shapes_alone)
            if seen.areas[number] < self.least_area:
                rejected.append(refused(HIDDEN))
            elif self.alone and seen.touched[number]:
                rejected.append(refused(TOUCHES))
            elif not names:
                rejected.append(refused(UNNAMED))
            elif len(chosen) < self.per_scene:
                chosen.append(item.also(number=number, names=[*names]))
        return [*rejected, *chosen]

    def _render(
        self, clip: Clip, folder: Path, number: int, scene: Candidate, source: Candidate
    ) -> Candidate:
        writer = MediaWriter(folder, clip.fps)
        writer.take("source", source, "source")
        writer.frames("target", self.other(self.scene_of(clip.source), number))
        writer.take("mask", scene, f"mask{number}")
        return writer.done()

    def _named(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        pair: Candidate = results["render"]
        return [pair.also(object=item.values["number"], names=item.values["names"])]

    def other(self, scene: Scene, number: int) -> np.ndarray:
        """The other video, uint8 [T, H, W, 3]: here the scene without the object."""
        with Renderer(scene) as renderer:
            poses = trajectory(still_pose(scene), None, scene.settings.frames)
            return renderer.frames(poses, (scene.things[number].name,))

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
