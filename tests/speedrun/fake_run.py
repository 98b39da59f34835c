"""A run folder of the speedrun in small, made by the real commands: what the report's tests read.

`python -m tests.speedrun.fake_run FOLDER` leaves one to look at. Its stages' records and its bill are written
by hand, as `editverse.speedrun` writes them; everything that they speak of is real.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

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
        "scenes": 14,
        "per_scene": 2,
        "first": 700000,
        "heldout_fraction": 0.5,
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
TRAINING = {
    "data": {"batch_size": 2, "token_budget": 1024},
    "optim": {"lr": 0.0003, "warmup": 1},
    "train": {
        "init_from": "nano",
        "steps": 3,
        "precision": "32-true",
        "accelerator": "cpu",
        "save_every": 1000,
        "validate_every": 100000,
        "num_val_samples": 1,
    },
}
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
    """Fill `out`, which must not be there."""
    out.mkdir(parents=True)
    (out / "configs").mkdir()
    commands: dict[str, list[list[str]]] = {name: [] for name in STAGES}
    seconds: dict[str, float] = dict.fromkeys(STAGES, 0.1)

    def stage(name: str, package: str, *words: str) -> None:
        begin = time.monotonic()
        commands[name].append(run(package, *words))
        seconds[name] += time.monotonic() - begin

    def write(name: str, value: Any) -> str:
        (out / "configs" / name).write_text(yaml.safe_dump(value, sort_keys=False))
        return str(out / "configs" / name)

    data = out / "data"
    workspace = ["--workspace", str(out / "workspace"), "--workers", "0"]
    scenes = write("scenes.yaml", SCENES)
    stage(
        "curation",
        "curation",
        "run",
        "cg_removal",
        "--config",
        scenes,
        "--out",
        str(data / "scenes"),
        *workspace,
    )
    pairs = out / "pairs"
    for number in range(4):
        pairs.mkdir(exist_ok=True)
        source, target, _ = moving_square(5, 32, 48, seed=number)
        write_video(pairs / f"{number}.mp4", source, 10)
        write_video(pairs / f"{number}_edited.mp4", target, 10)
        (pairs / f"{number}.txt").write_text("Remove the bright square.")
    (pairs / "3_edited.mp4").write_bytes(b"cut off")
    imports = ["--license", "CC-BY-4.0", "--task", "object_removal", "--heldout", "0", "--workers", "0"]
    stage("imports", "curation", "import", "folder", str(pairs), "--out", str(data / "pairs"), *imports)
    rules = write("gates.yaml", RULES)
    for name in ("scenes", "pairs"):
        stage("gates", "curation", "grade", str(data / name), *workspace)
        clean = str(data / f"{name}-clean")
        stage("gates", "curation", "filter", str(data / name), "--rules", rules, "--out", clean)
    fits = {
        "stage1": ("fit", "nano", [data / "scenes", data / "pairs"]),
        "stage2": ("fit", str(out / "stage1" / "checkpoint"), [data / "scenes-clean"]),
        "distill": ("distill", str(out / "stage2" / "checkpoint"), [data / "scenes-clean"]),
    }
    for name, (command, start, folders) in fits.items():
        settings = json.loads(json.dumps(TRAINING))
        settings["data"]["shards"] = [str(folder) for folder in folders]
        settings["train"]["init_from"] = start
        if command == "distill":
            settings |= {"distill": {"steps": 2, "teacher_steps": 4}}
            settings["train"]["steps"] = 2
        config = write(f"{name}.yaml", settings)
        stage(name, "model", command, "--config", config, "--run", str(out / name))
    systems = [f"--system.{name} checkpoint:{at}" for name, at in (("base", "nano"),)]
    systems += [f"--system.{name} checkpoint:{out / name / 'checkpoint'}" for name in ("stage1", "stage2")]
    words = [word for system in systems for word in system.split()]
    items = ["--suite", "heldout", "--data", str(data / "scenes"), "--limit", "6", "--steps", "2"]
    student = ["--checkpoint", str(out / "distill")]
    stage("bench", "benchmark", "run", *items, *words, *student, "--out", str(out / "bench" / "scenes"))
    ledger = [str(data / "scenes"), str(data / "pairs"), "--out", str(out / "ledger.csv")]
    stage("report", "shards", "ledger", *ledger)
    _records(out, commands, seconds)


def _records(out: Path, commands: dict[str, list[list[str]]], seconds: dict[str, float]) -> None:
    """The bill and the stages' records by the contract of the run folder."""
    bill = []
    (out / "stages").mkdir()
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
            (out / "stages" / f"{name}.json").write_text(json.dumps(record))
    made = {"size": "tiny", "gpus": 0, "machine": "2 cores", "stages": bill}
    (out / "bill.json").write_text(json.dumps(made))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    make(Path(sys.argv[1]))
