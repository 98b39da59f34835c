"""Replacement in rendered scenes: one object in another colour, everything else the same, to the bit.

Reflections of the object change with it; motion, shape and material stay.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from curation.cg import words
from curation.cg.camera import trajectory
from curation.cg.render import Renderer
from curation.cg.scene import COLOURS, Scene
from curation.core.results import Candidate
from curation.core.task import SampleSpec, key_of
from curation.sources.clips import Clip
from curation.tasks.base.scene import still_pose
from curation.tasks.cg_removal import CgRemoval, ChosenObject
from curation.text.templates import draw

WORDINGS = (
    "Change the colour of {what} to {colour}.",
    "Make {what} {colour}.",
    "Paint {what} {colour}.",
    "Replace {what} by {one}.",
)
MASKED = (
    "Change the colour of what <mask> marks to {colour}.",
    "Use <mask> to make {what} {colour}.",
    "Replace the object marked in <mask> by {one}.",
)


class CgReplacement(CgRemoval):
    """The task; the arguments are those of `cg_removal`."""

    name = "cg_replacement"
    alone = False  # what touches it moves the same whatever its colour

    def other(self, scene: Scene, number: int) -> np.ndarray:
        """The scene with the object in another colour, uint8 [T, H, W, 3]."""
        with Renderer(recoloured(scene, number)) as renderer:
            return renderer.frames(trajectory(still_pose(scene), None, scene.settings.frames))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """With and without the mask in the text."""
        scene, made = self.scene_of(clip.source), []
        chosen = candidate.details(ChosenObject)
        other = recoloured(scene, chosen.object)
        colour = other.things[chosen.object].colour
        one = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} one"
        media = {"video1": "source", "video2": "target", "mask": "mask"}
        told = {
            "source": words.caption(scene),
            "target": words.caption(other),
        }
        for ending, forms in (("", WORDINGS), ("mask", MASKED)):
            key = key_of(clip, "object_replacement", number, ending)
            what = f"the {draw(chosen.names, key, 'name')}"
            text = draw(forms, key, "form").format(what=what, colour=colour, one=one)
            video = f"<video1> {text} <video2>"
            made.append(SampleSpec(ending, "object_replacement", video, ("video2",), media, told))
        return [spec.as_image(candidate.files) for spec in made]


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
