"""Every command as people run it: in a terminal, in a pipe, at 80 columns, with Ctrl-C, on a full disk,
without a GPU, twice at once, and with a slip in what is asked for.

Real processes; `tests.terminal` holds the terminal.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from benchmark.__main__ import main as benchmark_main
from curation.__main__ import main as curation_main
from curation.core.cache import Workspace, ledger
from curation.engine.watchdog import HOST, NOTE, Watchdog, note, process_of
from model.cli import main as model_main
from model.config import ModelConfig
from model.inference.editor import Editor
from model.net.dit import DiT
from shards.__main__ import main as shards_main
from shards.files import exclusive, naming
from shards.reader import ShardSet
from shards.serialization import from_dict
from shards.writer import Item, write_shards
from tests import forked
from tests.terminal import ROOT, WIDTH, Terminal, command, environment, standard_input

SCENES = {
    "class_path": "curation.tasks.cg_removal.CgRemoval",
    "init_args": {"scenes": 4, "scene": {"height": 96, "width": 128, "frames": 9, "fps": 10.0}},
}
MODEL = {
    "vae": {
        "class_path": "model.encoders.transform.TransformCodec",
        "init_args": {"keep": [[3, 1], [1, 0]]},
    },
    "dit": {"width": 32, "depth": 1, "heads": 2, "rope": {"dims": [4, 4, 4, 4]}},
    "media": {"min_area": 3072, "max_area": 3072, "frames": 9},
    "inference": {"steps": 2, "guidance": 1.0},
}
MAINS = {"shards": shards_main, "curation": curation_main, "model": model_main, "benchmark": benchmark_main}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_items: Callable[..., list[Item]]) -> Path:
    """Shards, a task's config, a training config with one worker, a tiny checkpoint and a video."""
    root = tmp_path_factory.mktemp("terminal")
    (root / "media").mkdir()
    write_shards(root / "shards", make_items(root / "media"), max_samples=2)
    (root / "scenes.yaml").write_text(yaml.safe_dump(SCENES))
    train = {
        "steps": 400,
        "accelerator": "cpu",
        "save_every": 2,
        "validate_every": 1000,
        "num_val_samples": 1,
    }
    data = {"shards": [str(root / "shards")], "batch_size": 2, "token_budget": 400, "workers": 1}
    (root / "fit.yaml").write_text(yaml.safe_dump({"data": data, "model": MODEL, "train": train}))
    config = MODEL | {"dit": MODEL["dit"] | {"text_dim": 384, "vision_dim": 24}}
    config = from_dict(ModelConfig, config | {"sequence": {"patch": 2}}, "test")
    torch.manual_seed(0)
    Editor(DiT(config.dit), config).save_pretrained(root / "checkpoint")
    (root / "in.mp4").write_bytes(ShardSet(root / "shards")[0].bytes("video1"))
    return root


def curate(folder: Path, base: Path, workers: int, engine: str = "auto") -> list[object]:
    task = ["curation", "run", "cg_removal", "--config", folder / "scenes.yaml", "--workers", workers]
    task += ["--engine", engine]
    return [*task, "--out", base / "out", "--workspace", base / "workspace"]


def edit(folder: Path, out: Path) -> list[object]:
    what = ["--text", "<video1> Remove the square.", "--video1", folder / "in.mp4", "--out", out]
    return ["model", "edit", "--checkpoint", folder / "checkpoint", *what]


def bench(folder: Path, out: Path, *more: object) -> list[object]:
    what = ["--checkpoint", folder / "checkpoint", "--data", folder / "shards", "--out", out]
    return ["benchmark", "run", *what, *more]


def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """(status, stdout, stderr) of a command in this process, through its entry point."""
    package, *rest = map(str, arguments)
    monkeypatch.setattr(sys, "argv", [f"python -m {package}", *rest])
    capsys.readouterr()
    try:
        status = MAINS[package]()
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    return int(status or 0), out, err


def refused(done: tuple[int, str, str], *words: str) -> None:
    """A refusal: status 2 and one line that holds `words`."""
    status, _, err = done
    assert status == 2, err
    *notes, line = err.strip().splitlines()
    assert line.startswith("error: "), err
    assert all("rendered from seeds" in note for note in notes), err
    for word in words:
        assert word in line


# --- a terminal, a pipe, 80 columns


