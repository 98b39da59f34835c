"""A size made smaller, and run: for times at two sizes, from which those of the whole follow."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from editverse.speedrun.bill.amounts import AMOUNTS, SizePlan
from shards.errors import SettingError
from shards.limits import read_yaml
from shards.resources import config_root

SCRIPT = "scripts/speedrun.sh"
COUNTED = ("clips", "imported", "items", "graded", "encoded")  # of bill.yaml
LEAST = {"scenes": 4, "steps": 4, "limit": 2}  # what no size is made smaller than


def timed_runs(plan: SizePlan, scales: Sequence[float], workspace: Path) -> Iterator[Path]:
    """Run a size at some parts of itself, each in its own folder; what is finished there is not run again.

    Args:
        scales: above 0, 1 at most.
        workspace: for the folders: the runs, and the sizes made smaller.

    Raises:
        SettingError: a scale is none, the script is not there, or a run failed; its log is named.
    """
    script = config_root().parent / SCRIPT
    if not script.is_file():
        raise SettingError(f"{script}: not found; calibrate in a checkout, or give finished --runs")
    for scale in scales:
        if not 0 < scale <= 1:
            raise SettingError(f"--scales: above 0 and 1 at most, got {scale:g}")
    for scale in scales:
        folder = workspace.resolve() / f"{scale:g}"
        smaller = scaled(plan.folder, folder / plan.folder.name, scale)
        print(f"{scale:g} of {plan.folder.name}: {folder / 'run'}", flush=True)
        command = ["bash", str(script), str(smaller), "--out", str(folder / "run"), "--yes"]
        if plan.gpus:
            command += ["--gpus", str(plan.gpus)]
        status = subprocess.run(command, check=False).returncode
        if status:
            raise SettingError(
                f"{folder / 'run'}: ended with status {status}; its logs are in {folder}/run/logs"
            )
        yield folder / "run"


def scaled(folder: Path, out: Path, scale: float) -> Path:
    """Copy a size to `out` with so much less of all that is counted; the copy's folder.

    Scenes, steps of trainings and items of suites are made fewer, no number of samples is too few any more,
    and a mixture that changes another one is that other one. Clips stay as they are.
    """
    shutil.copytree(folder, out, dirs_exist_ok=True)
    for path in sorted(out.rglob("*.yaml")):
        value = read_yaml(path)
        if not isinstance(value, dict):
            continue
        if path.name == "settings.yaml":
            value |= {name: 1 for name in value if name.startswith("least")}
        elif path.name == AMOUNTS:
            value |= {name: round(scale * value[name]) for name in COUNTED if value.get(name) is not None}
            value["candidates"] = {name: round(scale * n) for name, n in value["candidates"].items()}
        elif "base" in value and isinstance(value.get("change"), dict):
            value["change"] = {}  # the mixture that it is based on: few samples may leave a row of none
        else:
            for part in (value, value.get("init_args"), value.get("train")):
                _shrink(part, scale)
        path.write_text(yaml.safe_dump(value, sort_keys=False))
    return out


def _shrink(settings: Any, scale: float) -> None:
    if isinstance(settings, dict):
        for name, least in LEAST.items():
            if type(settings.get(name)) is int:
                settings[name] = min(settings[name], max(least, round(scale * settings[name])))
