"""Studies as `study create` makes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import inspect

from benchmark.study.creation import create_study
from benchmark.study.database import open_engine
from benchmark.study.definition import StudyDefinition
from benchmark.study.folder import open_study, write_settings
from benchmark.study.records import StudyError
from shards.errors import EditVerseError
from shards.media import write_video
from tests.benchmark.study.conftest import METHODS
from tests.benchmark.study.postgres import postgres
from tests.benchmark.synthetic import drawn


def test_a_study_is_voted_in_from_its_folder(study: Path) -> None:
    store = open_study(study)
    rater, token = store.invite("one")
    assert store.rater_of(token) == rater
    seen = 0
    while (trial := store.next_trial(rater)) is not None:
        for slot in ("source", "left", "right"):
            name = store.media(rater, trial.id, slot)
            assert name is not None
            assert (study / "media" / name).is_file()
        store.show(rater, trial.id)
        assert store.record(
            rater, trial.id, dict.fromkeys(("alignment", "preservation", "aesthetics"), "left"), 1
        )
        seen += 1
    assert seen == rater.total == len(store.votes())


Change = Callable[[Path], object]


def replace(name: str, seconds: float, fps: float = 8.0) -> Change:
    """Another result of item 2 by scarlet."""

    def change(results: Path) -> None:
        frames = drawn(9, round(seconds * fps), 32, 56)
        write_video(results / name / "2" / "generate.mp4", frames, fps)

    return change


def truncate(results: Path, name: str = "scarlet") -> None:
    path = results / name / "2" / "generate.mp4"
    path.write_bytes(path.read_bytes()[:-400])


REFUSED: dict[str, tuple[Change, str]] = {
    "missing": (
        lambda r: [shutil.rmtree(r / "scarlet" / n) for n in "24"],
        r"scarlet: results of 2 of 6 items are missing, the first is .*scarlet/2/generate\.mp4; --allow-m",
    ),
    "no folder": (lambda r: shutil.rmtree(r / "crimson"), r"methods\.crimson: .*crimson is no folder"),
    "the same file": (
        lambda r: shutil.copy(r / "crimson" / "2" / "generate.mp4", r / "scarlet" / "2" / "generate.mp4"),
        r"item 2: crimson and scarlet have the same file \(.*crimson/2/.*scarlet/2/",
    ),
    "longer": (
        replace("scarlet", 2),
        r"scarlet/2/.*: plays 2\.00 s, its source .* 0\.75 s; .* --lengths cut",
    ),
    "no video": (
        lambda r: (r / "scarlet" / "2" / "generate.mp4").write_bytes(b"no video"),
        r"scarlet/2/generate\.mp4: not a video file",
    ),
    "truncated": (truncate, r"scarlet/2/generate\.mp4: "),
}


@pytest.mark.parametrize("fault", list(REFUSED))
def test_material_that_does_not_do_is_refused_by_name_and_nothing_is_left(
    fault: str, material: Path, definition: StudyDefinition, tmp_path: Path
) -> None:
    results = shutil.copytree(material / "results", tmp_path / "results")
    change, message = REFUSED[fault]
    change(results)
    moved = definition.model_copy(update={"methods": {name: str(results / name) for name in METHODS}})
    with pytest.raises(EditVerseError, match=message) as raised:
        create_study(moved, tmp_path / "out" / "study")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_items_without_results_are_left_out_and_lengths_cut_when_asked(
    material: Path, definition: StudyDefinition, tmp_path: Path
) -> None:
    results = shutil.copytree(material / "results", tmp_path / "results")
    shutil.rmtree(results / "crimson" / "3")
    replace("scarlet", 0.5)(results)
    asked = {"methods": {name: str(results / name) for name in METHODS}, "pairs": 15}
    made = create_study(definition.model_copy(update=asked), tmp_path / "study", allow_missing=True, cut=True)
    assert made.items == 5
    assert "1 of 6 items are left out" in made.remarks
    assert set(made.seconds) == {"0", "1", "2", "4", "5"}
    assert made.seconds["2"] == 0.5


def test_a_folder_that_is_there_stays_as_it_is(definition: StudyDefinition, study: Path) -> None:
    before = sorted(study.rglob("*"))
    with pytest.raises(StudyError, match="exists already"):
        create_study(definition, study)
    assert sorted(study.rglob("*")) == before


def test_a_study_without_its_database_says_so(study: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study"):
        open_study(tmp_path)
    (study / "study.sqlite").unlink()
    with pytest.raises(StudyError, match=r"study\.sqlite: is missing"):
        open_study(study)


def test_a_password_is_stored_nowhere(tmp_path: Path) -> None:
    write_settings(tmp_path, "postgresql://me:secret@db.example.org/study?password=secret")
    assert "secret" not in (tmp_path / "study.json").read_text()
    assert '"postgresql://me@db.example.org/study"' in (tmp_path / "study.json").read_text()


@pytest.mark.parametrize("address", ["sqlite:///x.db", "mysql://me@host/db", "nonsense"])
def test_another_kind_of_database_is_refused(
    address: str, definition: StudyDefinition, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="--database"):
        create_study(definition, tmp_path / "study", address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_postgresql_database_holds_one_study_and_all_of_it(
    definition: StudyDefinition, tmp_path: Path
) -> None:
    with postgres() as server:
        address = server.database()
        results = shutil.copytree(Path(definition.methods["scarlet"]), tmp_path / "results")
        truncate(tmp_path, "results")
        broken = definition.model_copy(update={"methods": {**definition.methods, "scarlet": str(results)}})
        with pytest.raises(EditVerseError, match=r"2/generate\.mp4"):
            create_study(broken, tmp_path / "study", address)
        assert inspect(open_engine(address)).get_table_names() == []
        create_study(definition, tmp_path / "study", address)
        store = open_study(tmp_path / "study")
        assert store.definition == definition
        assert len(store.totals) == definition.raters
        assert not (tmp_path / "study" / "study.sqlite").exists()
        store.invite("one")
        with pytest.raises(StudyError, match="has tables of a study already") as raised:
            create_study(definition, tmp_path / "again", address)
        assert "\n" not in str(raised.value)
        assert not (tmp_path / "again").exists()
        assert [rater.label for rater in store.raters()] == ["one"]
        server.stop()
        with pytest.raises(StudyError, match="--database postgresql") as raised:
            create_study(definition, tmp_path / "again", address)
        assert "\n" not in str(raised.value)
