"""What stages took on this machine and so will take: times of finished runs, fitted stage by stage.

A file of it holds the times themselves. Of a stage that was timed at two sizes or more, what it takes
whatever it does is told apart from what each unit takes; timed at one size, all of it grows with the units.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from editverse.speedrun.bill.costs import BILL, STAGES, StageCost, read_bill
from editverse.speedrun.records import read_record
from shards.errors import ConfigError
from shards.files import write_json
from shards.limits import read_json
from shards.serialization import from_dict

DEFAULT = Path("runs/speedrun-calibration.json")
SHIPPED = "measured.json"  # of a size: times of another machine, for a first bill
APART = 1.3  # the largest size over the smallest, from which on start and rate are told apart
GIB = 2**30
MEASURES = ("seconds", "cpu_seconds", "gpu_seconds", "disk_bytes")


@dataclass(frozen=True)
class StageTime:
    """What a stage of a run took.

    Attributes:
        stage: one of `STAGES`; unit, count: what it did.
        seconds: of the clock; cpu_seconds, gpu_seconds: of all cores and GPUs; disk_bytes: that it left.
    """

    stage: str
    unit: str
    count: float
    seconds: float
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    disk_bytes: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Times of finished stages.

    Attributes:
        size, base: of the runs; gpus: that they had. machine: in words, with the version of torch.
        date: of the day on which it was written.
        times: of all stages of all runs.
    """

    size: str
    base: str
    gpus: int
    machine: str
    date: str
    times: tuple[StageTime, ...]

    def of(self, stage: str, unit: str) -> list[StageTime]:
        """Times of a stage in a unit."""
        return [time for time in self.times if (time.stage, time.unit) == (stage, unit)]


def machine() -> str:
    """This machine in words: its processor, cores that this process may use, and torch if it is installed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
    try:
        torch = f", torch {importlib.metadata.version('torch')}"
    except importlib.metadata.PackageNotFoundError:
        torch = ""
    return f"{num_cores()} cores of {name or platform.machine()}{torch}"


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def times_of(run: Path) -> list[StageTime]:
    """What the finished stages of a run took, in the units of its bill.

    Raises:
        ConfigError: the folder has no bill, or a record is damaged.
    """
    try:
        bill = read_bill(run / BILL)
    except FileNotFoundError:
        raise ConfigError(
            f"{run}: has no {BILL}; scripts/speedrun.sh writes it when a run begins, `bill --out` does too"
        ) from None
    found = []
    for row in bill.stages:
        record = read_record(run, row.stage)
        for unit, count in row.units.items():
            if record is not None:
                numbers = {name: float(record.get(name) or 0.0) for name in MEASURES}
                found.append(StageTime(row.stage, unit, float(count), **numbers))
    return found


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as JSON."""
    write_json(path, asdict(calibration))


def read_calibration(path: Path) -> Calibration:
    """Read what `write_calibration` wrote.

    Raises:
        ConfigError: the file is absent, or something else.
    """
    try:
        calibration: Calibration = from_dict(Calibration, read_json(path), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found; `editverse speedrun calibrate` writes one") from None
    for time in calibration.times:
        if time.stage not in STAGES or time.count < 0 or time.seconds < 0:
            raise ConfigError(f"{path}: {time.stage}: needs a stage's name and numbers of at least 0")
    return calibration


def today() -> str:
    """The date, YYYY-MM-DD."""
    return datetime.date.today().isoformat()


def fit(counts: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """(start, rate) of value = start + rate * count, neither below 0; errors are relative to the values.

    Where all counts are about the same (`APART`) the start is 0: the two cannot be told apart.
    """
    rows = [(c, v) for c, v in zip(counts, values, strict=True) if v > 0]
    if not rows:
        return 0.0, 0.0
    largest, smallest = max(c for c, _ in rows), min(c for c, _ in rows)
    weights = [1 / (v * v) for _, v in rows]
    if largest == 0:
        return sum(w * v for w, (_, v) in zip(weights, rows, strict=True)) / sum(weights), 0.0
    alone = _slope(rows, weights)
    if largest < APART * smallest:
        return 0.0, alone
    total = sum(weights)
    mean_c = sum(w * c for w, (c, _) in zip(weights, rows, strict=True)) / total
    mean_v = sum(w * v for w, (_, v) in zip(weights, rows, strict=True)) / total
    spread = sum(w * (c - mean_c) ** 2 for w, (c, _) in zip(weights, rows, strict=True))
    rate = sum(w * (c - mean_c) * (v - mean_v) for w, (c, v) in zip(weights, rows, strict=True)) / spread
    start = mean_v - rate * mean_c
    if rate < 0:
        return mean_v, 0.0
    return (0.0, alone) if start < 0 else (start, rate)


def _slope(rows: Sequence[tuple[float, float]], weights: Sequence[float]) -> float:
    """The rate of the best line through 0."""
    across = sum(w * c * v for w, (c, v) in zip(weights, rows, strict=True))
    return across / sum(w * c * c for w, (c, _) in zip(weights, rows, strict=True))


def measured(
    stage: str, units: dict[str, float], calibration: Calibration, gpus: int, same_machine: bool, base: str
) -> StageCost | None:
    """A stage's cost by the times of a calibration; None where it has none.

    Args:
        units: the one unit and how many of it.
        gpus: of the bill: GPU- and CPU-hours stay, and hours of the clock follow those of the GPUs.
        same_machine: as that of the calibration, which makes the basis "measured".
        base: of the bill; an estimate where the runs had another one.
    """
    ((unit, count),) = units.items()
    times = calibration.of(stage, unit)
    if not times:
        return None
    taken = {}
    for name in MEASURES:
        start, rate = fit([time.count for time in times], [getattr(time, name) for time in times])
        taken[name] = start + rate * count
    if gpus and calibration.gpus and taken["gpu_seconds"]:
        taken["seconds"] *= calibration.gpus / gpus
    counts = ", ".join(f"{n:,.4g}" for n in sorted({time.count for time in times}))
    told = [f"timed at {counts} {unit} on {calibration.machine}, {calibration.date}"]
    if base != calibration.base:
        told.append(f"the runs timed had the base {calibration.base}")
    sure = same_machine and base == calibration.base and gpus == calibration.gpus
    return StageCost(
        stage,
        taken["gpu_seconds"] / 3600,
        taken["cpu_seconds"] / 3600,
        taken["disk_bytes"] / GIB,
        taken["seconds"] / 3600,
        "measured" if sure else "estimated",
        dict(units),
        tuple(told),
    )
