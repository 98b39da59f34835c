"""`scripts/speedrun.sh`: what it prints for every size, and what it refuses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from editverse.speedrun.plan import plan
from editverse.speedrun.recipe import read_recipe
from tests.terminal import ROOT, environment

SCRIPT = ROOT / "scripts" / "speedrun.sh"
SIZES = sorted(path.parent.name for path in (ROOT / "configs" / "speedrun").glob("*/settings.yaml"))
STAGES = ["base", "clips", "curation", "imports", "gates", "latents"]
STAGES += ["stage1", "stage2", "distill", "bench", "report"]


def speedrun(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=120,
    )


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("size", SIZES)
def test_every_size_prints_all_stages(size: str, tmp_path: Path) -> None:
    done = speedrun(size, "--print", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    stages = read_recipe(done.stdout)
    assert [stage.name for stage in stages] == STAGES
    assert not (tmp_path / "run").exists()
    assert [item.state for item in plan(stages, tmp_path / "run")] == ["begin"] * len(STAGES)


def test_a_setting_is_changed_and_the_processes_do_not_count(tmp_path: Path) -> None:
    one = speedrun("tiny", "--print", "--out", tmp_path, "--set.base", "small one", "--push", "a/b").stdout
    stages = {stage.name: stage for stage in read_recipe(one)}
    assert ("python", "-m", "editverse.speedrun", "base", "small one") in stages["base"].commands
    assert {"push", "a/b"} < set(stages["report"].commands[-1])
    eight = speedrun("tiny", "--print", "--out", tmp_path, "--gpus", "8", "--set.base", "small one").stdout
    assert "--nproc-per-node 8" in eight
    both = [plan(read_recipe(text), tmp_path) for text in (one, eight)]
    ours, theirs = ({item.stage.name: item.inputs.fingerprint for item in planned} for planned in both)
    assert ours["distill"] == theirs["distill"]
    assert ours["report"] != theirs["report"]  # which does not push


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no size"),
        (("small",), "size 'small': no such size"),
        (("tiny", "--pint"), "--pint: no such option"),
        (("tiny", "--out"), "--out: needs a value"),
        (("tiny", "5b"), "5b: one size at a time"),
        (("tiny", "--set.bse", "x"), "has no such setting; did you mean base?"),
    ],
)
def test_a_wrong_word_is_one_line(words: tuple[str, ...], message: str) -> None:
    done = speedrun(*words)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert message in done.stderr
