"""Removal and addition in rendered scenes: the other video is the same scene rendered without the object.

Exact by construction: shadow and reflection vanish too, and everything else is the same to the bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from curation import naming
from curation.cg import words
from curation.cg.camera import path, stand
from curation.cg.render import Renderer
from curation.cg.scene import SceneSettings
from curation.clips import Clip
from curation.naming import draw
from curation.recipe import Draft, Shelf, key_of, refused
from curation.sources import SceneRecipe
from curation.workspace import Workspace

HIDDEN, TOUCHES, UNNAMED = "hardly seen", "touches another object", "no name fits it alone"
FORMS = {  # ending of the key -> task, wordings
    "remove": ("object_removal", naming.REMOVE),
    "remove-mask": ("object_removal", naming.REMOVE_MASKED),
    "add": ("object_addition", naming.ADD),
    "add-mask": ("object_addition", naming.ADD_MASKED),
}


class CgRemoval(SceneRecipe):
    """The task.

    Args:
        per_scene: most objects of a scene that are taken out, one at a time.
        least_area: share of the picture, averaged over the frames, that an object must cover.
    """

    name = "cg_removal"
    code = (naming,)
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
    ) -> None:
        super().__init__(scene, scenes, first, heldout_fraction, reserved)
        self.per_scene, self.least_area = per_scene, least_area

    def settings(self) -> dict[str, Any]:
        """Which objects are taken."""
        return {"per_scene": self.per_scene, "least_area": self.least_area}

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per object."""
        chosen = self.once(space, "choose", clip, self._choose)
        candidates = [refused(reason) for reason in chosen["rejected"]]
        for number, names in chosen["objects"]:
            candidates.append(self.once(space, "render", clip, self._render, number=number, names=names))
        return {"candidates": candidates}

    def _choose(self, clip: Clip, folder: Path) -> dict[str, Any]:
        """Objects that are seen, stand alone and can be named; a reason for each other one."""
        scene, rejected = self.scene_of(clip.source), list[str]()
        objects: list[list[Any]] = []
        pose = stand(scene.azimuth, scene.elevation, scene.distance)
        with Renderer(scene) as renderer:
            areas = renderer.masks(path(pose, None, clip.frames)).mean((1, 2, 3))
            for number in np.argsort(-areas).tolist():
                names = words.names(scene, number, renderer.motion.positions[0], pose)
                if areas[number] < self.least_area:
                    rejected.append(HIDDEN)
                elif self.alone and renderer.motion.touched[number]:
                    rejected.append(TOUCHES)
                elif not names:
                    rejected.append(UNNAMED)
                elif len(objects) < self.per_scene:
                    objects.append([number, names])
        return {"objects": objects, "rejected": rejected}

    def _render(self, clip: Clip, folder: Path, number: int, names: list[str]) -> dict[str, Any]:
        """Source, target and mask of one object."""
        scene, shelf = self.scene_of(clip.source), Shelf(folder, clip.fps)
        poses = path(stand(scene.azimuth, scene.elevation, scene.distance), None, clip.frames)
        with Renderer(scene) as renderer:
            shelf.video("source", renderer.frames(poses))
            shelf.video("target", renderer.frames(poses, (scene.things[number].name,)))
            shelf.mask("mask", renderer.masks(poses)[number])
        return shelf.done(object=number, names=names)

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[Draft]:
        """Removal and addition, with and without the mask in the text."""
        scene = self.scene_of(clip.source)
        thing = scene.things[result["object"]]
        captions = words.caption(scene), words.caption(scene, without=result["object"])
        made = []
        for ending, (task, forms) in FORMS.items():
            key = key_of(clip, task, number, ending)
            removes = task == "object_removal"
            name = f"the {draw(result['names'], key, 'name')}"
            what = name if removes else f"a {thing.size} {thing.colour} {thing.shape}"
            files = ("source", "target") if removes else ("target", "source")
            told = captions if removes else captions[::-1]
            made.append(
                Draft(
                    ending,
                    task,
                    f"<video1> {draw(forms, key, 'form').format(what=what)} <video2>",
                    ("video2",),
                    {"video1": files[0], "video2": files[1], "mask": "mask"},
                    {"source": told[0], "target": told[1]},
                )
            )
        return made
