"""Replacement with the paper's models: how a mask makes room for the new object."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.annotators.grounded_sam2 import GroundedSam2
from curation.annotators.grounding_dino import GroundingDino
from curation.annotators.sam2 import Sam2Hub
from curation.annotators.vace import GeneratedFill, WanVace
from curation.core.interfaces import TrackedObject
from curation.tasks.base.grounded import FoundObjects, measured
from curation.tasks.object_replacement import MASK_MODES, GroundedReplacement
from curation.text.vlm_captions import Writer
from curation.text.vlm_filter import Judge
from curation.vlm.endpoint import Endpoint
from curation.vlm.interface import AnnotatorError, Backend
from shards.errors import SettingError
from shards.media import write_mask
from tests.curation.reference.answers import Answers


@pytest.fixture
def task(endpoint: tuple[str, type[Answers]]) -> Callable[..., GroundedReplacement]:
    """`task(**settings)`: the task with models that are not loaded, and words from the endpoint."""
    vlm = Endpoint(endpoint[0], "m", retries=0)
    finder = GroundedSam2(GroundingDino("none"), Sam2Hub("none"))
    parts = (finder, GeneratedFill(WanVace("none")), Writer(vlm), Judge(vlm, {}))
    return lambda **settings: GroundedReplacement(*parts, **settings)


@pytest.fixture
def segment(tmp_path: Path) -> FoundObjects:
    """A slanted object and another one close to its right, [3, 60, 100]."""
    objects = np.zeros((2, 3, 60, 100), bool)
    y, x = np.mgrid[0:60, 0:100]
    objects[0] = (abs(x - y - 20) < 6) & (y > 15) & (y < 40)
    objects[1, :, 20:50, 70:76] = True
    things = []
    for number, masks in enumerate(objects):
        write_mask(tmp_path / f"object{number}.mkv", masks, 10.0)
        things.append(measured(TrackedObject("dog", 0.9, 1, masks)))
    return FoundObjects(things=things, folder=tmp_path)


def test_the_mask_goes_by_the_size_of_the_new_object(
    task: Callable[..., GroundedReplacement], segment: FoundObjects
) -> None:
    replacement = task(grow=2)
    holes = {
        size: replacement.hole(segment, 0, replacement.mask_mode({"size": size}))
        for size in ("smaller", "similar", "larger", "other")
    }
    areas = {size: int(hole.sum()) for size, hole in holes.items()}
    assert areas["smaller"] < areas["similar"] < areas["larger"]
    assert areas["smaller"] < areas["other"] < areas["larger"]
    own, other = segment.mask(0), segment.mask(1)
    for hole in holes.values():
        assert (hole & own).sum() == own.sum()  # nothing of the old object may stay
        assert not (hole & other).any()  # and nothing else changes
    narrow = task(mask_modes=dict.fromkeys(holes, "original"), grow=2)
    assert np.array_equal(narrow.hole(segment, 0, narrow.mask_mode({"size": "larger"})), holes["smaller"])


@pytest.mark.parametrize("modes", [{"smaller": "hull"}, dict.fromkeys(MASK_MODES, "box")])
def test_unknown_sizes_and_modes_are_refused(task: Callable[..., GroundedReplacement], modes: Any) -> None:
    with pytest.raises(SettingError, match="give each of smaller, similar, larger, other one of original,"):
        task(mask_modes=modes)


@pytest.mark.parametrize(
    ("answer", "size"),
    [("Larger.", "larger"), ('"other shape"', "other"), ("SIMILAR", "similar"), ("as big as a house", "")],
)
def test_sizes_are_read_as_models_write_them(answer: str, size: str) -> None:
    class Answering:
        def describe(self) -> Backend:
            return Backend("answering")

        def ask(self, media: object, text: str) -> str:
            fields = ("object", "replacement", "replace", "source_caption", "target_caption")
            said = {**dict.fromkeys(fields, "a dog"), "size": answer}
            return json.dumps(said)

    frames, mask = np.zeros((2, 8, 8, 3), np.uint8), np.ones((2, 8, 8), bool)
    writer = Writer(Answering(), attempts=1)  # type: ignore[arg-type]  # it is only asked
    if size:
        assert writer.replacement(frames, mask, "dog").size == size
    else:
        with pytest.raises(AnnotatorError, match="size"):
            writer.replacement(frames, mask, "dog")
