"""A run folder of the speedrun in small, made by the real commands: what the report's tests read.

`python -m tests.speedrun.fake_run FOLDER` leaves one to look at. Its stages' records and its bill are written
by hand, as `editverse.speedrun` writes them; everything that they speak of is real.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from shards.files import write_json
from shards.media import write_video
from tests.conftest import moving_square

STAGES = (
    "base",
    "clips",
    "curation",
    "imports",
    "gates",
    "latents",
    "stage1",
    "stage2",
    "distill",
    "bench",
    "report",
)
SCENES = {
    "class_path": "curation.tasks.cg_removal.CgRemoval",
    "init_args": {
        "scenes": 8,
        "per_scene": 2,
        "first": 700000,
        "heldout_fraction": 0.6,
        "least_area": 0.008,
        "relations": False,
        "shapes_alone": False,
        "scene": {
            "height": 32,
            "width": 48,
            "frames": 5,
            "fps": 10.0,
            "objects": [1, 3],
            "distance": [2.6, 3.2],
            "shadow": 256,
            "samples": 0,
        },
    },
}
# A network of random weights: what is read is how a training tells of itself, not how well it edits.
MODEL = {
    "vae": {"class_path": "model.encoders.transform.TransformCodec", "init_args": {"keep": [[3, 1], [1, 0]]}},
    "dit": {"width": 16, "depth": 1, "heads": 1, "rope": {"dims": [4, 4, 4, 4]}},
    "media": {"min_area": 1536, "max_area": 1536, "frames": 5},
    "inference": {"steps": 2, "guidance": 1.0},
}
TRAINING: dict[str, Any] = {
    "data": {"batch_size": 2, "token_budget": 400},
    "optim": {"lr": 0.003, "warmup": 1},
    "train": {
        "steps": 3,
        "precision": "32-true",
        "accelerator": "cpu",
        "save_every": 1000,
        "validate_every": 100000,
        "validate_loss_every": 100000,
        "num_val_samples": 1,
    },
}
DISTILL = {"steps": 2, "teacher_steps": 4}
RULES = {"rules": {"sharpness_weakest": {"min": 0.75}, "colour_shift_outside": {"max": 0.05}}}


def run(package: str, *words: str) -> list[str]:
    """Run a command of ours in this process; its words, as a stage's record has them."""
    held, sys.argv = sys.argv, [f"python -m {package}", *words]
    try:
        status = importlib.import_module(f"{package}.__main__").main()
    finally:
        sys.argv = held
    if status:
        raise SystemExit(f"{package} {' '.join(words)}: exit {status}")
    return ["python", "-m", package, *words]


def make(out: Path) -> None:
    """Fill `out`, which must not be there; the commands run in it, as those of the script do."""
    out.mkdir(parents=True)
    commands: dict[str, list[list[str]]] = {name: [] for name in STAGES}
    seconds: dict[str, float] = dict.fromkeys(STAGES, 0.1)

    def stage(name: str, package: str, *words: str) -> None:
        begin = time.monotonic()
        commands[name].append(run(package, *words))
        seconds[name] += time.monotonic() - begin

    with contextlib.chdir(out):
        _make_data(stage)
        _make_editors(stage)
        _write_records(commands, seconds)


def _written(name: str, value: Any) -> str:
    """The name of a configuration that holds a value."""
    path = Path("configs") / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return str(path)


def _make_data(stage: Callable[..., None]) -> None:
    """Rendered scenes, four imported pairs, one of which is damaged, and what gates keep of both."""
    workspace = ["--workspace", "workspace", "--workers", "0"]
    scenes = ["--config", _written("scenes.yaml", SCENES), "--out", "data/scenes"]
    stage("curation", "curation", "run", "cg_removal", *scenes, *workspace)
    pairs = Path("pairs")
    pairs.mkdir()
    for number in range(4):
        source, target, _ = moving_square(5, 32, 48, seed=number)
        write_video(pairs / f"{number}.mp4", source, 10)
        write_video(pairs / f"{number}_edited.mp4", target, 10)
        (pairs / f"{number}.txt").write_text("Remove the bright square.")
    (pairs / "3_edited.mp4").write_bytes(b"cut off")
    words = ["--license", "CC-BY-4.0", "--task", "object_removal", "--heldout", "0", "--workers", "0"]
    stage("imports", "curation", "import", "folder", "pairs", "--out", "data/pairs", *words)
    left_out = {"name": "some_pairs", "license": "CC-BY-NC-4.0", "reason": "forbids commercial use"}
    write_json("data/imports.json", {"used": [], "left_out": [left_out]})
    rules = _written("gates.yaml", RULES)
    for name in ("scenes", "pairs"):
        stage("gates", "curation", "grade", f"data/{name}", *workspace)
        stage("gates", "curation", "filter", f"data/{name}", "--rules", rules, "--out", f"data/clean/{name}")


def _make_editors(stage: Callable[..., None]) -> None:
    """A base, both stages and the student, and their scores on scenes that were held out."""
    fits: tuple[tuple[str, str, str | None, list[str], dict[str, Any]], ...] = (
        ("base", "fit", None, ["data/scenes"], {"model": MODEL}),
        ("stage1", "fit", "base", ["data/scenes", "data/pairs"], {}),
        ("stage2", "fit", "stage1", ["data/clean/scenes"], {}),
        ("distill", "distill", "stage2", ["data/clean/scenes"], {"distill": DISTILL}),
    )
    for name, command, start, folders, more in fits:
        settings = {**TRAINING, **more, "data": {**TRAINING["data"], "shards": folders}}
        settings["train"] = {**TRAINING["train"], "init_from": start}
        stage(name, "model", command, "--config", _written(f"{name}.yaml", settings), "--run", name)
    Path("base/run.json").unlink()  # a base is weights, not a stage that was trained here
    editors = ("base", "stage1", "stage2", "distill")
    systems = [word for name in editors for word in (f"--system.{name}", f"checkpoint:{name}")]
    items = ["--suite", "heldout", "--data", "data/scenes", "--limit", "12"]
    stage("bench", "benchmark", "run", *items, *systems, "--out", "bench/scenes")


def _write_records(commands: dict[str, list[list[str]]], seconds: dict[str, float]) -> None:
    """The bill and the stages' records by the contract of the run folder."""
    bill = []
    Path("stages").mkdir()
    for number, name in enumerate(STAGES):
        bill.append(
            {
                "stage": name,
                "gpu_hours": 0.0,
                "cpu_hours": seconds[name] * 1.1 / 3600,
                "disk_gib": 0.01,
                "hours": seconds[name] * 1.1 / 3600,
                "basis": "measured" if number % 2 else "estimated",
                "units": {},
                "assumptions": [] if number % 2 else [f"{name}: as on a like machine"],
            }
        )
        record = {
            "stage": name,
            "fingerprint": f"{number:064x}",
            "commands": commands[name],
            "needs": [],
            "files": {},
            "seconds": seconds[name],
            "cpu_seconds": seconds[name],
            "gpu_seconds": 0.0,
            "disk_bytes": 1000,
            "attempts": 1,
            "units": {},
            "line": f"{name} is done",
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:01:00+00:00",
        }
        if name != "report":
            Path("stages", f"{name}.json").write_text(json.dumps(record))
    made = {"size": "/some/where/tiny", "gpus": 0, "machine": "2 cores", "stages": bill}
    Path("bill.json").write_text(json.dumps(made))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    make(Path(sys.argv[1]))
