"""Curation's engines: what they cost beside the stages' own work, and how their drivers' memory grows.

Many tiny clips (17 frames of 64x64) pass four cheap stages: cut, screen, edges, caption. The bare work is the
sum of the seconds that the stages took in one process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from shards.media import write_video
from shards.processes import peak_memory
from tests.conftest import moving_square
from tests.perf.measure import Figure

CLIPS, FEW = 5000, 500
ENGINES: Mapping[str, tuple[str, int]] = {
    "in one process": ("auto", 0),
    "pool of 1": ("local", 1),
    "pool of 2": ("local", 2),
    "Ray, 1 worker": ("ray", 1),
    "Ray, 2 workers": ("ray", 2),
}
CONFIG = {
    "class_path": "curation.tasks.sketch_to_video.SketchToVideo",
    "init_args": {
        "edges": {"class_path": "curation.annotators.canny.CannyEdges"},
        "cut": {"heldout_fraction": 0.0, "screen": {"alike": -1, "motion": 0, "sharpness": 0, "frozen": 1}},
        "length": 17,
        "most": 1,
        "least": 0.0,
    },
}


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Every engine over the same clips; the samples must be the same bytes."""
    figures: list[Figure] = []
    few, many = (4, 8) if quick else (FEW, CLIPS)
    (scratch / "task.yaml").write_text(yaml.safe_dump(CONFIG))
    for count in (few, many):
        write_clips(scratch / str(count), count)
    bare, shards = 0.0, ""
    for name, (engine, workers) in ENGINES.items():
        small = alone(scratch, str(few), engine, workers)
        large = alone(scratch, str(many), engine, workers)
        if engine == "auto":
            bare, shards = large["work"], large["shards"]
        assert large["shards"] == shards, f"{name}: other shards"
        over = large["seconds"] * max(1, workers) / bare - 1
        rate = (
            f"{large['seconds']:.1f} s; stages {large['work']:.1f} s, {over:+.0%} over the bare work of "
            f"{bare:.1f} s; peak of the driver {small['peak_mb']:.0f} MB at {few}, {large['peak_mb']:.0f} MB "
            f"at {many}"
        )
        figures.append(
            Figure(f"{many} tiny clips, {name}", 1000 * large["seconds"] / many, None, "ms/clip", rate)
        )
    return figures + ([] if quick else sample_clips(scratch))


def sample_clips(scratch: Path) -> list[Figure]:
    """The 17 windows of the sample clips by the offline preset: is an engine worth its start?"""
    from curation.engine.task_config import default_config
    from curation.sources.assets import CLIPS as ASSETS
    from curation.sources.assets import fetch

    fetch(ASSETS, Path("data/clips"))
    (scratch / "sample").symlink_to(Path("data/clips").resolve())
    shutil.copy(default_config("sketch_to_video"), scratch / "task.yaml")
    figures, bare = [], 0.0
    for name, engine, workers in (("one process", "auto", 0), ("auto, 2", "auto", 2), ("Ray, 2", "ray", 2)):
        told = alone(scratch, "sample", engine, workers)
        bare = bare or told["seconds"]
        rate = f"{told['seconds']:.1f} s, {told['seconds'] / bare:.2f} times one process"
        figures.append(Figure(f"sample clips, {name}", 1000 * told["seconds"] / 17, None, "ms/window", rate))
    return figures


def write_clips(folder: Path, count: int) -> None:
    """Files of different bytes: an MP4 with a box at its end that players skip, with a number in it."""
    folder.mkdir()
    source, _, _ = moving_square(17, 64, 64)
    write_video(folder / "one.mp4", np.ascontiguousarray(source), 10)
    data = (folder / "one.mp4").read_bytes()
    (folder / "one.mp4").unlink()
    for number in range(count):
        (folder / f"{number:06d}.mp4").write_bytes(data + b"\0\0\0\x10free" + b"%08d" % number)


def alone(scratch: Path, clips: str, engine: str, workers: int) -> dict[str, Any]:
    """A run in a process of its own."""
    arguments = [str(scratch), clips, engine, str(workers)]
    command = [sys.executable, "-m", "tests.perf.engine", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def one_run(scratch: Path, clips: str, engine: Any, workers: int) -> dict[str, Any]:
    """The run itself, with an empty workspace."""

    from curation.engine.engine import Engine, EngineOptions
    from curation.engine.run import run

    out, workspace = scratch / "out", scratch / "workspace"
    for folder in (out, workspace):
        shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    with Engine(EngineOptions(workers, engine=engine)) as started:
        where = scratch / clips, out, workspace, scratch / "task.yaml"
        summary = run("sketch_to_video", *where, engine=started)
    seconds = time.perf_counter() - began
    assert summary.accepted == summary.clips or clips == "sample", summary
    return {
        "seconds": seconds,
        "work": sum(stage.seconds for stage in summary.stages.values()),
        "shards": (out / "manifest.jsonl").read_text(),
        "peak_mb": peak_memory() / 1e6,
    }


if __name__ == "__main__":
    where, clips, which, processes = sys.argv[1:]
    print(json.dumps(one_run(Path(where), clips, which, int(processes))))