def test_a_list_of_samples_has_whole_keys_in_a_terminal_and_tsv_or_json_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ShardSet(folder / "shards").keys
    with Terminal("shards", "ls", folder / "shards") as terminal:
        assert terminal.end() == 0, terminal.output
    lines = terminal.output.splitlines()
    assert max(map(len, lines)) <= WIDTH
    for key in keys:
        assert any(key in line for line in lines), terminal.output
    assert "object_removal train: 3 samples" in lines

    _, out, _ = in_process(monkeypatch, capsys, "shards", "ls", folder / "shards")
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["key", "split", "task", "tokens", "media", "text"]
    assert [row[0] for row in rows[1:]] == keys
    assert rows[1][5] == ShardSet(folder / "shards").entry(keys[0]).text
    _, out, _ = in_process(monkeypatch, capsys, "shards", "ls", folder / "shards", "--format", "json")
    assert [row["key"] for row in json.loads(out)] == keys
    _, out, _ = in_process(monkeypatch, capsys, "shards", "ls", folder / "shards", "--format", "table")
    assert all(key in out for key in keys)


@pytest.mark.parametrize(
    "arguments",
    [("shards", "ls", "{}/shards"), ("shards", "show", "{}/shards", "object_removal-00000000-0000")],
)
def test_a_reader_that_leaves_is_no_error(folder: Path, arguments: tuple[str, ...]) -> None:
    piped(*(a.format(folder) for a in arguments))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("model", "info"),
        ("benchmark", "list"),
        ("shards", "verify", "{}/shards"),
    ],
)
def test_a_reader_that_leaves_other_commands_is_no_error(folder: Path, arguments: tuple[str, ...]) -> None:
    piped(*(a.format(folder) for a in arguments))


def piped(*arguments: object) -> None:
    """Run a command whose reader takes nothing and leaves before it begins; it ends well and says nothing."""
    writer = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    said = writer.stderr.read()
    assert writer.wait(300) == 0, said
    assert said == ""


@pytest.mark.slow
def test_head_takes_a_line_of_what_works_for_long(folder: Path, tmp_path: Path) -> None:
    fit = ["model", "fit", "--config", folder / "fit.yaml", "--run", tmp_path / "run", "--train.steps", 2]
    for arguments in (
        curate(folder, tmp_path, 0),
        fit,
        edit(folder, tmp_path / "out.mp4"),
        bench(folder, tmp_path / "bench", "--limit", 1),
    ):
        line = f"{shlex.join(command(*arguments))} | head -n 1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", line], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stderr)
        assert "Broken pipe" not in done.stderr
        assert "Traceback" not in done.stderr
    for made in ("out/manifest.jsonl", "run/checkpoint", "out.mp4", "bench/report.html"):
        assert (tmp_path / made).exists(), made  # the work is done though nobody reads on


@pytest.mark.slow
def test_tables_keep_to_the_width_of_the_terminal(folder: Path, tmp_path: Path) -> None:
    for arguments in (bench(folder, tmp_path / "bench", "--limit", 1), ["model", "info"]):
        with Terminal(*arguments) as terminal:
            assert terminal.end() == 0, terminal.output
        rows = [line for line in terminal.output.splitlines() if "│" in line or "┃" in line]
        assert rows, terminal.output
        assert max(map(len, rows)) <= WIDTH, terminal.output
        assert not any("…" in row for row in rows), terminal.output


@pytest.mark.slow
def test_an_edit_in_a_terminal(folder: Path, tmp_path: Path) -> None:
    with Terminal(*edit(folder, tmp_path / "out.mp4")) as terminal:
        assert terminal.end() == 0, terminal.output
    assert (tmp_path / "out.mp4").is_file()
    assert "Traceback" not in terminal.output


# --- Ctrl-C


def interrupted(terminal: Terminal) -> None:
    """Press Ctrl-C; the command ends with one line and status 130, and nothing of it is left.

    Python ends by the signal itself where the interrupt came inside an `exec`: a shell says 130 of both.
    """
    terminal.interrupt()
    status = terminal.end()
    assert status in (130, -signal.SIGINT), terminal.output
    assert terminal.output.count("interrupted") == 1, terminal.output
    assert "Traceback" not in terminal.output
    assert "KeyboardInterrupt" not in terminal.output
    assert terminal.orphans() == []


