"""What every task gets from `Task`: results by what they depend on, failures, where a sample comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from curation.core.cache import Workspace
from curation.core.results import Candidate
from curation.core.task import MediaWriter, SampleSpec, Task, attempt
from curation.sources.clips import Clip
from curation.vlm.interface import AnnotatorError, Backend
from shards.sample import parse_sample

CLIP = Clip("street.mp4", "a" * 64, "street.mp4", 100, 120, 10.0, 16, 16, "heldout", time=10.0)


class Marker:
    """An annotator: a shade of grey."""

    def __init__(self, level: int) -> None:
        self.level = level

    def describe(self) -> Backend:
        return Backend("grey", settings={"level": self.level})


class Grey(Task):
    """A task that makes grey videos."""

    name = "grey"

    def __init__(self, level: int = 9, length: int = 8, least: int = 0) -> None:
        super().__init__()
        self.marker, self.length, self.least = Marker(level), length, least

    def settings(self) -> Mapping[str, object]:
        return {"length": self.length}

    def thresholds(self) -> Mapping[str, object]:
        return {"least": self.least}

    def process(self, clip: Clip, space: Workspace) -> list[Candidate]:
        return [self.cached(space, "paint", clip, self._paint, [self.marker])]

    def _paint(self, clip: Clip, folder: Path) -> Candidate:
        writer = MediaWriter(folder, clip.fps)
        writer.video("made", np.full((self.length, 16, 16, 3), self.marker.level, np.uint8))
        return writer.done(first=4, stop=4 + self.length)

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        return [SampleSpec("", "grey", "Grey. <video1>", ("video1",), {"video1": "made"})]


def test_a_result_is_kept_for_its_settings_and_annotators_alone(tmp_path: Path) -> None:
    def computed(recipe: Grey) -> int:
        space = Workspace(tmp_path)
        recipe.process(CLIP, space)
        return space.work["paint"].computed

    assert computed(Grey()) == 1
    assert computed(Grey()) == 0
    assert computed(Grey(length=4)) == 1
    assert computed(Grey(level=10)) == 1
    assert computed(Grey(least=3)) == 0  # a threshold accepts or refuses what is there
    assert computed(Grey(length=4)) == 0


def test_a_sample_says_which_seconds_of_its_source_it_shows(tmp_path: Path) -> None:
    recipe = Grey()
    (result,) = recipe.process(CLIP, Workspace(tmp_path))
    ((sample, files),) = recipe.build_samples(CLIP, result, 0, recipe.steps())
    assert sample.provenance.clip.span == (10.4, 11.2)  # frames 4 to 12 of a clip that begins at frame 100
    assert sample.provenance.clip.sha256 == CLIP.sha256
    assert (
        b"mended" not in sample.to_json()
    )  # samples of clips that were in order are the bytes that they were
    assert sample.split == "heldout"
    assert files["video1"].is_file()


def test_a_sample_says_what_was_mended(tmp_path: Path) -> None:
    recipe, clip = Grey(), replace(CLIP, mended=("rotated clockwise by 90 degrees", "audio dropped"))
    (result,) = recipe.process(clip, Workspace(tmp_path))
    ((sample, _),) = recipe.build_samples(clip, result, 0, recipe.steps())
    again = parse_sample(sample.to_json(), "again")
    assert again.provenance.clip.mended == ["rotated clockwise by 90 degrees", "audio dropped"]


def test_what_a_backend_could_not_make_is_not_accepted() -> None:
    def fails() -> Candidate:
        raise AnnotatorError("out of memory")

    assert attempt(fails) == Candidate(reason="quarantined", error="out of memory")
    assert attempt(Candidate) == Candidate(reason="")
