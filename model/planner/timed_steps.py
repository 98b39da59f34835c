"""Time steps of a plan on real ranks: forward and backward passes of random weights, nothing summed up.

Each rank is a process, which runs its packs as in a training: those that it shares exchange tokens for heads
over gloo (CPU) or NCCL (CUDA). Weights are neither gathered nor stepped.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing

from model.extras.config import ExtrasConfig
from model.net.activation_checkpointing import Checkpointing, prepare_blocks
from model.net.families import build_transformer
from model.net.transformer import Transformer
from model.net.ulysses import forget_groups, make_groups
from model.net.wan_config import WanConfig
from model.planner.allocations import layout_of, texts_for
from model.planner.balance import PackPlan
from model.planner.flops import Sizes
from model.sequence.interleave import TokenSequence, VisionElement, build_sequence
from model.sequence.layout import SPPlan
from model.sequence.packing import PackedBatch, pack, pack_layout

REPEATS = 3


@dataclass(frozen=True)
class Step:
    """What is timed: lengths of sequences in tokens, and the packs that they are in."""

    lengths: tuple[int, ...]
    packs: tuple[PackPlan, ...]


@dataclass(frozen=True)
class StepTime:
    """What a step took, the best of some rounds of each.

    Attributes:
        seconds: on the slowest rank, by the clock.
        processor: seconds that processors worked, on the rank where its packs add up to most; of a shared
            pack the rank that worked longest counts. As `seconds` where every rank has a core of its own and
            waits for nothing but the others' work; where cores are shared or busy, it still is.
    """

    seconds: float
    processor: float


@dataclass(frozen=True)
class Setup:
    """What steps are timed with, see `time_steps`."""

    config: Sizes
    steps: tuple[Step, ...]
    ranks: int
    device: str
    checkpointing: Checkpointing
    precision: torch.dtype
    extras: ExtrasConfig | None
    threads: int


def every_group(count: int, size: int, ranks: int) -> tuple[PackPlan, ...]:
    """A pack of all of `count` sequences for every group of `size` ranks, each with its own."""
    return tuple(PackPlan(tuple(range(count)), first, size) for first in range(0, ranks, size))


def time_steps(
    config: Sizes,
    steps: Sequence[Step],
    ranks: int = 1,
    device: str = "cpu",
    checkpointing: Checkpointing = "none",
    precision: torch.dtype = torch.bfloat16,
    extras: ExtrasConfig | None = None,
) -> list[StepTime]:
    """The times of each step: the best of three rounds, the device warm.

    Args:
        config: with `text_dim` and `vision_dim`; `ranks` divides its heads.
        ranks: processes that run a step together, each on its own device, or on the CPU with its share of
            this process's threads; 1 times in this process.
        precision: of autocast; float32 turns it off.
    """
    threads = max(1, torch.get_num_threads() // ranks)
    setup = Setup(config, tuple(steps), ranks, device, checkpointing, precision, extras, threads)
    if ranks == 1:
        return _time_rank(0, setup)
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_joined, (setup, folder), nprocs=ranks)
        return [StepTime(*times) for times in json.loads((Path(folder) / "times.json").read_text())]


def _joined(rank: int, setup: Setup, folder: str) -> None:
    """A rank's process."""
    cuda = torch.device(setup.device).type == "cuda"
    torch.set_num_threads(setup.threads)
    if cuda:
        torch.cuda.set_device(rank)
    store = f"file://{folder}/store"
    dist.init_process_group("nccl" if cuda else "gloo", store, rank=rank, world_size=setup.ranks)
    try:
        make_groups(setup.ranks, setup.ranks)
        times = [astuple(t) for t in _time_rank(rank, setup)]
        if rank == 0:
            (Path(folder) / "times.json").write_text(json.dumps(times))
        dist.barrier()  # nobody leaves while others still talk to it
    finally:
        forget_groups()
        dist.destroy_process_group()


def _time_rank(rank: int, setup: Setup) -> list[StepTime]:
    """The times of each step, the same on all ranks."""
    device = torch.device(setup.device, rank) if setup.device == "cuda" else torch.device(setup.device)
    network = build_transformer(setup.config, setup.extras).to(device)
    out = network.get_submodule("proj_out" if isinstance(setup.config, WanConfig) else "out")
    with torch.no_grad():
        out.get_parameter("weight").normal_(std=0.02)  # zero at the start, and so would all gradients be
    prepare_blocks(network, setup.checkpointing, compiled=False)
    best = [StepTime(math.inf, math.inf)] * len(setup.steps)
    # round after round, so that a machine that is busy for a while slows all steps down alike
    for number in range(REPEATS + 1):
        for i, step in enumerate(setup.steps):
            batches = {
                n: _batch(setup.config, step.lengths, p, rank).to(device)
                for n, p in enumerate(step.packs)
                if rank in p.ranks
            }
            taken = _step_time(network, step, batches, device, setup)
            if number:  # the first round warms the device up
                shortest = map(min, astuple(best[i]), astuple(taken))
                best[i] = StepTime(*shortest)
    return best


def _batch(config: Sizes, lengths: Sequence[int], plan: PackPlan, rank: int) -> PackedBatch:
    """A pack of sequences of a word and a target each, or this rank's run of it."""
    sequences = [_sequence(config, lengths[i]) for i in plan.samples]
    if plan.size == 1:
        return pack(sequences)
    counts = [len(s) for s in sequences]
    sp_plan = SPPlan(rank, tuple(plan.ranks), sum(counts))
    parts = [sequences[i].part(start, stop) for i, start, stop in sp_plan.parts(counts)]
    return pack(parts, shared=(sp_plan, pack_layout(sequences)))


def _sequence(config: Sizes, length: int) -> TokenSequence:
    layout = layout_of(config)
    words = texts_for(layout, torch.randn(1, config.text_dim))
    vision = length - 3 if layout.has_words else length
    target = VisionElement("video1", torch.randn(1, 1, vision, config.vision_dim), target=True)
    return build_sequence([*words, target], layout)


def _step_time(
    network: Transformer, step: Step, batches: dict[int, PackedBatch], device: torch.device, setup: Setup
) -> StepTime:
    """Run a step: this rank's micro-batches, by the numbers of their packs."""
    worked = torch.zeros(len(step.packs) + 1, device=device, dtype=torch.float64)
    if setup.ranks > 1:
        dist.barrier()
    _wait(device)
    begin = time.perf_counter()
    for number, batch in batches.items():
        start = time.process_time()
        times = torch.full((batch.segments,), 0.5, device=device)
        with torch.autocast(device.type, setup.precision, enabled=setup.precision != torch.float32):
            out = network(batch, batch.vision, times)[0]
        out.float().square().sum().backward()
        worked[number] = time.process_time() - start
    _wait(device)
    worked[-1] = time.perf_counter() - begin
    network.zero_grad()
    if setup.ranks > 1:
        dist.all_reduce(worked, dist.ReduceOp.MAX)
    *packs, seconds = worked.tolist()
    load = [0.0] * setup.ranks
    for plan, spent in zip(step.packs, packs, strict=True):
        for rank in plan.ranks:
            load[rank] += spent
    return StepTime(seconds, max(load))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
