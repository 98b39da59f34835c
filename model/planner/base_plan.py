"""`python -m model plan --base`: what it takes to train from published weights, before they are downloaded.

Sizes of the known weights are part of this project (`model.inference.bases`); of a folder in diffusers'
layout its configuration alone is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.data.mixture import Mixture, MixtureSampler, synthetic_lengths
from model.inference.bases import bases
from model.inference.diffusers_folder import read_pipeline
from model.inference.lora import LoraConfig
from model.net.activation_checkpointing import Checkpointing
from model.net.frozen_linear import BaseDtype
from model.net.wan_config import WanConfig
from model.planner.allocations import parameter_counts
from model.planner.balance import Budget, Cluster, largest_degree
from model.planner.cost import CostModel, by_formula
from model.planner.flops import blocks_work, forward_flops
from model.planner.memory import Memory, Savings, memory_of
from model.planner.step_plan import Planner
from model.planner.work import Shape
from shards.errors import ConfigError

GPUS = (1, 8, 64)
Size = tuple[int, int, int]  # frames, height, width of a clip
CLIP: Size = (81, 480, 832)  # as published
PUBLISHED = 65_520  # tokens of two such clips under Wan 2.1's autoencoder
WORDS = 20  # of the prompt
OFFLOADED = {"activations": "inputs of blocks", "optimizer": "moments", "all": "inputs of blocks, moments"}
MOST = 100_000  # samples that lengths are drawn for


@dataclass(frozen=True)
class BaseSizes:
    """What a plan needs to know of weights to start from.

    Attributes:
        name: what they are called; config: sizes of the transformer.
        size: frames, height and width of a clip; clip: its tokens.
    """

    name: str
    config: WanConfig
    size: Size
    clip: int


def sizes_of(base: str, size: Size = CLIP) -> BaseSizes:
    """Sizes of published weights by name, repository or folder.

    Args:
        size: frames, height and width of a clip.

    Raises:
        ConfigError: none of these, a transformer of two experts, which is not trained here, or a clip of less
            than a token.
    """
    known = {key: b for b in bases() for key in (b.name, b.repository)}
    if base in known:
        name, config, spatial, temporal = known[base].name, known[base].config, known[base].spatial, 4
    elif Path(base).is_dir():
        model = read_pipeline(Path(base))
        assert isinstance(model.network, WanConfig)  # `read_pipeline` reads no other
        name, config = str(base), model.network
        spatial, temporal = (model.vae["init_args"][key] for key in ("spatial", "temporal"))
    else:
        names = ", ".join(b.name for b in bases())
        raise ConfigError(f"base {base}: no such folder, and none of {names}")
    if config.boundary is not None:
        raise ConfigError(f"base {base}: it has two experts, which can edit but not be trained here")
    frames, *sides = size
    if frames < 1 or min(sides) < 2 * spatial:
        raise ConfigError(
            f"base {base}: a clip has at least 1 frame of {2 * spatial}x{2 * spatial}, not {frames} of "
            f"{sides[0]}x{sides[1]}"
        )
    rows, columns = (side // spatial // 2 for side in sides)
    return BaseSizes(name, config, size, ((frames - 1) // temporal + 1) * rows * columns)


@dataclass(frozen=True)
class BasePlan:
    """What is asked of `report_base`.

    Attributes:
        batch_size: samples per step, over all GPUs; samples: that are trained on, for the GPU-hours.
        budget: of a micro-batch; node, degree: see `Cluster`, as many as a node and the heads allow when
            None.
        tflops: operations per second that a GPU really does, in 10^12.
        size: frames, height and width of a clip, of which a sample without a mixture has two.
        rank: of the adapter; base: what it is trained beside is kept in.
        savings: what the run does to need less memory.
        steps, first, seed: which steps of a mixture are planned, and what its lengths are drawn by.
    """

    batch_size: int = 64
    samples: int = 10_000
    budget: Budget = field(default_factory=lambda: Budget(65_536))
    node: int = 8
    degree: int | None = None
    checkpointing: Checkpointing = "full"
    tflops: float = 400.0
    rank: int = 16
    steps: int = 20
    first: int = 0
    seed: int = 0
    size: Size = CLIP
    base: BaseDtype = "float32"
    savings: Savings = field(default_factory=Savings)


@dataclass(frozen=True)
class Estimate:
    """Of one kind of training on so many GPUs: bytes of each, seconds per step, waited maximum over mean."""

    memory: Memory
    seconds: float
    imbalance: float


def lora_cost(config: WanConfig, trained: int, recomputed: bool) -> CostModel:
    """Operations where an adapter of `trained` weights is trained: frozen weights have no gradients.

    The backward pass then has one product per frozen matrix, not two; attention and the adapter have two.
    """
    again = int(recomputed)
    token, pair = blocks_work(config, 1, 0), blocks_work(config, 0, 1)
    linear = (2 + again) * token.linear + (3 + again) * (token.prompts + trained)
    return CostModel(2 * linear, 2 * (3 + again) * pair.attention)


def estimate(
    sizes: BaseSizes, plan: BasePlan, lora: LoraConfig | None, mixture: Mixture | None
) -> Iterator[Estimate]:
    """Estimates for each of `GPUS`.

    Raises:
        ConfigError: a budget that cannot hold the longest sample, or a mixture without counts or lengths.
    """
    config, full = sizes.config, plan.checkpointing == "full"
    if mixture is None:
        lengths = np.full(plan.batch_size, 2 * sizes.clip, np.int64)
        order = MixtureSampler([[plan.batch_size]], [1.0], plan.seed)
        tokens, steps = 2 * sizes.clip, 1  # all steps are alike
    else:
        order, lengths = synthetic_lengths(mixture, MOST, plan.seed)
        tokens, steps = plan.budget.tokens, plan.steps
    cost = by_formula(config, 3.0 if full else 2.0)
    if lora is not None:
        cost = lora_cost(config, parameter_counts(config, lora)[1], full)
    for gpus in GPUS:
        node = min(plan.node, gpus)
        degree = largest_degree(gpus, node, config.heads)
        if plan.degree is not None:
            degree = min(plan.degree, node)
        cluster = Cluster(gpus, node, degree, config.heads)
        planner = Planner(lengths, order, plan.batch_size, cost, cluster, plan.budget)
        balanced = [planner(plan.first + n).balanced for n in range(steps)]
        yield Estimate(
            memory_of(config, gpus, tokens, plan.checkpointing, lora=lora, savings=plan.savings),
            float(np.mean([b.load.max() for b in balanced])) / (plan.tflops * 1e12),
            float(np.mean([b.imbalance for b in balanced])),
        )


def report_base(base: str, plan: BasePlan, mixture: Mixture | None = None) -> None:
    """Print memory, time and balance of full and of LoRA training from `base` on 1, 8 and 64 GPUs.

    Args:
        base: see `sizes_of`.
        mixture: whose rows' `tokens` lengths are drawn from; pairs of clips of `plan.size` when None.

    Raises:
        ConfigError: as `sizes_of` and `estimate`, or a number that is not positive.
    """
    from rich.console import Console
    from rich.table import Table

    from shards.terminal import print_table  # brings rich, not needed to train

    for name in ("batch_size", "samples", "tflops", "steps"):
        if not getattr(plan, name) > 0:
            raise ConfigError(f"plan: {name} must be above 0, got {getattr(plan, name)}")
    sizes = sizes_of(base, plan.size)
    lora = LoraConfig(rank=plan.rank, alpha=float(plan.rank), base=plan.base)
    kinds = {
        "full": list(estimate(sizes, plan, None, mixture)),
        f"LoRA {plan.rank}": list(estimate(sizes, plan, lora, mixture)),
    }
    console = Console()
    half = PUBLISHED // 2
    shape = Shape(WORDS, PUBLISHED, half, half, PUBLISHED, 2)
    weights, adapter = parameter_counts(sizes.config, lora)
    flops = forward_flops(sizes.config, [shape])
    for line in (
        f"weights: {(weights - adapter) / 1e9:.2f} B, an adapter of rank {plan.rank}: {adapter / 1e6:.1f} M",
        f"a forward pass of {PUBLISHED:,} tokens: {flops / 1e12:,.0f} TFLOP",
    ):
        console.print(line, highlight=False)
    table = Table("", *(f"{n} GPU{'s' * (n > 1)}" for n in GPUS), title=f"training from {sizes.name}")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, estimates in kinds.items():
        for row in _rows(kind, estimates, plan):
            table.add_row(*row)
        table.add_section()
    print_table(table)
    for line in _assumptions(sizes, plan, mixture):
        console.print(f"- {line}", highlight=False)


def _rows(kind: str, estimates: Sequence[Estimate], plan: BasePlan) -> Iterator[tuple[str, ...]]:
    """Lines of the table for one kind of training."""
    hours = [
        e.seconds * gpus * plan.samples / plan.batch_size / 3600
        for e, gpus in zip(estimates, GPUS, strict=True)
    ]
    yield (f"{kind}: GiB per GPU", *(f"{e.memory.total / 2**30:.1f}" for e in estimates))
    for part in ("state", "gathered", "activations"):
        yield (f"  of these {part}", *(f"{getattr(e.memory, part) / 2**30:.1f}" for e in estimates))
    yield (f"{kind}: seconds per step", *(f"{e.seconds:,.1f}" for e in estimates))
    yield (f"{kind}: GPU-hours", *(f"{h:,.0f}" for h in hours))
    yield (f"{kind}: waited max over mean", *(f"{e.imbalance:.3f}" for e in estimates))


def _assumptions(sizes: BaseSizes, plan: BasePlan, mixture: Mixture | None) -> Iterator[str]:
    """What the table takes for granted."""
    frames, height, width = sizes.size
    size = f"{height}x{width} and {frames} frames"
    if mixture is None:
        yield f"a sample: source and target of {size}, {2 * sizes.clip:,} tokens"
    else:
        yield f"lengths: drawn from the mixture; {plan.budget.tokens:,} tokens in a micro-batch"
    yield f"{plan.batch_size} samples a step on all GPUs together; GPU-hours: of {plan.samples:,} samples"
    yield f"{plan.tflops:g} TFLOP/s per GPU, what checkpointing ({plan.checkpointing}) repeats included"
    yield from _kept_in(plan)
    yield "latents and prompts from the cache, so that no encoder is on a GPU"
    yield "sending, loading and saving take no time here"


def _kept_in(plan: BasePlan) -> Iterator[str]:
    """In what weights and state are kept, and where."""
    rounded = plan.savings.method == "adamw8bit"
    numbers = "average in fp32, moments in 8 bits" if rounded else "average, moments in fp32"
    yield f"bf16-mixed: weights, {numbers}, shared among all GPUs"
    if plan.base != "float32":
        shared = "" if plan.base == "bfloat16" else ", all of it on every GPU"
        yield f"beside the adapter: the blocks' matrices in {plan.base}{shared}"
    if plan.savings.gather == "bfloat16":
        yield "the blocks' weights are gathered in bf16"
    if plan.savings.reshard:
        yield "the blocks' weights are gathered one block after the other, twice"
    if plan.savings.offload != "none":
        yield f"on the CPU: {OFFLOADED[plan.savings.offload]}"
