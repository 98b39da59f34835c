"""What a speedrun costs by stage: GPU-hours, CPU-hours, disk and hours of the clock; `bill.json` of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shards.errors import ConfigError, EditVerseError
from shards.files import write_json
from shards.limits import read_json
from shards.serialization import from_dict

STAGES = (
    *("base", "clips", "curation", "imports", "gates", "latents"),
    *("stage1", "stage2", "distill", "bench", "report"),
)
BILL = "bill.json"  # in a run's folder
UNKNOWN = "not known"


class BillError(EditVerseError):
    """A bill that passes its limit, or that nothing is known for; the message says which."""


@dataclass(frozen=True)
class StageCost:
    """What a stage costs.

    Attributes:
        stage: one of `STAGES`.
        gpu_hours, cpu_hours: of all GPUs and of all cores together.
        disk_gib: that it leaves behind. hours: of the clock.
        basis: timed on such a machine, estimated, or known to nobody, when hours and GiB are 0.
        units: what is done, by name: `{"pairs": 1000}`.
        assumptions: what an estimate takes for granted, a sentence each.
    """

    stage: str
    gpu_hours: float
    cpu_hours: float
    disk_gib: float
    hours: float
    basis: Literal["measured", "estimated", "not known"]
    units: dict[str, Any] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.gpu_hours, self.cpu_hours, self.disk_gib, self.hours) < 0:
            raise ValueError(f"{self.stage}: hours and GiB must not be below 0")


@dataclass(frozen=True)
class Bill:
    """What a speedrun costs.

    Attributes:
        size: a name in configs/speedrun, or a folder. gpus: that it runs on. machine: in words.
        stages: in their order.
    """

    size: str
    gpus: int
    machine: str
    stages: tuple[StageCost, ...]

    @property
    def gpu_hours(self) -> float:
        """Of all stages."""
        return sum(row.gpu_hours for row in self.stages)

    @property
    def hours(self) -> float:
        """Of the clock, one stage after the other."""
        return sum(row.hours for row in self.stages)

    @property
    def unknown(self) -> list[str]:
        """Stages of which nobody knows what they cost; their hours are 0."""
        return [row.stage for row in self.stages if row.basis == UNKNOWN]

    @property
    def by_stage(self) -> Mapping[str, StageCost]:
        """The rows by their stage."""
        return {row.stage: row for row in self.stages}

    def check(self, max_gpu_hours: float | None) -> None:
        """Raise BillError where a limit is passed, naming the stage at which it would be."""
        if max_gpu_hours is None or self.gpu_hours <= max_gpu_hours:
            return
        spent, stage = 0.0, ""
        for row in self.stages:
            spent += row.gpu_hours
            if spent > max_gpu_hours:
                stage = row.stage
                break
        raise BillError(
            f"bill: {self.gpu_hours:,.4g} GPU-hours are more than --max_gpu_hours {max_gpu_hours:g}, which "
            f"would be passed in {stage}; raise it, or lower what {Path(self.size).name} asks for"
        )


def write_bill(path: Path, bill: Bill) -> None:
    """Write a bill as JSON."""
    value = dataclasses.asdict(bill)
    value["gpu_hours"], value["hours"] = bill.gpu_hours, bill.hours
    write_json(path, value)


def read_bill(path: Path) -> Bill:
    """Read what `write_bill` wrote; no torch is imported.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: it is no bill.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: is no bill; `editverse speedrun bill --out` writes one")
    known = {f.name for f in dataclasses.fields(Bill)}
    try:
        bill: Bill = from_dict(Bill, {k: v for k, v in value.items() if k in known}, str(path))
    except TypeError as error:
        raise ConfigError(f"{path}: is no bill ({error})") from error
    return bill
