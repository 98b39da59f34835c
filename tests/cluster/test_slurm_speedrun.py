"""`editverse speedrun submit` on a real SLURM of two nodes: stages wait for one another, one is preempted."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from editverse.speedrun.plan import plan
from editverse.speedrun.recipe import read_recipe
from editverse.speedrun.records import read_record
from editverse.speedrun.runner import RunOptions, carry_out
from shards.writer import Item, write_shards
from tests.cluster.conftest import ROOT, Slurm, logs, wait_until
from tests.cluster.test_slurm_curation import clips as clips  # a fixture

pytestmark = pytest.mark.cluster
STEPS = 16
# What differs between a run of jobs and one without: seconds, times, and the work of what was done again.
VARIES = re.compile("seconds|started|finished|attempts|disk_bytes")


@pytest.fixture
def recipe(clips: Path, tmp_path: Path, make_items: Callable[..., list[Item]]) -> str:
    """Curation, training and a ledger, as `scripts/speedrun.sh --print` prints stages."""
    few = tmp_path / "clips"
    few.mkdir()
    for clip in sorted(clips.iterdir())[:4]:
        (few / clip.name).symlink_to(clip)
    write_shards(tmp_path / "shards", make_items(tmp_path, pairs=6, frames=9, height=96, width=128))
    settings = [
        *("--data.shards", json.dumps([str(tmp_path / "shards")]), "--train.steps", str(STEPS)),
        *("--train.save_every", "8", "--train.validate_every", "1000", "--data.batch_size", "2"),
    ]
    return f"""
# stage curation --makes data
python -m curation run sketch_to_video --clips {few} --out data/sketch --workspace workspace

# stage stage1 --needs curation --makes stage1
python -m model fit --config configs/train/nano.yaml --run stage1 {shlex.join(settings)}

# stage report --needs stage1 --makes ledger.csv
python -m shards ledger data/sketch --out ledger.csv
"""


def submit(slurm: Slurm, run: Path, recipe: str) -> subprocess.CompletedProcess[str]:
    asked = ["--slurm.nodes=2", "--slurm.train_nodes=2", "--slurm.cpus=1", "--slurm.options=--partition=low"]
    return subprocess.run(
        [sys.executable, "-m", "editverse.speedrun", "submit", str(run), *asked],
        input=recipe,
        cwd=ROOT,
        env=slurm.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def rows(run: Path) -> list[dict[str, str]]:
    path = run / "stage1" / "curve.csv"
    return list(csv.DictReader(path.open())) if path.is_file() else []


def lasting(run: Path, stage: str) -> dict[str, object]:
    """What of a stage's record is the same however it was carried out."""
    record = read_record(run, stage)
    assert record is not None
    return {name: value for name, value in record.items() if not VARIES.search(name)}


def test_a_preempted_stage_goes_on_and_the_run_ends_as_without_slurm(
    slurm: Slurm, recipe: str, tmp_path: Path
) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    done = submit(slurm, run, recipe)
    assert done.returncode == 0, done.stderr
    jobs = {stage: job for job, stage in re.findall(r"job (\d+): (\w+)", done.stdout)}
    assert list(jobs) == ["curation", "stage1", "report"]
    (folder,) = run.with_name("run.slurm").iterdir()
    refused = submit(slurm, run, recipe)
    assert refused.returncode == 2
    assert f"jobs {jobs['curation']} (curation), " in refused.stderr

    wait_until(lambda: len(rows(run)) >= 3, folder, 400)
    options = ("--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    other = slurm("sbatch", "--parsable", *options)
    wait_until(lambda: (folder / "logs" / "stage1.log").read_text().count("start ") == 2, folder, 400)
    assert slurm.state(other)["JobState"] == "COMPLETED"
    wait_until(lambda: read_record(run, "report") is not None, folder, 400)
    assert "requeued" in (folder / "logs" / "stage1.log").read_text()
    assert slurm.state(jobs["stage1"])["Restarts"] == "1"
    assert json.loads((run / "data" / "sketch" / "summary.json").read_text())["engine"] == "ray", logs(folder)

    carry_out(read_recipe(recipe), alone, RunOptions())
    manifests = [(base / "data" / "sketch" / "manifest.jsonl").read_bytes() for base in (run, alone)]
    assert manifests[0] == manifests[1]
    assert len(rows(run)) == STEPS
    for stage in jobs:
        assert lasting(run, stage) == lasting(alone, stage)
    record = read_record(run, "stage1")
    assert record is not None
    assert record["attempts"] == 2
    assert [item.state for item in plan(read_recipe(recipe), run)] == ["done"] * 3
    assert submit(slurm, run, recipe).stdout == ""
