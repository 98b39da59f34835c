"""What accepted pairs cost: seconds of processors and GPUs by stage, out of a run's `summary.json`.

Processor seconds are those of all threads of the processes that computed (`time.process_time`), also of
results that an earlier run computed and this one found. GPU seconds are the share of a GPU that a process
held times the seconds of the clock that it computed. Neither has programs that a process starts, nor the
writing of shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shards.errors import SettingError
from shards.limits import MAX_JSON_BYTES, parse_json
from shards.location import Location

SUMMARY = "summary.json"
PRICES = ("cpu_hour", "gpu_hour")


@dataclass(frozen=True)
class StageCost:
    """What a stage of a run took.

    Attributes:
        results: computed or found; unpriced: those of them of which nobody noted what they took.
        cpu_seconds, gpu_seconds: of all of them.
    """

    stage: str
    results: int
    cpu_seconds: float
    gpu_seconds: float
    unpriced: int


@dataclass
class Costs:
    """What the pairs of a folder cost.

    Attributes:
        accepted: pairs; samples: that were made of them.
        chains: tasks whose pairs samples of this one were made from, first ones first -> such samples.
    """

    directory: str
    task: str
    accepted: int
    samples: int
    candidates: int
    stages: list[StageCost]
    chains: Counter[tuple[str, ...]] = field(default_factory=Counter)

    @property
    def cpu_seconds(self) -> float:
        """Core-seconds of all stages."""
        return sum(stage.cpu_seconds for stage in self.stages)

    @property
    def gpu_seconds(self) -> float:
        """GPU-seconds of all stages."""
        return sum(stage.gpu_seconds for stage in self.stages)

    @property
    def unpriced(self) -> int:
        """Results of which nobody noted what they took."""
        return sum(stage.unpriced for stage in self.stages)

    def per_pair(self, parents: Mapping[str, Costs] | None = None) -> tuple[float, float] | None:
        """Core-seconds and GPU-seconds for each accepted pair; None where that is not known.

        Args:
            parents: task -> costs, to add those of the pair that a sample was made from; without it the own
                stages alone.
        """
        if not self.accepted or self.unpriced:
            return None
        cpu, gpu = self.cpu_seconds / self.accepted, self.gpu_seconds / self.accepted
        for chain, count in self.chains.items() if parents is not None else ():
            share = count / self.chains.total()
            for task in chain:
                one = (parents or {}).get(task)
                each = one.per_pair() if one is not None else None
                if each is None:
                    return None
                cpu, gpu = cpu + share * each[0], gpu + share * each[1]
        return cpu, gpu


def costs_of(directory: str) -> Costs | None:
    """What the run that wrote a folder or URL noted; None where none did, as with imported pairs."""
    try:
        data = Location(directory).read(SUMMARY, limit=MAX_JSON_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    summary = parse_json(data, Location(directory).path(SUMMARY))
    if not isinstance(summary, dict) or not isinstance(summary.get("stages"), dict):
        return None
    gpus = summary.get("gpus") or {}
    stages = [_stage(name, work, float(gpus.get(name, 0.0))) for name, work in summary["stages"].items()]
    accepted, samples, candidates = (
        int(summary.get(name, 0)) for name in ("accepted", "samples", "candidates")
    )
    return Costs(directory, str(summary.get("task", "")), accepted, samples, candidates, stages)


def _stage(name: str, work: Mapping[str, Any], gpus: float) -> StageCost:
    computed, reused = int(work.get("computed", 0)), int(work.get("reused", 0))
    cpu = float(work.get("cpu_seconds", 0.0)) + float(work.get("saved_cpu_seconds", 0.0))
    clock = float(work.get("seconds", 0.0)) + float(work.get("saved_seconds", 0.0))
    unpriced = int(work.get("unpriced", reused))  # earlier versions noted nothing of what they found
    return StageCost(name, computed + reused, cpu, gpus * clock, unpriced)


def money(seconds: tuple[float, float], prices: Mapping[str, float]) -> float:
    """What core-seconds and GPU-seconds cost at prices of an hour of each."""
    cpu, gpu = seconds
    return (cpu * prices.get("cpu_hour", 0.0) + gpu * prices.get("gpu_hour", 0.0)) / 3600


def checked_prices(prices: Mapping[str, float] | None) -> dict[str, float]:
    """Prices of an hour of a core and of a GPU; SettingError for other names and for negative ones."""
    given = dict(prices or {})
    for name, value in given.items():
        if name not in PRICES:
            raise SettingError(f"--prices: {name!r} is none of {', '.join(PRICES)}")
        if not 0 <= value < float("inf"):
            raise SettingError(f"--prices: {name} is {value}; needs a price of 0 or more")
    return given