def half_made(base: Path) -> list[Path]:
    """Files under a temporary name."""
    return [path for path in base.rglob("*") if ".tmp" in path.name]


def test_ctrl_c_during_curation_in_one_process(folder: Path, tmp_path: Path) -> None:
    with Terminal(*curate(folder, tmp_path, 0)) as terminal:
        terminal.until(lambda: len(ledger(tmp_path / "workspace")) > 2)
        interrupted(terminal)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    assert half_made(tmp_path) == []


def test_ctrl_c_while_an_edit_loads(folder: Path, tmp_path: Path) -> None:
    with Terminal(*edit(folder, tmp_path / "out.mp4")) as terminal:
        # torch takes seconds to import
        terminal.until(lambda: "torch" in Path(f"/proc/{terminal.process.pid}/maps").read_text())
        interrupted(terminal)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray", "passes"])
def test_ctrl_c_during_curation_leaves_no_process(folder: Path, tmp_path: Path, engine: str) -> None:
    with Terminal(*curate(folder, tmp_path, 2, engine)) as terminal:
        terminal.until(lambda: len(ledger(tmp_path / "workspace")) > 2)
        # Ray's agents may outlive it by a minute on a busy machine; a stopped one does so on any.
        agents = [child for child in terminal.children() if "Agent" in " ".join(child.cmdline())]
        assert bool(agents) == (engine == "ray")
        for agent in agents:
            agent.suspend()
        interrupted(terminal)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


@pytest.mark.slow
def test_ctrl_c_during_training_leaves_no_worker_and_the_run_goes_on(folder: Path, tmp_path: Path) -> None:
    arguments = ["model", "fit", "--config", folder / "fit.yaml", "--run", tmp_path / "run"]
    with Terminal(*arguments) as terminal:
        terminal.until(lambda: (tmp_path / "run" / "state").is_dir() and half_made(tmp_path) == [])
        workers = [child for child in terminal.children() if standard_input(child) == os.devnull]
        assert workers, [standard_input(child) for child in terminal.children()]
        interrupted(terminal)
    assert not (tmp_path / "run" / "checkpoint").exists()
    done = len((tmp_path / "run" / "curve.csv").read_text().splitlines()) - 1
    saved = sorted(path.name for path in (tmp_path / "run" / "state").iterdir())
    assert saved[-1] == f"step-{done:08d}", "the last step was not saved"
    with Terminal(*arguments) as terminal:
        terminal.until(lambda: "resuming" in terminal.output)
        interrupted(terminal)


