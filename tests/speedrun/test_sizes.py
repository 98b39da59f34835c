"""The published sizes: every file of a size is read as its command reads it, so that a typo fails here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from curation.datasets.cli import import_pairs
from curation.datasets.import_all import license_of, read_list, verdict_on
from curation.engine.dry_run import parts_of
from curation.engine.run_all import read_runs
from curation.engine.task_config import build, default_config, load_config
from curation.quality.grade import read_graders
from editverse.speedrun.bill.amounts import read_size
from editverse.speedrun.bill.cli import make_bill
from editverse.speedrun.settings import read_settings
from model.data.mixture import read_mixture
from shards.reports.licenses import verdict_of
from tests.rooms import ROOT

SIZES = ("1.3b", "5b")


def folder_of(size: str) -> Path:
    return ROOT / "configs" / "speedrun" / size


@pytest.mark.parametrize("size", [SIZES[0], pytest.param(SIZES[1], marks=pytest.mark.slow)])
def test_what_is_curated_and_imported_is_graded_and_trained_on(size: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"  # a reader's copy
    shutil.copytree(folder_of(size), folder)
    settings = read_settings(str(folder))
    runs = read_runs(folder / "curation.yaml")
    for run in runs:
        task = build(load_config(run.task, run.config or default_config(run.task)))
        forbids = [part for part in parts_of(task) if verdict_of(part.license).use == "no"]
        assert not forbids, "what it makes could not be used commercially"
    listed = read_list(folder / "imports.yaml", import_pairs)
    used = [entry.name for entry in listed if verdict_on(entry, license_of(entry)).use == "yes"]
    assert settings["commercial"] is True
    assert len(used) < len(listed), "what forbids commercial use is listed and left out"
    made = [*(f"curated/{run.name}" for run in runs), *(f"imported/{name}" for name in used)]
    assert settings["graded"] == made
    assert {*settings["calibrate_on"], *settings["benches"]} <= set(made)
    everything, clean = (read_mixture(folder / f"mixture_{name}.yaml").rows for name in ("all", "clean"))
    assert [row.shards for row in everything.values()] == [(f"data/{name}",) for name in made]
    assert [row.shards for row in clean.values()] == [(f"data/clean/{name}",) for name in made]
    assert read_graders(folder / "grade.yaml", "data/curated/removal", ())["init_args"]["graders"]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_every_budget_has_a_bill_and_parents_are_folders_of_the_run(size: str) -> None:
    for gpus in (1, 8, 64):
        bill = make_bill(read_size(size, gpus))
        assert all(row.hours >= 0 and row.assumptions for row in bill.stages)
    names = {run.name for run in read_runs(folder_of(size) / "curation.yaml")}
    for path in (folder_of(size) / "curation").glob("*.yaml"):
        parents = yaml.safe_load(path.read_text())["init_args"].get("parents", [])
        assert {Path(parent).name for parent in parents} <= names
        assert all(parent.startswith("data/curated/") for parent in parents), path


@pytest.mark.parametrize("size", SIZES)
def test_the_script_names_files_that_are_there_and_one_base(size: str) -> None:
    words = ["bash", str(ROOT / "scripts/speedrun.sh"), size, "--print"]
    printed = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True).stdout
    files = set(re.findall(rf"configs/speedrun/{re.escape(size)}/\S+\.yaml", printed))
    assert {Path(name).stem for name in files} >= {
        "curation",
        "imports",
        "grade",
        "stage1",
        "stage2",
        "distill",
    }
    assert all((ROOT / name).is_file() for name in files)
    base = read_settings(size)["base"]
    for name in ("bench", "editversebench"):
        config = yaml.safe_load((folder_of(size) / f"{name}.yaml").read_text())
        assert config["system"]["base"] == f"checkpoint:{base}"
        assert (ROOT / config["metrics"]).is_file()
    assert yaml.safe_load((folder_of(size) / "stage1.yaml").read_text())["train"]["init_from"] == base
