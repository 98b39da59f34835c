"""The runner on stages of cheap commands: order, skipping, changes, kills, limits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from editverse.speedrun import fingerprint
from editverse.speedrun.fingerprint import inputs_of
from editverse.speedrun.plan import plan
from editverse.speedrun.preflight import PreflightError
from editverse.speedrun.processes import hold
from editverse.speedrun.recipe import RecipeError, Stage, read_recipe
from editverse.speedrun.records import attempt_lines, commands_done, read_record, spent_on
from editverse.speedrun.runner import RunOptions, StageError, carry_out
from shards.files import InUseError, write_json
from shards.writer import Item, write_shards
from tests.terminal import Terminal, environment

ADD = "echo x >> "  # a line a time that a command is carried out


def times(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def recipe(tmp_path: Path, second: str = "true") -> tuple[str, Path]:
    """Three stages, of which the second reads a configuration that names another; and the run's folder."""
    (tmp_path / "mixture.yaml").write_text("rows: {a: 1, b: 2}\n")
    (tmp_path / "train.yaml").write_text("mixture: mixture.yaml\nsteps: 3\n")
    text = f"""
# stage clips --makes clips
sh -c 'mkdir -p clips; {ADD} clips/count'

# stage train --needs clips --makes train
sh -c 'mkdir -p train; {ADD} train/count' {tmp_path}/train.yaml
sh -c '{second}'

# stage bench --needs train --makes bench
sh -c 'mkdir -p bench; {ADD} bench/count; echo 7 items'
"""
    return text, tmp_path / "run"