@pytest.mark.slow
def test_ctrl_c_during_a_benchmark_leaves_no_worker(folder: Path, tmp_path: Path) -> None:
    with Terminal(*bench(folder, tmp_path / "out", "--workers", 2)) as terminal:
        terminal.until(lambda: len(terminal.children()) >= 2)
        time.sleep(2)
        inputs = {" ".join(child.cmdline()): standard_input(child) for child in terminal.children()}
        assert set(inputs.values()) <= {os.devnull, ""}, inputs
        interrupted(terminal)
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_ctrl_c_ends_the_page(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Terminal("model", "app", "--checkpoint", folder / "checkpoint", "--port", port) as terminal:
        terminal.until(lambda: "EditVerse is at" in terminal.output)
        terminal.interrupt()
        assert terminal.end() in (0, 130), terminal.output
        assert "Traceback" not in terminal.output
        assert terminal.orphans() == []


# --- no process of ours has the terminal


def ray_logs(driver: int, lines: int = 40) -> str:
    """The last lines of what a driver and the raylet and the GCS of its Ray have logged."""
    sessions = sorted(Path("/tmp/ray").glob(f"session_*_{driver}"), key=lambda path: path.stat().st_mtime)
    told = [] if sessions else [f"Ray left no session of process {driver}"]
    for file in sorted((sessions[-1] / "logs").glob("*")) if sessions else []:
        if file.name.startswith(("raylet.", "gcs_server.", "python-core-driver")):
            text = file.read_text(errors="replace").splitlines()
            told += [f"--- {file}", *text[-lines:]]
    return "\n".join(told)


def stopped_for_a_while(terminal: Terminal, workspace: Path) -> None:
    """Suspend a worker that computes, until the command says so and how to mend it, and let it go on."""
    notes = workspace / "attempts"
    terminal.until(lambda: list(notes.rglob("worker-*.json")) and len(ledger(workspace)) > 2)
    pid = process_of(next(notes.rglob("worker-*.json")))
    (worker,) = (child for child in terminal.children() if child.pid == pid)
    worker.suspend()
    terminal.until(lambda: f"worker {pid}: is stopped" in terminal.output.replace("\n", " "))
    worker.resume()
    said = " ".join(terminal.output.split())
    assert "no result for" in said
    assert f"kill -CONT {pid}" in said


@pytest.mark.slow
def test_a_run_of_ray_in_a_terminal_gives_no_worker_the_terminal_names_a_stopped_one_and_ends(
    folder: Path, tmp_path: Path
) -> None:
    """With ffmpeg installed a worker that had the terminal as its input would be stopped for ever."""
    inputs: dict[str, str] = {}

    def look() -> bool:
        for child in terminal.children():
            with contextlib.suppress(psutil.Error):
                inputs[" ".join(child.cmdline())[:60] or child.name()] = standard_input(child)
        return any("ray::" in name for name in inputs) and (tmp_path / "out" / "summary.json").is_file()

    # Ray's core ends the driver by itself when its raylet or GCS is lost; as a rule (`fatal`) without a word
    loud = {"RAY_BACKEND_LOG_LEVEL": "error"}
    with Terminal(*curate(folder, tmp_path, 1, "ray"), "--max_silence", 2, variables=loud) as terminal:
        stopped_for_a_while(terminal, tmp_path / "workspace")
        while terminal.process.poll() is None:
            terminal.read()
            look()
            time.sleep(0.2)
        status = terminal.end()
        assert status == 0, f"{terminal.output}\n{ray_logs(terminal.process.pid)}"
    assert look()
    assert [name for name, path in inputs.items() if path.startswith(("/dev/pts", "/dev/tty"))] == []
    assert any("MapWorker" in name or "Stage" in name for name in inputs), inputs
    assert max(len(line) for line in terminal.output.splitlines() if "│" in line) <= WIDTH


def test_a_worker_that_is_stopped_is_named_and_the_run_ends_after_it_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    with Terminal(*curate(folder, tmp_path, 1, "local"), "--max_silence", 2) as terminal:
        stopped_for_a_while(terminal, tmp_path / "workspace")
        assert terminal.end() == 0, terminal.output


def test_the_watchdog_tells_stopped_silent_and_working_processes_apart(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    busy = "while True: pass"
    with contextlib.ExitStack() as stack:
        codes = {"stopped": busy, "silent": "import time; time.sleep(100)", "working": busy}
        workers = {
            name: stack.enter_context(subprocess.Popen([sys.executable, "-c", code]))
            for name, code in codes.items()
        }
        for worker in workers.values():
            stack.callback(worker.kill)
            line = {"stage": "render", "unit": "a.mp4", "since": time.time() - 5}
            (tmp_path / NOTE.format(HOST, worker.pid)).write_text(json.dumps(line))
        elsewhere = {"stage": "inpaint", "unit": "c.mp4", "since": time.time() - 5}
        (tmp_path / NOTE.format("node7.lan", 12)).write_text(json.dumps(elsewhere))
        os.kill(workers["stopped"].pid, signal.SIGSTOP)
        watchdog = Watchdog(tmp_path, 0.4)
        stack.callback(os.kill, workers["stopped"].pid, signal.SIGCONT)
        watchdog.report()  # from here on processor time is counted
        with watchdog:
            end = time.monotonic() + 60
            said = ""
            working = f"worker {workers['working'].pid}: is at work ("
            while working not in said and time.monotonic() < end:
                time.sleep(0.1)
                said += capfd.readouterr().err
    assert f"worker {workers['stopped'].pid}: is stopped, by a signal from outside (SIGSTOP, SIGTSTP)" in said
    assert f"kill -CONT {workers['stopped'].pid}" in said
    assert f"worker {workers['silent'].pid}: is silent; render of a.mp4 for" in said
    assert working in said
    assert f"worker {workers['silent'].pid}: is at work" not in said
    assert "worker 12 on node7.lan: inpaint of c.mp4 for" in said


def test_a_worker_notes_the_stages_that_it_computes(tmp_path: Path) -> None:
    space = Workspace(tmp_path, begin=lambda stage: note(tmp_path / "notes", stage, "b.mp4, frames 0 to 9"))
    mine = tmp_path / "notes" / NOTE.format(HOST, os.getpid())
    seen = []
    for _ in range(2):
        space.cached("track", "b", lambda _: seen.append(json.loads(mine.read_text())) or {})
    assert [(line["stage"], line["unit"]) for line in seen] == [("track", "b.mp4, frames 0 to 9")]


# --- no GPU


def test_a_device_that_is_not_there_is_one_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fit = ["model", "fit", "--config", folder / "fit.yaml", "--run", tmp_path / "run"]
    encoded = ["--data.latent_cache", tmp_path / "encoded", "--data.crops", 1]
    for arguments in (
        [*edit(folder, tmp_path / "out.mp4"), "--device", "cuda"],
        ["model", "app", "--checkpoint", folder / "checkpoint", "--device", "cuda"],
        ["model", "precompute", "--config", folder / "fit.yaml", *encoded, "--device", "cuda"],
        ["model", "cost", "--out", tmp_path / "cost.json", "--device", "cuda:3"],
        bench(folder, tmp_path / "bench", "--device", "cuda"),
    ):
        done = in_process(monkeypatch, capsys, *arguments)
        refused(done, "--device cuda", "no CUDA device on this machine; use --device cpu")
    for name in ("cuda", "gpu"):
        done = in_process(monkeypatch, capsys, *fit, "--train.accelerator", name)
        refused(done, "train.accelerator", "no CUDA device on this machine; use train.accelerator cpu")
    done = in_process(monkeypatch, capsys, *edit(folder, tmp_path / "out.mp4"), "--device", "gpu0")
    refused(done, "--device gpu0: ", "use --device cpu")
    assert not any(tmp_path.iterdir())


# --- one line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model", "fit", "--run", "r", "--train.stepz", "3"], ["did you mean --train.steps?"]),
        (["model", "fit", "--run", "r", "--steps", "3"], ["--steps: no such", "did you mean --train.steps?"]),
        (["model", "fit", "--config", "none.yaml"], ["none.yaml", "does not exist"]),
        (["model", "fit", "--config", "typo.yaml"], ["typo.yaml: train.stepz", "did you mean train.steps?"]),
        (["model", "fit", "--config", "group.yaml"], ["group.yaml: trian.steps", "mean train.steps?"]),
        (["model", "fit", "--config", "type.yaml"], ["type.yaml: train.steps: expected int, got many"]),
        (["model", "fit", "--config", "broken.yaml"], ["broken.yaml: not YAML", "line 2"]),
        (["model", "fit", "--config", "binary.yaml"], ["binary.yaml"]),
        (["model", "fit", "--run", "r", "--train.steps", "0"], ["train.steps must be at least 1, got 0"]),
        (["model", "fit", "--run", "r", "--model.dit.heads", "3"], ["does not divide into 3 heads"]),
        (["model", "fit"], ["required: run", "python -m model fit --help"]),
        (["model", "edit", "--text", "x"], ["required: checkpoint, out"]),
        (["model", "edit", "--seed", "x"], ["seed: expected int, got x"]),
        (["model", "fitt"], ["fitt: no such command; did you mean fit?"]),
        (["benchmark", "run", "--wrokers", "2"], ["did you mean --workers?"]),
        (["benchmark", "run", "--workers", "-3"], ["--workers -3: needs at least 1"]),
        (["benchmark", "run", "--mode", "best"], ["mode: expected", "official", "got best"]),
        (["benchmark", "reprot"], ["did you mean report?"]),
        (["curation", "run", "cg_removal", "--wrokers", "1"], ["did you mean --workers?"]),
        (["curation", "run", "cg_removal", "--workers", "-3"], ["--workers -3: needs at least 0"]),
        (["curation", "run", "cg_removal", "--workers", "x"], ["workers: expected int, got x"]),
        (["curation", "run", "cg_removal", "--config", "none.yaml"], ["none.yaml"]),
        (["curation", "run", "cg_removal", "--config", "task.yaml"], ["scenez", "did you mean"]),
        (["curation", "run"], ["required: task"]),
        (["curation", "clips", "fetsh"], ["fetsh: no such command; did you mean fetch?"]),
        (["curation", "runn"], ["did you mean run?"]),
        (["shards", "ls", "d", "--formt", "json"], ["did you mean --format?"]),
        (["shards", "ls", "d", "--format", "xml"], ["format: expected", "got xml"]),
        (["shards", "shwo", "d"], ["did you mean show?"]),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]) if value else "",
)
def test_a_slip_is_one_line_with_the_nearest_key_and_the_file(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("typo.yaml").write_text("run: r\ntrain:\n  stepz: 3\n")
    Path("group.yaml").write_text("run: r\ntrian:\n  steps: 3\n")
    Path("type.yaml").write_text("run: r\ntrain:\n  steps: many\n")
    Path("broken.yaml").write_text("run: [r\n")
    Path("binary.yaml").write_bytes(bytes(range(256)))
    Path("task.yaml").write_text(yaml.safe_dump(SCENES).replace("scenes:", "scenez:"))
    refused(in_process(monkeypatch, capsys, *arguments), *words)
    assert not Path("r").exists()


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> None:
        """A command."""
        raise ValueError("a mistake in the code")

    monkeypatch.setattr("curation.__main__.COMMANDS", {"tasks": wrong})
    monkeypatch.setattr(sys, "argv", ["python -m curation", "tasks"])
    with pytest.raises(ValueError, match="a mistake in the code"):
        curation_main()


# --- a full disk


def limited(size: int) -> Callable[[], object]:
    """For a process that may write no file beyond `size` bytes: a full disk, but for the error number."""
    return functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))


