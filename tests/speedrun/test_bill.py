"""The bill of a speedrun: what grows with what, where its numbers are from, and its limit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from editverse.speedrun.bill.amounts import read_size
from editverse.speedrun.bill.calibration import Calibration, StageTime, fit, machine, write_calibration
from editverse.speedrun.bill.cli import bill, calibrate, compare, make_bill
from editverse.speedrun.bill.costs import BILL, STAGES, Bill, BillError, StageCost, read_bill, write_bill
from editverse.speedrun.bill.scaling import scaled
from editverse.speedrun.settings import read_settings
from shards.errors import ConfigError, EditVerseError, SettingError

MEDIA = {"min_area": 57600, "max_area": 230400, "frames": 81, "fps": 16.0}
TRAINING: dict[str, Any] = {
    "data": {"batch_size": 64, "token_budget": 37800},
    "train": {"init_from": "wan2.1_1.3b", "media": MEDIA, "steps": 1000, "validate_every": 1000},
    "parallel": {"checkpointing": "full"},
}
AMOUNTS: dict[str, Any] = {
    "clips": 1000,
    "candidates": {"removal": 2000, "sketch": 1000},
    "accepted": 0.5,
    "imported": 10_000,
    "items": 100,
}
RUNS = {
    "removal": {"task": "object_removal", "config": "configs/curation/object_removal.reference.yaml"},
    "sketch": {"task": "sketch_to_video", "config": "configs/curation/sketch_to_video.offline.yaml"},
}


def a_size(folder: Path, base: str = "wan2.1_1.3b", settings: Any = {}, **amounts: Any) -> str:  # noqa: B006
    """A folder like those of configs/speedrun."""
    folder.mkdir(parents=True)
    distill = TRAINING | {"distill": {"steps": 4, "teacher_steps": 20, "guidance": 4.0}}
    files = {
        "settings": {"base": base, "gpus": 8, **settings},
        "bill": AMOUNTS | amounts,
        "curation": {"runs": RUNS},
        "stage1": TRAINING,
        "stage2": TRAINING,
        "distill": distill,
    }
    for name, value in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value))
    return str(folder)


@pytest.fixture(scope="module")
def size(tmp_path_factory: pytest.TempPathFactory) -> str:
    return a_size(tmp_path_factory.mktemp("sizes") / "mine")


def estimated(size: str, gpus: int = 8) -> Bill:
    return make_bill(read_size(size, gpus))


def test_every_row_says_what_it_takes_for_granted_and_the_file_is_the_bill(size: str, tmp_path: Path) -> None:
    bill(size, out=tmp_path / BILL)
    made = read_bill(tmp_path / BILL)
    assert made == estimated(size)
    assert [row.stage for row in made.stages] == list(STAGES)
    assert all(row.basis == "estimated" and row.assumptions and row.hours > 0 for row in made.stages)
    assert json.loads((tmp_path / BILL).read_text())["gpu_hours"] == pytest.approx(made.gpu_hours)


def test_twice_as_much_costs_twice(size: str, tmp_path: Path) -> None:
    twice = a_size(
        tmp_path / "twice",
        **{k: 2 * AMOUNTS[k] for k in ("clips", "imported", "items")},
        candidates={name: 2 * count for name, count in AMOUNTS["candidates"].items()},
    )
    one, two = estimated(size).by_stage, estimated(twice).by_stage
    for stage in ("clips", "curation", "imports", "gates", "latents", "bench"):
        for name in ("gpu_hours", "cpu_hours", "disk_gib", "hours"):
            assert getattr(two[stage], name) == pytest.approx(2 * getattr(one[stage], name))
    for stage in ("stage1", "stage2", "distill"):
        assert two[stage] == one[stage]


def test_more_gpus_take_fewer_days_and_no_fewer_gpu_hours(size: str) -> None:
    bills = [estimated(size, gpus) for gpus in (1, 8, 64)]
    for few, many in itertools.pairwise(bills):
        assert many.hours < few.hours
        for before, after in zip(few.stages, many.stages, strict=True):
            assert after.gpu_hours >= before.gpu_hours * (1 - 1e-9)
            assert after.hours <= before.hours * (1 + 1e-9)


def test_a_distillation_costs_its_teacher_too(size: str) -> None:
    """3.5 visits for each (docs/training.md): 4 passes of its own and 10 of the teacher, over 4."""
    rows = estimated(size, 1).by_stage
    rendered = 8  # of the other parts, at most, in percent
    assert rows["distill"].gpu_hours / rows["stage1"].gpu_hours == pytest.approx(3.5, rel=rendered / 100)


def test_clips_and_licences_of_the_settings_count(tmp_path: Path) -> None:
    runs = RUNS | {"scenes": {"task": "cg_removal"}}
    amounts = {"candidates": {"removal": 2000, "sketch": 1000, "scenes": 300}}
    more = {"noncommercial": {"imported": 5000, "import_gib": 70.0}}
    size = a_size(tmp_path / "few", settings={"clips_count": 1000, "commercial": True}, **amounts, **more)
    Path(size, "curation.yaml").write_text(yaml.safe_dump({"runs": runs}))
    found = read_size(size, changes={"clips_count": 100, "commercial": False}).amounts
    assert found.candidates == {"removal": 200, "sketch": 100, "scenes": 300}
    assert (found.clips, found.imported, found.import_gib) == (100, 15_000, 70.0)
    assert read_size(size).amounts.imported == 10_000


def test_what_gpus_change_is_in_the_bill(tmp_path: Path) -> None:
    by_gpus = {1: {"stage1": {"train.steps": 100}}, 8: {"stage1": {"lora.rank": 16}}}
    size = a_size(tmp_path / "by", settings={"by_gpus": by_gpus})
    one, eight = (read_size(size, gpus) for gpus in (1, 8))
    assert one.units["stage1"] == {"visits": 6400}
    assert eight.units["stage1"] == {"visits": 64_000}
    assert eight.trainings["stage1"]["lora"] == {"rank": 16}
    assert "lora" not in one.trainings["stage1"]


def test_a_limit_names_the_stage_that_passes_it(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = estimated(size)
    before = sum(row.gpu_hours for row in made.stages[: STAGES.index("stage2")])
    with pytest.raises(BillError, match=r"more than --max_gpu_hours .* in stage2"):
        bill(size, max_gpu_hours=before + 1e-3)
    assert "stage2" in capsys.readouterr().out  # the table is printed all the same
    bill(size, max_gpu_hours=made.gpu_hours)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accepted": 1.5}, "accepted: a share from 0 to 1"),
        ({"candidates": {"removal": -1}}, "candidates.removal: a whole number"),
        ({"clip": 3}, "unknown field 'clip'"),
        ({"candidates": {"removal": 5}}, "candidates: say how many sketch makes"),
    ],
)
def test_amounts_that_cannot_be_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, BillError), match=words):
        estimated(a_size(tmp_path / "wrong", **changes))


def test_a_base_that_nobody_has_timed_is_not_known_and_no_limit_can_be_kept(tmp_path: Path) -> None:
    size = a_size(tmp_path / "other", base="mine")
    assert estimated(size).unknown == list(STAGES)
    with pytest.raises(BillError, match="nothing is known of what base costs"):
        bill(size, max_gpu_hours=1e6)


def test_start_and_rate_are_told_apart_where_sizes_differ() -> None:
    assert fit([10, 30], [15, 25]) == pytest.approx((10, 0.5))
    assert fit([10, 11], [20, 22]) == pytest.approx((0, 2))  # too close to each other
    assert fit([10, 30], [40, 20]) == pytest.approx((24, 0), rel=0.01)  # weighted by 1 / value^2
    assert fit([10, 30], [1, 9]) == (0.0, pytest.approx(0.1, rel=2))
    assert fit([0, 0], [3, 3]) == pytest.approx((3, 0))
    assert fit([], []) == (0.0, 0.0)


def finished(folder: Path, plan_bill: Bill, seconds: float) -> Path:
    """A run whose stages all took `seconds`."""
    (folder / "stages").mkdir(parents=True)
    write_bill(folder / BILL, plan_bill)
    for row in plan_bill.stages:
        record = {"fingerprint": "x", "seconds": seconds, "cpu_seconds": 2 * seconds, "disk_bytes": 2**30}
        (folder / "stages" / f"{row.stage}.json").write_text(json.dumps(record))
    return folder


def test_a_run_is_the_calibration_of_the_next_one(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path / "run", estimated(size), 72.0)
    out = tmp_path / "calibration.json"
    calibrate(size, runs=(run,), out=out)
    made = make_bill(read_size(size), out)
    for row in made.stages:
        assert (row.hours, row.cpu_hours, row.disk_gib) == pytest.approx((0.02, 0.04, 1.0))
        assert row.basis == "measured"
    write_bill(run / BILL, made)
    capsys.readouterr()
    compare(run)
    table = capsys.readouterr().out
    assert table.count("1.00") == 2 * (len(STAGES) + 1)


def test_times_of_another_machine_are_an_estimate_and_of_another_size_no_bill(
    size: str, tmp_path: Path
) -> None:
    time = StageTime("gates", "samples", 11_500, 3600)
    held = Calibration("mine", "wan2.1_1.3b", 8, "another machine", "2026-01-01", (time,))
    path = tmp_path / "held.json"
    write_calibration(path, held)
    row = make_bill(read_size(size), path).by_stage["gates"]
    assert (row.basis, row.hours) == ("estimated", pytest.approx(1.0))
    assert "another machine" in row.assumptions[0]
    write_calibration(path, dataclasses.replace(held, machine=machine()))
    assert make_bill(read_size(size), path).by_stage["gates"].basis == "measured"
    write_calibration(path, dataclasses.replace(held, size="others"))
    with pytest.raises(SettingError, match="is of others, not of mine"):
        make_bill(read_size(size), path)


def test_a_copy_of_a_size_has_the_times_of_the_size(tmp_path: Path) -> None:
    whole = read_size("tiny")
    copy = read_size(str(shutil.copytree(whole.folder, tmp_path / "mine")))
    assert make_bill(copy).stages == make_bill(whole).stages
    assert make_bill(copy).unknown == []


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for text in ("[]", '{"size": 3}', "{"):
        path = tmp_path / BILL
        path.write_text(text)
        with pytest.raises(EditVerseError, match=BILL):
            read_bill(path)
    with pytest.raises(ValueError, match="must not be below 0"):
        StageCost("base", -1, 0, 0, 0, "measured")


def test_a_smaller_size_has_less_of_all_that_is_counted_and_the_same_of_all_else(tmp_path: Path) -> None:
    whole = read_size("tiny")
    part = read_size(str(scaled(whole.folder, tmp_path / "tiny", 0.1)))
    for stage, units in whole.units.items():
        ((unit, count),) = units.items()
        assert part.units[stage][unit] == pytest.approx(1 if unit == "bases" else count / 10, rel=0.2), stage
    before, after = (
        yaml.safe_load((folder / "curation" / "removal.yaml").read_text())
        for folder in (whole.folder, part.folder)
    )
    assert after["init_args"].pop("scenes") == round(before["init_args"].pop("scenes") / 10)
    assert after == before
    assert read_settings(str(part.folder))["least_clean"] == 1
    assert read_settings(str(part.folder))["graded"] == read_settings("tiny")["graded"]
