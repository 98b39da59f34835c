"""Replacement in rendered scenes: one object in another colour, everything else the same, to the bit.

Reflections of the object change with it; motion, shape and material stay.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from curation.cg import words
from curation.cg.camera import path, stand
from curation.cg.render import Renderer
from curation.cg.scene import COLOURS, Scene
from curation.clips import Clip
from curation.naming import draw
from curation.recipe import Draft, Shelf, key_of
from curation.tasks import cg_removal
from curation.tasks.cg_removal import CgRemoval

WORDINGS = (
    "Change the colour of {what} to {colour}.",
    "Make {what} {colour}.",
    "Paint {what} {colour}.",
    "Replace {what} by a {colour} one.",
)
MASKED = (
    "Change the colour of what <mask> marks to {colour}.",
    "Use <mask> to make {what} {colour}.",
    "Replace the object marked in <mask> by a {colour} one.",
)


class CgReplacement(CgRemoval):
    """The task; the arguments are those of `cg_removal`."""

    name = "cg_replacement"
    code = (cg_removal,)
    alone = False  # what touches it moves the same whatever its colour

    def _render(self, clip: Clip, folder: Path, number: int, names: list[str]) -> dict[str, Any]:
        """Source, target and mask of one object."""
        scene, shelf = self.scene_of(clip.source), Shelf(folder, clip.fps)
        poses = path(stand(scene.azimuth, scene.elevation, scene.distance), None, clip.frames)
        other = recoloured(scene, number)
        with Renderer(scene) as renderer:
            shelf.video("source", renderer.frames(poses))
            shelf.mask("mask", renderer.masks(poses)[number])
        with Renderer(other) as renderer:
            shelf.video("target", renderer.frames(poses))
        return shelf.done(object=number, names=names, colour=other.things[number].colour)

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[Draft]:
        """With and without the mask in the text."""
        scene, made = self.scene_of(clip.source), []
        media = {"video1": "source", "video2": "target", "mask": "mask"}
        told = {
            "source": words.caption(scene),
            "target": words.caption(recoloured(scene, result["object"])),
        }
        for ending, forms in (("", WORDINGS), ("mask", MASKED)):
            key = key_of(clip, "object_replacement", number, ending)
            what = f"the {draw(result['names'], key, 'name')}"
            text = draw(forms, key, "form").format(what=what, colour=result["colour"])
            video = f"<video1> {text} <video2>"
            made.append(Draft(ending, "object_replacement", video, ("video2",), media, told))
        return made


def recoloured(scene: Scene, number: int) -> Scene:
    """The scene with one object in a colour that its shape and size have not in it yet."""
    thing = scene.things[number]
    taken = {t.colour for t in scene.things if (t.shape, t.size) == (thing.shape, thing.size)}
    kept = {look.split()[0] for look in scene.settings.without if look.split()[1] == thing.shape}
    free = sorted(set(COLOURS) - taken - kept)
    colour = free[int(np.random.default_rng([scene.seed, number, 21]).integers(len(free)))]
    things = [*scene.things]
    things[number] = replace(thing, colour=colour)
    return replace(scene, things=tuple(things))
