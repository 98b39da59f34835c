"""What a stage needs of the machine, looked at before it begins: disk, GPUs, and the limit of GPU-hours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editverse.speedrun.recipe import Stage
from editverse.speedrun.records import Spent
from shards.errors import EditVerseError

GIB = 2**30


class PreflightError(EditVerseError):
    """The machine, or a limit, does not let a stage begin; the message names both."""


def num_gpus() -> int:
    """GPUs that commands will see: those that nvidia-smi lists, as far as CUDA_VISIBLE_DEVICES lets them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        done = subprocess.run(
            [program, "--list-gpus"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    listed = sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if not done.returncode else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed if visible is None else min(listed, len([part for part in visible.split(",") if part]))


def bytes_below(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; symbolic links do not count."""
    if path.is_symlink() or not path.exists():
        return 0
    if path.is_file():
        return path.stat().st_size
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 (a million of them)
            except FileNotFoundError:
                continue
    return total


def check_stage(
    stage: Stage, run: Path, bill: Mapping[str, Any] | None, spent: Spent, max_gpu_hours: float | None
) -> None:
    """Refuse a stage that this machine, or the limit, cannot carry through.

    Args:
        bill: the stage's row of bill.json; None where there is none.
        spent: by all stages so far.

    Raises:
        PreflightError: too few GPUs, too little disk, or a bill beyond the limit.
    """
    if stage.gpus and (there := num_gpus()) < stage.gpus:
        raise PreflightError(
            f"{stage.name}: needs {stage.gpus} GPU{'s' * (stage.gpus > 1)}, and this machine has {there}; "
            "set GPUS=, take another machine, or submit the run with --slurm"
        )
    if bill is None:
        return
    wanted = float(bill.get("disk_gib") or 0.0) - sum(bytes_below(run / path) for path in stage.makes) / GIB
    free = shutil.disk_usage(run).free / GIB
    if wanted > free:
        raise PreflightError(
            f"{stage.name}: needs {wanted:.1f} GiB more of disk and {run} has {free:.1f} GiB free; "
            "make room, or choose another OUT="
        )
    hours = float(bill.get("gpu_hours") or 0.0)
    if max_gpu_hours is not None and spent.gpu_seconds / 3600 + hours > max_gpu_hours:
        raise PreflightError(
            f"{stage.name}: is billed {hours:.2f} GPU-hours and {spent.gpu_seconds / 3600:.2f} are spent: "
            f"more than --max_gpu_hours {max_gpu_hours:g}; what is done stays"
        )
