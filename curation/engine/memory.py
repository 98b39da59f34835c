"""The GPU memory that the stages of a task need, and which card has it. Weights are counted, never loaded.

Activations are not measured: an allowance stands for them. What a program's authors publish of its peak has
them in it.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from curation.core.stage import Resources, Stage
from curation.engine.task_config import StageLimits
from curation.vlm.interface import Annotator
from curation.vlm.weights import GIB, Weights, gib_on_gpu, weights_of
from shards.errors import first_line

# The cards by what they are called (GB), and the GiB that CUDA has on the smallest of that name: L4 and A10G,
# A100, A100 and H100, H200
CARDS = {24: 22.0, 40: 39.4, 80: 79.1, 141: 139.8}
ALLOWANCE, LEAST_ALLOWANCE = 0.25, 2.0  # for activations and CUDA itself: a part of the weights, GiB at least
SHARES = 100  # parts that a GPU is divided into, to see which processes may meet on one


@dataclass(frozen=True)
class GpuMemory:
    """The GPU memory of one process, GiB.

    Attributes:
        weights: of all models that it holds; allowance: for their activations, not measured.
        unknown: names of models of which nobody knows, so that the sum is the least that it can be.
    """

    weights: float = 0.0
    allowance: float = 0.0
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Weights and allowance."""
        return self.weights + self.allowance

    @property
    def card(self) -> int | None:
        """GB of the smallest card that has it; None for none of `CARDS`, 0 where no GPU is needed."""
        return card_for(self.total) if self.total or self.unknown else 0

    @property
    def card_name(self) -> str:
        """The smallest card in words."""
        if self.card == 0:
            return "none"
        return f"{self.card} GB" if self.card else f"more than {max(CARDS)} GB"

    def __str__(self) -> str:
        return f"{'at least ' if self.unknown else ''}{self.total:.1f} GiB"


def card_for(gib: float) -> int | None:
    """GB of the smallest of `CARDS` with so many GiB; None when none has."""
    return next((name for name, there in CARDS.items() if gib <= there), None)


def memory_of(weights: Iterable[Weights]) -> GpuMemory:
    """What one process needs that holds these."""
    held = list(weights)
    gib, unknown = gib_on_gpu(held)
    counted, _ = gib_on_gpu([one for one in held if one.peak_gib is None])
    allowance = max(LEAST_ALLOWANCE, ALLOWANCE * counted) if counted else 0.0
    return GpuMemory(gib, allowance, tuple(dict.fromkeys(one.model for one in unknown)))


def stage_weights(stage: Stage) -> list[Weights]:
    """The weights that a process of a stage holds, each part of a model once."""
    return list(dict.fromkeys(one for annotator in stage.annotators for one in weights_of(annotator)))


@dataclass(frozen=True)
class TaskMemory:
    """What one GPU must hold under each engine.

    Attributes:
        stages: stage -> what a process of it needs alone.
        passes: one stage at a time, each in a fresh process.
        local: all stages in one process; each model once.
        ray: processes of whichever stages may share a GPU, at worst.
        gpus: that Ray needs at the same time.
    """

    stages: Mapping[str, GpuMemory]
    passes: GpuMemory
    local: GpuMemory
    ray: GpuMemory
    gpus: float

    @property
    def sentence(self) -> str:
        """Which cards run the task, in one line, as the files of the reference preset have it."""
        if not self.passes.card and self.passes.card is not None:
            return "Needs no GPU."
        unknown = f"; not counted: {', '.join(self.passes.unknown)}" if self.passes.unknown else ""
        count = math.ceil(self.gpus - 1e-6)
        with_ray = f"{count} of {self.ray.card_name} with Ray"
        one = f"{self.passes.card_name} with --engine passes"
        whole = f"{self.local.card_name} with --engine local"
        return f"Needs a GPU of {one}, {whole}, {with_ray}{unknown}."


