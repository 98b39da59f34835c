"""Both directions of a pair: what is told to go is in the source, what is told to come is in the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from curation.cg import words
from curation.cg.scene import SceneSettings
from curation.core.results import Candidate, MediaFile
from curation.core.task import SampleSpec
from curation.sources.clips import Clip
from curation.tasks.cg_removal import CgRemoval
from curation.tasks.object_addition import ObjectAddition
from curation.tasks.object_removal import ObjectRemoval
from curation.text import people, templates

CLIP = Clip("seed 3", "a" * 64, "scene", 0, 9, 10.0, 96, 128, "train")
FILES = {
    "source": MediaFile("source.mp4", "video", 9, 10.0, 96, 128),
    "target": MediaFile("target.mp4", "video", 9, 10.0, 96, 128),
    "mask": MediaFile("mask.mkv", "mask", 9, 10.0, 96, 128),
}


def person() -> tuple[ObjectRemoval, Candidate, str]:
    """The task (words need none of its annotators), a result, and what both captions tell apart."""
    none: Any = None
    phrase = "person on the left in a red top"
    words = {"exact": [phrase], "plain": [phrase], "others": [], "more": False}
    about = {"track": 0, "words": words, "source": "A dark scene", "target": "A dark scene"}
    task = ObjectRemoval(none, none, none, none, none, none)
    return task, Candidate(files=FILES, about=about), "nobody"


def rendered() -> tuple[CgRemoval, Candidate, str]:
    """The same of a rendered scene."""
    task = CgRemoval(SceneSettings(height=96, width=128, frames=9), scenes=4)
    thing = task.scene_of(CLIP.source).things[0]
    return task, Candidate(files=FILES, about={"object": 0, "names": [thing.shape]}), thing.shape


@pytest.mark.parametrize("make", [person, rendered])
def test_removal_starts_with_the_object_and_addition_without(make: Any) -> None:
    task, result, _ = make()
    specs: list[SampleSpec] = task.samples(CLIP, result, 0)
    assert [d.task for d in specs] == ["object_removal"] * 2 + ["object_addition"] * 2
    said = people if make is person else templates
    for spec, forms in zip(specs, (said.REMOVE, said.REMOVE_MASKED, said.ADD, said.ADD_MASKED), strict=True):
        first, second = spec.media["video1"], spec.media["video2"]
        with_object = "video1" if spec.task == "object_removal" else "video2"
        assert spec.media[with_object] == "source"  # the files are named from the removal's side
        assert {first, second} == {"source", "target"}
        assert spec.targets == ("video2",)
        instruction = spec.text.removeprefix("<video1> ").removesuffix(" <video2>")
        begins = {form.partition("{what}")[0] for form in forms}
        assert any(instruction.startswith(start) for start in begins), spec.text


def test_captions_follow_their_videos() -> None:
    task, result, _ = rendered()
    scene = task.scene_of(CLIP.source)
    both = words.caption(scene), words.caption(scene, without=0)
    for spec in task.samples(CLIP, result, 0):
        wanted = both if spec.task == "object_removal" else both[::-1]
        assert (spec.captions["source"], spec.captions["target"]) == wanted
    task_, result_, _ = person()
    for spec in task_.samples(replace(CLIP, source="street.mp4"), result_, 0):
        empty = "target" if spec.task == "object_removal" else "source"
        assert "nobody" in spec.captions[empty]
        assert "nobody" not in spec.captions["source" if empty == "target" else "target"]


def test_a_scene_without_its_only_object_has_a_caption() -> None:
    scene = replace(rendered()[0].scene_of(CLIP.source), things=())
    assert words.caption(scene) == f"A {scene.floor} floor with nothing on it."
    one = replace(scene, things=rendered()[0].scene_of(CLIP.source).things[:1])
    assert words.caption(one, without=0) == words.caption(scene)


def test_addition_alone_is_the_additions() -> None:
    none: Any = None
    addition = ObjectAddition(none, none, none, none, none, none)
    _, result, _ = person()
    assert {spec.task for spec in addition.samples(CLIP, result, 0)} == {"object_addition"}
