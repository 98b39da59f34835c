"""The changes of docs/speedrun.md, one at each stage: each fits, is short, and does anew what the guide says.

Nothing is carried out: the stages of a run are recorded as done from a copy of `tiny`, then the copy is
changed and planned.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from editverse.speedrun.fingerprint import inputs_of
from editverse.speedrun.plan import plan
from editverse.speedrun.recipe import Stage, read_recipe
from editverse.speedrun.records import write_record

ROOT = Path(__file__).parents[2]
TINY = ROOT / "configs" / "speedrun" / "tiny"
GUIDE = (ROOT / "docs" / "speedrun.md").read_text()
CHANGE = r"^### ([^\n]+)\n(?:(?!^### ).)*?```diff\n(.*?)```\n+Done anew: ([^.]+)\."
CHANGES = re.findall(CHANGE, GUIDE, re.MULTILINE | re.DOTALL)
MOST_LINES = 10  # of a change


def stages_of(size: Path, run: Path, *options: str) -> tuple[Stage, ...]:
    """What the script prints for a folder of configurations."""
    words = ["bash", ROOT / "scripts" / "speedrun.sh", size, "--out", run, "--print", *options]
    printed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    return read_recipe(printed.stdout)


def record_as_done(stages: Sequence[Stage], run: Path) -> None:
    """Leave the records of a run that carried out all of them."""
    for name, inputs in inputs_of(stages, run).items():
        about = {"commands": [list(command) for command in inputs.commands], "files": inputs.files}
        write_record(run, name, {**about, "needs": inputs.needs, "fingerprint": inputs.fingerprint})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the size's folder, and a run that is done by it."""
    folder = tmp_path_factory.mktemp("guide")
    size, run = shutil.copytree(TINY, folder / "mine"), folder / "run"
    record_as_done(stages_of(size, run), run)
    return size, run


def test_the_guide_has_a_change_for_every_stage_that_has_choices() -> None:
    told = {title.split(":")[0] for title, _, _ in CHANGES}
    assert told >= {"base", "clips", "curation", "imports", "gates", "stage1", "stage2", "distill", "bench"}


@pytest.mark.parametrize(("title", "diff", "anew"), CHANGES, ids=[title for title, _, _ in CHANGES])
def test_a_change_of_the_guide_does_anew_what_it_says_and_no_more(
    folders: tuple[Path, Path], title: str, diff: str, anew: str
) -> None:
    size, run = folders
    shutil.rmtree(size)
    shutil.copytree(TINY, size)  # as it was before the change of the test before
    changed = [line for line in diff.splitlines() if re.match(r"[+-](?![+-]{2} )", line)]
    assert 0 < len(changed) < MOST_LINES
    patch = ["patch", "--no-backup-if-mismatch", "-p1", "-F0"]
    done = subprocess.run(patch, input=diff, cwd=size, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    planned = plan(stages_of(size, run), run)
    assert [item.stage.name for item in planned if item.state != "done"] == anew.split(", ")
