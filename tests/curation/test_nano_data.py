"""What `make nano-data` makes, from its own configurations with few scenes each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from curation.__main__ import main
from curation.engine.run import run
from curation.engine.run_all import read_runs
from curation.engine.task_config import RunError
from shards.reader import Record, ShardSet
from shards.verify import verify

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "curation" / "nano"
RESERVED = ("green cylinder", "blue cube", "red egg", "yellow capsule", "purple ball")


def listed() -> list[tuple[str, str]]:
    """The folders of data/nano and their tasks."""
    return [(run.name, run.task) for run in read_runs(CONFIGS.with_suffix(".yaml"))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Record]]:
    """Every rendered folder's samples, two scenes for a task, one of them held out.

    What comes of real clips is tests/curation/test_tasks.py's matter.
    """
    root = tmp_path_factory.mktemp("nano")
    records = {}
    for name, task in listed():
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        arguments = config["init_args"]
        if any(not parent.startswith("data/nano/") for parent in arguments.get("parents", [])):
            continue
        if "scenes" in arguments:
            arguments |= {"scenes": 2, "heldout_fraction": 0.5}
        if "parents" in arguments:
            arguments["parents"] = [str(root / Path(parent).name) for parent in arguments["parents"]]
        path = root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        run(task, root, root / name, root / "workspace", path, 0)
        assert not verify(root / name).faults
        shards = ShardSet(root / name)
        records[name] = [shards[i] for i in range(len(shards))]
    return records


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "needs `runs`"),
        ("runs: {}", "needs `runs`"),
        ("runs: {a: cg_removal}", "runs.a: needs `task`"),
        ("runs: {a: {task: cg_remoal}}", "runs.a: needs `task`, one of camera_change"),
        ("runs: {a: {task: cg_removal, config: none.yaml}}", "runs.a.config: "),
    ],
)
def test_a_wrong_list_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "runs.yaml").write_text(text)
    with pytest.raises(RunError, match=words):
        read_runs(tmp_path / "runs.yaml")


def test_only_selects_among_the_runs_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((CONFIGS / "cg_depth.yaml").read_text())
    config["init_args"] |= {"scenes": 2, "heldout_fraction": 0.5}
    (tmp_path / "depth.yaml").write_text(yaml.safe_dump(config))
    runs = {name: {"task": "cg_depth", "config": "depth.yaml"} for name in ("first", "second", "third")}
    (tmp_path / "runs.yaml").write_text(yaml.safe_dump({"runs": runs}))

    def curate(*only: str) -> int:
        places = ["--out", str(tmp_path / "out"), "--workspace", str(tmp_path / "workspace")]
        names = [f"--only+={name}" for name in only]
        words = ["curation", "all", "--runs", str(tmp_path / "runs.yaml"), *names, *places, "--workers", "0"]
        monkeypatch.setattr("sys.argv", words)
        return main()

    assert curate("third", "first") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["first", "third"]
    assert {len(ShardSet(tmp_path / "out" / name)) for name in ("first", "third")} == {4}
    assert json.loads((tmp_path / "out" / "all.json").read_text())[1]["computed"] == 0  # the same scenes
    page = (tmp_path / "out" / "all.html").read_text()
    assert "<h2>first</h2>" in page
    assert "<h2>third</h2>" in page
    capsys.readouterr()
    assert curate("frist") == 2
    assert "--only frist: " in (told := capsys.readouterr().err)
    assert "first" in told.partition("runs.yaml")[2]
    assert not (tmp_path / "out" / "second").exists()


def test_the_list_is_all_there_is() -> None:
    assert sorted(name for name, _ in listed()) == sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    mixture = yaml.safe_load((ROOT / "configs" / "train" / "mixtures" / "nano.yaml").read_text())["rows"]
    folders = {folder for row in mixture.values() for folder in row["shards"]}
    assert folders == {f"data/nano/{name}" for name, _ in listed()} | {"data/shards/object_removal"}


def test_stills_are_pictures_and_the_rest_short_videos(made: dict[str, list[Record]]) -> None:
    for name, records in made.items():
        kinds = {m.kind for r in records for n, m in r.sample.media.items() if n != "mask"}
        still = name in ("still_removal", "still_replacement", "still_mask", "text_to_still")
        assert kinds == (
            {"image"} if still else {"video", "image"} if name == "image_to_video" else {"video"}
        )
        for record in records:
            assert {m.frames for n, m in record.sample.media.items() if n != "image1"} <= {1 if still else 9}
            assert {(m.height, m.width) for m in record.sample.media.values()} == {(96, 128)}
            assert not still or "video" not in record.sample.text
        assert {r.sample.split for r in records} == {"train", "heldout"}


def test_masks_are_where_the_edit_is(made: dict[str, list[Record]]) -> None:
    for name, marked in (("still_removal", "still_mask"), ("cg_removal", "mask_detection")):
        truth = {np.packbits(r.mask("mask")).tobytes() for r in made[name]}
        hits = 0
        for record in made[marked]:
            drawn = record.pixels(record.sample.targets[0]).mean(-1) > 127
            if name == "still_removal":  # pictures are exact
                hits += np.packbits(drawn).tobytes() in truth
            else:
                hits += 0.001 < drawn.mean() < 0.5
        assert hits >= len(truth)


def test_looks_that_are_reserved_are_not_trained_on(made: dict[str, list[Record]]) -> None:
    for records in made.values():
        for record in records:
            if record.sample.split == "train":
                told = " ".join([record.sample.text, *record.sample.captions.values()])
                assert not [look for look in RESERVED if look in told]
            assert " to the left of " not in record.sample.text


def test_controls_go_both_ways(made: dict[str, list[Record]]) -> None:
    for name, control in (("sketch", "sketch"), ("cg_depth", "depth")):
        tasks = [r.sample.task for r in made[name]]
        assert tasks.count(f"{control}_to_video") == tasks.count(f"video_to_{control}") > 0