def start(text: str, run: Path, *options: str) -> subprocess.Popen[str]:
    """The runner as a process of its own, without a terminal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "editverse.speedrun", "run", str(run), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


def until(holds: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def fingerprint_of(text: str, run: Path, stage: str) -> str:
    return inputs_of(read_recipe(text), run)[stage].fingerprint


def do(text: str, run: Path, **options: object) -> None:
    carry_out(read_recipe(text), run, RunOptions(**options))  # type: ignore[arg-type]


def test_stages_are_done_once_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, run = recipe(tmp_path)
    do(text, run)
    first = capsys.readouterr().out
    assert [line[:14] for line in first.splitlines()] == [
        "[ 1/3] clips  ",
        "[ 2/3] train  ",
        "[ 3/3] bench  ",
    ]
    assert "7 items" in first
    record = read_record(run, "train")
    assert record is not None
    assert set(record["needs"]) == {"clips"}
    assert {Path(path).name for path in record["files"]} == {"train.yaml", "mixture.yaml"}
    assert record["attempts"] == 1
    assert len(record["command_seconds"]) == 2
    do(text, run)
    assert [times(run / name / "count") for name in ("clips", "train", "bench")] == [1, 1, 1]
    assert capsys.readouterr().out.count("done before") == 3


def test_a_change_is_asked_for_and_what_was_made_is_moved(tmp_path: Path) -> None:
    text, run = recipe(tmp_path)
    do(text, run)
    (tmp_path / "mixture.yaml").write_text("# a comment\nrows:\n  b: 2\n  a: 1\n")
    assert [item.state for item in plan(read_recipe(text), run)] == ["done"] * 3
    (tmp_path / "mixture.yaml").write_text("rows: {a: 1, b: 3}\n")
    bill = [{"stage": name, "hours": 0.5, "gpu_hours": 2.0} for name in ("clips", "train", "bench")]
    write_json(run / "bill.json", {"stages": bill})
    asked = start(text, run)
    said, error = asked.communicate(timeout=60)
    assert asked.returncode == 2
    assert f"train: changed: {tmp_path}/mixture.yaml\n" in said
    assert "done anew: train, bench (1 h 0 min, 4.00 GPU-hours by the bill)" in said
    assert error == "error: nothing was done; --yes does it without asking\n"
    assert times(run / "train" / "count") == 1
    (tmp_path / "recipe.sh").write_text(text)
    arguments = ("run", run, "--recipe", tmp_path / "recipe.sh")
    with Terminal("editverse.speedrun", *arguments) as terminal:
        terminal.until(lambda: "[y/N]" in terminal.output)
        os.write(terminal.master, b"y\n")
        assert terminal.end() == 0, terminal.output
    moved = sorted(path.relative_to(run / "replaced").parts[1] for path in run.glob("replaced/*/*/count"))
    assert moved == ["bench", "train"]
    assert [times(run / name / "count") for name in ("clips", "train", "bench")] == [1, 1, 1]
    assert [item.state for item in plan(read_recipe(text), run)] == ["done"] * 3


@pytest.mark.slow
def test_agreed_once_and_killed_it_does_not_ask_again(tmp_path: Path) -> None:
    text, run = recipe(tmp_path)
    do(text, run)
    changed = text.replace("echo 7 items", "echo 8 items").replace("sh -c 'true'", "sh -c 'exit 3'")
    with pytest.raises(StageError, match=r"train: `sh -c exit 3` ended with status 3"):
        do(changed, run, yes=True)
    mended = changed.replace("exit 3", "sleep 60")
    process = start(mended, run, "--yes")
    until(lambda: attempt_lines(run, "train")[-1]["event"] == "command")
    process.kill()
    process.communicate()
    last = start(mended, run)
    until(lambda: attempt_lines(run, "train")[-1]["event"] == "start" or last.poll() is not None)
    assert last.poll() is None
    last.kill()
    last.communicate()
    assert len(commands_done(attempt_lines(run, "train"), fingerprint_of(mended, run, "train"))) == 1


def test_killed_in_a_stage_it_goes_on_after_what_is_done(tmp_path: Path) -> None:
    """The command ends with its runner, and only what was not finished is done again."""
    text, run = recipe(tmp_path, second="echo $$ > pid; test -e again || exec sleep 60; echo end")
    process = start(text, run)
    until((run / "pid").exists)
    until(lambda: (run / "pid").read_text())
    process.kill()
    process.communicate()
    pid = int((run / "pid").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists(), 10)
    (run / "again").touch()
    do(text, run)
    assert times(run / "train" / "count") == 1
    record = read_record(run, "train")
    assert record is not None
    assert record["attempts"] == 2
    assert record["line"] == "end"


def test_what_a_killed_runner_left_is_waited_for_then_killed(tmp_path: Path) -> None:
    """No command goes on beside a new attempt, not even one that ignores that it shall end."""
    text, run = recipe(
        tmp_path, second='trap "" TERM; echo $$ > pid; for i in 1 2 3 4 5 6 7 8 9; do sleep 5; done'
    )
    process = start(text, run)
    until(lambda: (run / "pid").exists() and (run / "pid").read_text())
    with pytest.raises(InUseError, match="another speedrun is at work in it"), hold(run, print):
        raise AssertionError
    process.kill()
    process.communicate()
    pid = int((run / "pid").read_text())
    said: list[str] = []
    assert Path(f"/proc/{pid}").exists()
    with hold(run, said.append, patience=0.3):
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or " Z " in state.read_text()
    assert said == [f"waiting for what a killed attempt left to end (process {pid})"]


@pytest.mark.slow
def test_interrupted_at_the_terminal(tmp_path: Path) -> None:
    text, run = recipe(tmp_path, second="touch begun; sleep 60")
    (tmp_path / "recipe.sh").write_text(text)
    with Terminal("editverse.speedrun", "run", run, "--recipe", tmp_path / "recipe.sh") as terminal:
        terminal.until((run / "begun").exists)
        terminal.interrupt()
        assert terminal.end() == 130
        assert "interrupted; run the same command again to go on" in terminal.output
        assert terminal.orphans() == []
    last = attempt_lines(run, "train")[-1]
    assert last["status"] == "stopped"
    assert last["seconds"] > 0


@pytest.fixture
def one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose nvidia-smi lists one GPU."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'GPU 0: one'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def gpu_recipe(gpus: int, seconds: float) -> str:
    clips = "# stage clips --makes clips\ntouch clips\n"
    return f"{clips}# stage train --needs clips --gpus {gpus}\nsleep {seconds}\n"


@pytest.mark.usefixtures("one_gpu")
def test_the_limit_of_gpu_hours_stops_a_stage_and_bars_the_next(tmp_path: Path) -> None:
    run, text = tmp_path / "run", gpu_recipe(1, 60)
    with pytest.raises(
        StageError, match=r"train: stopped at 0\.00 GPU-hours, by --max_gpu_hours 0\.0002; what"
    ):
        do(text, run, max_gpu_hours=0.0002)
    spent = spent_on(attempt_lines(run, "train"))  # which was stopped within its only command
    assert 0.7 < spent.gpu_seconds < 30
    assert read_record(run, "clips") is not None
    write_json(run / "bill.json", {"stages": [{"stage": "train", "gpu_hours": 1.0}]})
    with pytest.raises(PreflightError, match=r"train: is billed 1\.00 GPU-hours and 0\.00 are spent"):
        do(text, run, max_gpu_hours=1.0)


@pytest.mark.usefixtures("one_gpu")
def test_too_few_gpus_or_too_little_disk_is_said_before_the_stage(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(PreflightError, match="train: needs 2 GPUs, and this machine has 1"):
        do(gpu_recipe(2, 0), run)
    write_json(run / "bill.json", {"stages": [{"stage": "train", "disk_gib": 1e9}]})
    with pytest.raises(PreflightError, match=r"train: needs 1000000000\.0 GiB more of disk"):
        do(gpu_recipe(1, 0), run)
    assert read_record(run, "clips") is not None
    assert attempt_lines(run, "train") == []


def test_too_few_samples_stop_the_run_until_less_is_asked(
    tmp_path: Path, make_items: Callable[..., list[Item]]
) -> None:
    write_shards(tmp_path / "shards", make_items(tmp_path, pairs=2, frames=1, height=32, width=48))
    run = tmp_path / "run"
    text = "# stage gates --makes data/clean --least 9\nmkdir -p data/clean\n"
    text += f"cp -r {tmp_path}/shards data/clean/pairs\n"
    for _ in range(2):  # done or not
        with pytest.raises(StageError, match=r"gates: has \d samples and what comes next needs 9 \(`least`"):
            do(text, run)
    do(text.replace("--least 9", "--least 1"), run)
    record = read_record(run, "gates")
    assert record is not None
    assert record["attempts"] == 1
    assert record["units"]["samples"] > 0


def test_one_stage_alone_wants_what_it_needs(tmp_path: Path) -> None:
    text, run = recipe(tmp_path)
    with pytest.raises(StageError, match="train: needs clips, which is not done"):
        do(text, run, only="train")
    do(text, run, only="clips")
    do(text, run, only="train")
    assert not (run / "bench").exists()
    with pytest.raises(StageError, match="--only tram: no such stage; there are clips, train, bench"):
        do(text, run, only="tram")


def test_seconds_of_killed_attempts_count() -> None:
    lines = [
        {"event": "start", "fingerprint": "a"},
        {"event": "beat", "seconds": 5.0, "cpu_seconds": 4.0, "gpu_seconds": 10.0},
        {"event": "start", "fingerprint": "b"},
        {"event": "command", "seconds": 2.0, "cpu_seconds": 1.0, "gpu_seconds": 4.0},
        {"event": "end", "seconds": 3.0, "cpu_seconds": 2.0, "gpu_seconds": 6.0},
    ]
    assert (spent_on(lines).seconds, spent_on(lines).gpu_seconds) == (8.0, 16.0)
    assert spent_on(lines, "b").cpu_seconds == 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no stage"),
        ("true", "line 1: a command before the first stage"),
        ("# stage a\n", "stage a has no command"),
        ("# stage a\ntrue\n# stage a\ntrue", "stage a is there twice"),
        ("# stage a --needs b\ntrue", "stage a needs b, which is no stage before it"),
        ("# stage a --maks x\ntrue", "no option --maks; did you mean --makes"),
        ("# stage a --makes ../x\ntrue", "is no path inside"),
        ("# stage a --least x\ntrue", "expected a whole number"),
        ("# stage A\ntrue", "is no name of a stage"),
        ("# stage a\necho 'x", "line 2: No closing quotation"),
    ],
)
def test_a_recipe_that_is_none_names_the_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(text)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc", max_size=3)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcd", min_size=1), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=20, deadline=None)
@given(value=st.dictionaries(st.text("abcd", min_size=1), values, min_size=1), seed=st.integers())
def test_the_order_of_keys_does_not_count_and_a_value_does(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, object], seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "order"
    folder.mkdir(exist_ok=True)
    shuffler = random.Random(seed)

    def shuffled(item: object) -> object:
        if isinstance(item, dict):
            return {key: shuffled(item[key]) for key in shuffler.sample(list(item), len(item))}
        return [shuffled(part) for part in item] if isinstance(item, list) else item

    def fingerprint(content: object) -> str:
        (folder / "x.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return inputs_of([Stage("a", (("true", str(folder / "x.yaml")),))], folder / "run")["a"].fingerprint

    assert fingerprint(value) == fingerprint(shuffled(value))
    assert fingerprint(value) != fingerprint({**value, "more": 1})


def test_an_argument_that_is_a_table_counts_and_one_that_is_written_does_not(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("a\n")
    command = ("python", f"--clips={tmp_path}/clips.csv", "--out", str(tmp_path / "made.json"))

    def fingerprint() -> str:
        return inputs_of([Stage("a", (command,))], tmp_path / "run")["a"].fingerprint

    before = fingerprint()
    (tmp_path / "made.json").write_text(json.dumps({"made": 1}))
    assert fingerprint() == before
    (tmp_path / "clips.csv").write_text("b\n")
    assert fingerprint() != before


def test_a_copy_of_the_code_on_a_cluster_sees_the_same_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size of one's own lies in the checkout, and not in the snapshot of it that jobs run from."""
    own = tmp_path / "checkout" / "mine" / "train.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("steps: 3\n")
    found = []
    for root in (tmp_path / "checkout", tmp_path / "snapshot"):
        shipped = root / "configs" / "a.yaml"
        shipped.parent.mkdir(parents=True)
        shipped.write_text("steps: 4\n")
        monkeypatch.setattr(fingerprint, "config_root", shipped.parent.absolute)
        monkeypatch.setattr(fingerprint, "config_file", lambda word, root=root: root / word)
        stage = Stage("a", (("true", str(own), "configs/a.yaml"),))
        found.append(fingerprint.inputs_of([stage], tmp_path / "run")["a"])
    assert found[0] == found[1]
    assert set(found[0].files) == {str(own), "configs/a.yaml"}


@pytest.mark.slow
def test_told_to_end_it_tells_its_command(tmp_path: Path) -> None:
    text, run = recipe(tmp_path, second='trap "touch told; exit 0" TERM; touch begun; sleep 60 & wait')
    process = start(text, run)
    until((run / "begun").exists)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert (run / "told").exists()  # and it was waited for
    assert read_record(run, "train") is None