def task_memory(
    stages: Sequence[Stage], needs: Mapping[str, Resources], limits: Mapping[str, StageLimits]
) -> TaskMemory:
    """What the stages of a task need of a GPU.

    Args:
        needs: stage -> what one process takes, with the share of a GPU that Ray gives it.
        limits: stage -> its least and largest number of processes, where they are set.
    """
    held = {stage.name: stage_weights(stage) for stage in stages}
    memory = {name: memory_of(weights) for name, weights in held.items()}
    together = memory_of(one for weights in held.values() for one in weights)
    # Models work one after the other in one process, so that it has the activations of one at a time.
    local = GpuMemory(
        together.weights, max((m.allowance for m in memory.values()), default=0.0), together.unknown
    )
    passes = max(memory.values(), key=lambda one: one.total, default=GpuMemory())
    passes = GpuMemory(passes.weights, passes.allowance, together.unknown)
    wanting = {name: needs[name].gpus for name in memory if needs[name].gpus}
    counts = {name: limits[name].max if name in limits else None for name in wanting}
    worst = _worst_on_one_gpu([(wanting[name], memory[name].total, counts[name]) for name in wanting])
    ray = GpuMemory(worst, 0.0, together.unknown)
    return TaskMemory(memory, passes, local, ray, gpus_at_once(needs, limits))


def gpus_at_once(needs: Mapping[str, Resources], limits: Mapping[str, StageLimits]) -> float:
    """GPUs that the smallest pools of all stages take together; the arguments are those of `task_memory`."""
    least = {name: limit.min or 1 for name, limit in limits.items()}
    return sum(one.gpus * least.get(name, 1) for name, one in needs.items())


def _worst_on_one_gpu(kinds: Sequence[tuple[float, float, int | None]]) -> float:
    """Largest sum of GiB of processes whose shares fit on one GPU.

    Args:
        kinds: share of a GPU (a whole number of them counts as one), GiB, and the most processes of each.
    """
    most = [0.0] * (SHARES + 1)  # by hundredths of the GPU that are used
    for share, gib, limit in kinds:
        step = min(SHARES, max(1, round(share * SHARES)))
        for _ in range(min(limit or SHARES, SHARES // step)):
            most = [
                max(most[used], most[used - step] + gib if used >= step else 0.0)
                for used in range(SHARES + 1)
            ]
    return most[SHARES]


def out_of_memory(stage: str, annotators: Sequence[Annotator], error: BaseException) -> str:
    """One line for a run that a GPU is too small for: what is needed, what there is, what to do.

    Args:
        stage: that failed; annotators: of it.
    """
    need = memory_of(one for annotator in annotators for one in weights_of(annotator))
    there = gib_of_gpu()
    facts = [f"stage {stage}: the GPU's memory is used up ({first_line(error)[:120]})"]
    if need.total:
        parts = f"{need.weights:.1f} GiB for weights and about {need.allowance:.1f} for activations"
        facts.append(f"it needs {'at least ' if need.unknown else ''}{parts}")
    facts.append(f"this GPU has {there:.1f} GiB" if there else "")
    smaller = "a larger card, a smaller checkpoint, or `offload: true` where the annotator has it"
    alone = (
        "--engine passes (one stage at a time), fewer --workers, or a larger share of a GPU "
        f"(`resources: {{{stage}: {{gpus: 1}}}}`)"
    )
    if there and need.total > there:
        advice = f"use {smaller}"
    elif there and need.total:
        advice = f"if others use it too: {alone}; else shorter or smaller clips, {smaller}"
    else:
        advice = f"use {alone}; or {smaller}"
    return "; ".join([*filter(None, facts), advice])


def verdict(memory: TaskMemory, gpus: int, gib: float) -> str:
    """One line: under which engines a machine's GPUs are large enough, and enough.

    Args:
        gpus: their number; gib: of the first of them.
    """
    engines = {"passes": memory.passes, "local": memory.local, "ray": memory.ray}
    enough = [name for name, need in engines.items() if need.total <= gib]
    if memory.gpus > gpus + 1e-6 and "ray" in enough:
        enough.remove("ray")
    fits = f"enough for --engine {', '.join(enough)}" if enough else "too small for every engine"
    return f"this machine: {gpus} GPU{'s' if gpus > 1 else ''} of {gib:.1f} GiB, {fits} by these counts"


def gib_of_gpu() -> float:
    """GiB of the GPU that this process works on; 0 where there is none that torch can use."""
    if not has_cuda():
        return 0.0
    import torch

    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / GIB


def has_cuda() -> bool:
    """Whether there is a GPU here that torch can use; torch is imported only where there is a GPU."""
    if not visible_gpus() or importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """The GPUs of this machine that CUDA may use, as CUDA_VISIBLE_DEVICES names them.

    Args:
        devices: the folder of device files; nothing is asked of the driver, which takes a second.
    """
    count = len(list(devices.glob("nvidia[0-9]*")))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in chosen.split(",") if name.strip()] if count else []
