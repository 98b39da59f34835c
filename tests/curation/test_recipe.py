"""What every task gets from `Task`: results by what they depend on, failures, where a sample comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from curation.core.cache import Workspace
from curation.core.results import Candidate, StageResult, refused
from curation.core.stage import Item, Results, Stage
from curation.core.task import MediaWriter, SampleSpec, Task, seed_of
from curation.sources.clips import Clip
from curation.vlm.interface import AnnotatorError, Backend
from shards.errors import SettingError
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

    def thresholds(self) -> Mapping[str, object]:
        return {"least": self.least}

    def stages(self) -> list[Stage]:
        settings = {"length": self.length}
        return [Stage(name="paint", run=self._paint, annotators=[self.marker], settings=settings)]

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
    assert again.provenance.clip.mended == clip.mended


class Mute:
    """An annotator that cannot do its work while `fails`."""

    fails = True

    def describe(self) -> Backend:
        return Backend("mute")

    def speak(self) -> str:
        if self.fails:
            raise AnnotatorError("out of memory")
        return "done"


@dataclass(frozen=True, kw_only=True)
class Said(StageResult):
    """A word."""

    word: str


class Steps(Task):
    """Four numbers, each with a word; the odd ones are refused, the others painted for two items each."""

    name = "steps"

    def __init__(self, odd: bool = False, stages: list[Stage] | None = None) -> None:
        super().__init__()
        self.odd, self.mute, self.given = odd, Mute(), stages

    def start(self, clip: Clip) -> list[Item]:
        return [Item(values={"number": number}) for number in range(4)]

    def stages(self) -> list[Stage]:
        return self.given or [
            Stage(
                name="say",
                run=self._say,
                result=Said,
                annotators=[self.mute],
                values=("number",),
                decide=self._choose,
            ),
            Stage(name="paint", run=self._paint, values=("number",), inputs=("say",)),
        ]

    def _say(self, clip: Clip, folder: Path, number: int) -> Said:
        if number == 2:
            return Said(word=self.mute.speak())
        return Said(word=str(number))

    def _choose(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        number = item.values["number"]
        assert isinstance(number, int)
        return [refused("odd")] if number % 2 and not self.odd else [item, item.also(twice=True)]

    def _paint(self, clip: Clip, folder: Path, number: int, say: Said) -> Candidate:
        writer = MediaWriter(folder, clip.fps)
        writer.video("made", np.full((4, 16, 16, 3), number, np.uint8))
        return writer.done().also(word=say.word)


def test_what_a_backend_could_not_make_is_not_accepted_and_tried_again(tmp_path: Path) -> None:
    task, space = Steps(), Workspace(tmp_path)
    made = task.process(CLIP, space)
    assert [(c.reason, c.error, c.number) for c in made] == [
        ("", "", (0, 0, 0)),
        ("", "", (0, 1, 0)),
        ("odd", "", (1, 0)),
        ("quarantined", "out of memory", (2, 0)),
        ("odd", "", (3, 0)),
    ]
    assert made[0].about["word"] == "0"
    assert (space.work["say"].computed, space.work["paint"].computed) == (3, 1)  # both items ask for one
    task.mute.fails, again = False, Workspace(tmp_path)
    assert [c.reason for c in task.process(CLIP, again)] == ["", "", "odd", "", "", "odd"]
    assert (again.work["say"].computed, again.work["paint"].computed) == (1, 1)


def test_a_changed_decision_computes_only_what_it_lets_through(tmp_path: Path) -> None:
    task = Steps()
    task.mute.fails = False
    task.process(CLIP, Workspace(tmp_path))
    looser, space = Steps(odd=True), Workspace(tmp_path)
    looser.mute.fails = False
    assert all(not c.reason for c in looser.process(CLIP, space))
    assert (space.work["say"].computed, space.work["paint"].computed) == (0, 2)


def nothing(clip: Clip, folder: Path) -> Candidate:
    return Candidate()


def of_number(clip: Clip, folder: Path, number: int) -> Candidate:
    return Candidate()


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([Stage(name="a", run=nothing), Stage(name="a", run=nothing)], "'a': two stages have this name"),
        ([Stage(name="a", run=nothing, inputs=("b",))], "'a': its input 'b' is no earlier stage"),
        ([Stage(name="a", run=of_number)], "'a': its function takes 'number'; add it to its `values`"),
        ([Stage(name="a", run=nothing, values=("number",))], "'a': its function does not take 'number'"),
    ],
)
def test_a_stage_that_declares_wrongly_is_refused_by_name(stages: list[Stage], said: str) -> None:
    with pytest.raises(SettingError) as told:
        _ = Steps(stages=stages).graph
    assert said in str(told.value)


def test_a_value_or_result_that_nobody_gave_is_named(tmp_path: Path) -> None:
    first = Stage(name="a", run=nothing, decide=lambda clip, item, results: [Item()])
    task = Steps(stages=[first, Stage(name="b", run=of_number, values=("number",))])
    with pytest.raises(SettingError, match="stage 'b': no earlier stage gave its value 'number'"):
        task.process(CLIP, Workspace(tmp_path))
    early = Stage(name="a", run=nothing, decide=lambda clip, item, results: [results["b"]])
    task = Steps(stages=[early, Stage(name="b", run=of_number, values=("number",))])
    with pytest.raises(SettingError, match="stage 'b': its result was asked for before it ran"):
        task.process(CLIP, Workspace(tmp_path))


def test_the_seed_of_a_candidate_is_its_own_and_the_same_on_every_machine() -> None:
    seed = seed_of(CLIP, (0, 81), 1)
    assert seed == seed_of(replace(CLIP, source="elsewhere.mp4"), [0, 81], 1) == 1721535032
    others = [
        seed_of(CLIP, (0, 81), 2),
        seed_of(CLIP, (81, 162), 1),
        seed_of(replace(CLIP, sha256="b" * 64), (0, 81), 1),
    ]
    assert len({seed, *others}) == 4
    assert all(0 <= one < 2**31 for one in [seed, *others])