def full(size: int, *arguments: object) -> str:
    """The one line of a command that runs out of room at `size` bytes of a file."""
    done = forked.run(*arguments, env=environment(), before=limited(size))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_full_disk_names_the_result_of_curation(folder: Path, tmp_path: Path) -> None:
    line = full(2000, *curate(folder, tmp_path, 0))
    assert f"{tmp_path / 'workspace'}/" in line
    assert line.endswith(": File too large")
    assert "tmp" not in line.replace(str(tmp_path), "")


def test_a_full_disk_names_the_edit(folder: Path, tmp_path: Path) -> None:
    line = full(300, *edit(folder, tmp_path / "out.mp4"))
    assert line == f"error: {tmp_path / 'out.mp4'}: File too large"
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_names_a_file_of_the_training(folder: Path, tmp_path: Path) -> None:
    # no worker: what it hands over is a file in memory, which the limit would meet too
    arguments = ["--config", folder / "fit.yaml", "--run", tmp_path / "run", "--data.workers", 0]
    line = full(40_000, "model", "fit", *arguments)
    assert line.startswith(f"error: {tmp_path / 'run'}")
    assert ".tmp" not in line


@pytest.mark.slow
def test_a_full_disk_names_a_file_of_the_benchmark(folder: Path, tmp_path: Path) -> None:
    line = full(20_000, *bench(folder, tmp_path / "out"))
    assert line.startswith(f"error: {tmp_path / 'out'}/")
    assert ".tmp" not in line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, which root can mount."""
    assert os.geteuid() == 0, "only root can mount a file system"
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True, timeout=60)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True, timeout=60)


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_named_by_every_command(folder: Path, small_disk: Path) -> None:
    fill = small_disk / "fill"
    nothing = 1 << 30  # no limit besides the disk
    for name, arguments in {
        "curation": curate(folder, small_disk / "c", 0),
        "ray": curate(folder, small_disk / "r", 1),
        "fit": ["model", "fit", "--config", folder / "fit.yaml", "--run", small_disk / "run"],
        "edit": edit(folder, small_disk / "out.mp4"),
        "benchmark": bench(folder, small_disk / "bench"),
    }.items():
        left = 0 if name == "edit" else 6  # pages; an edit is one file of less
        fill.write_bytes(bytes((256 << 10) - left * 4096))
        line = full(nothing, *arguments)
        assert line.endswith(": No space left on device"), (name, line)
        assert line.startswith(f"error: {small_disk}/"), (name, line)
        assert "tmp" not in line.rpartition("/disk/")[2], (name, line)
        for entry in small_disk.iterdir():
            subprocess.run(["rm", "-rf", entry], check=True)


@pytest.mark.parametrize(
    ("raised", "named"),
    [
        (OSError(28, "No space left on device"), "final"),
        (OSError(28, "No space left on device", "temporary"), "final"),
        (OSError(28, "No space left on device", "temporary/part.bin"), "final/part.bin"),
        (OSError(28, "No space left on device", "elsewhere"), "elsewhere"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "final"),
    ],
)
def test_what_no_file_or_a_temporary_one_is_named_by_gets_its_final_name(
    raised: Exception, named: str
) -> None:
    with pytest.raises(OSError, match="No space left") as seen, naming("final", "temporary"):
        raise raised
    assert (seen.value.errno, seen.value.filename) == (28, named)
    with pytest.raises(RuntimeError, match="another"), naming("final"):
        raise RuntimeError("another")


# --- two at once


def commands(folder: Path, base: Path) -> dict[str, tuple[Path, list[object]]]:
    """Every command that fills a folder: the folder, and the command."""
    encode = ["--config", folder / "fit.yaml", "--data.latent_cache", base / "encoded", "--data.crops", 1]
    study = {
        "train": str(folder / "fit.yaml"),
        "seeds": [0, 1],
        "arms": {"a": {}, "b": {}},
        "scores": {"s": {"shards": str(folder / "shards")}},
        "columns": [{"label": "l", "score": "s", "group": "all", "metric": "psnr"}],
    }
    (base / "study.yaml").write_text(yaml.safe_dump(study))
    return {
        "fit": (base / "run", ["model", "fit", "--config", folder / "fit.yaml", "--run", base / "run"]),
        "encode": (base / "encoded", ["model", "precompute", *encode]),
        "run": (base / "bench", bench(folder, base / "bench")),
        "study": (
            base / "study",
            ["benchmark", "ablation", "--variants", base / "study.yaml", "--out", base / "study"],
        ),
        "curate": (base / "out", curate(folder, base, 0)),
        "all": (base / "all", ["curation", "all", "--out", base / "all", "--workspace", base / "other"]),
    }


def test_a_folder_that_another_run_holds_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (held, arguments) in commands(folder, tmp_path).items():
        with exclusive(held, "--test"):
            done = in_process(monkeypatch, capsys, *arguments)
        refused(done, str(held), "another run is using it")
        assert {path.name for path in held.iterdir()} == {"lock"}, name


def test_pictures_and_videos_that_come_piece_by_piece_are_locked_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a bench"}
    (tmp_path / "evaluation_metadata.jsonl").write_text(json.dumps(prompt) + "\n")
    generate = ["benchmark", "generate", "--data", tmp_path, "--out", tmp_path / "pictures"]
    # beside the folder, whose every file is a result
    with exclusive(tmp_path, "--test", ".pictures.lock"):
        done = in_process(monkeypatch, capsys, *generate, "--checkpoint", folder / "checkpoint")
    refused(done, "--out pictures", "another run is using it")
    assert not (tmp_path / "pictures").exists()

    entry = {"<video1>": "videos/a.mp4", "<video1> link": "https://pixabay.com/videos/a-1/"}
    (tmp_path / "test.json").write_text(json.dumps({"0": entry | {"<text>": "<video1> x"}}))
    monkeypatch.setenv("PIXABAY_API_KEY", "mine")
    with exclusive(tmp_path, "--test"):
        done = in_process(monkeypatch, capsys, "benchmark", "fetch", "--data", tmp_path)
    refused(done, str(tmp_path), "another run is using it")
    assert not (tmp_path / "videos").exists()


def test_the_lock_of_a_killed_process_ends_with_it_though_its_children_live(tmp_path: Path) -> None:
    code = f"""
import multiprocessing, time
from shards.files import exclusive
with exclusive({str(tmp_path)!r}, "--run"):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,))
    child.start()
    print(child.pid, flush=True)
    time.sleep(100)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        lock = str(tmp_path / "lock")
        while any(file.path == lock for file in child.open_files()):
            time.sleep(0.01)  # it lets go of the lock as its first act
        process.kill()
        process.wait()
        with exclusive(tmp_path, "--run"):
            child.kill()


@pytest.mark.slow
def test_of_two_at_once_the_second_is_refused(folder: Path, tmp_path: Path) -> None:
    held, arguments = commands(folder, tmp_path)["curate"]
    with Terminal(*arguments) as first:
        first.until(lambda: (held / "lock").exists() and len(list(held.iterdir())) > 1)
        with Terminal(*arguments) as second:
            assert second.end() == 2, second.output
        assert f"{held}: another run is using it" in " ".join(second.output.split())
        assert first.process.poll() is None, "the first had ended: this shows nothing"
        first.interrupt()
        first.end()
