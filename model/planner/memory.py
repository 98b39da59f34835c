"""Memory that training takes on a rank, before there is a GPU to try it on: an estimate, from what is kept.

Weights and state are counted; activations are those of a step without numbers, see
`model.planner.allocations`. Fragmentation, the allocator's reserve and encoders on the device come on top.
"""

from __future__ import annotations

import functools
from dataclasses import astuple, dataclass, replace
from typing import Any, Literal

from model.extras.config import ExtrasConfig
from model.inference.lora import LoraConfig
from model.net.activation_checkpointing import Checkpointing
from model.planner.allocations import Allocations, WeightBytes, step_allocations, weight_bytes
from model.planner.flops import Sizes

DEEP = 8  # blocks, more than which are not run one by one


@dataclass(frozen=True)
class Savings:
    """Settings of a training that take less memory; the defaults are its own.

    Attributes:
        gather, reshard, offload: of `ParallelConfig`.
        method: of `OptimConfig`; `muon` has one moment of the blocks' matrices and is planned as `adamw`.
    """

    gather: Literal["float32", "bfloat16"] = "float32"
    reshard: bool = False
    method: Literal["adamw", "adamw8bit"] = "adamw"
    offload: Literal["none", "activations", "optimizer", "all"] = "none"


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank.

    Attributes:
        state: weights as they are kept, and of those that are trained their average and two moments, and
            gradients where they are not gathered; as far as they are this rank's and on its device.
        gathered: what is whole during a step where weights are shared out: weights, gradients of those that
            are trained, and what autocast keeps of these in bf16.
        activations: of a full micro-batch, and what passes while gradients are computed.
    """

    state: float
    gathered: float
    activations: float

    @property
    def total(self) -> float:
        return self.state + self.gathered + self.activations


def memory_of(
    config: Sizes,
    ranks: int,
    tokens: int,
    checkpointing: Checkpointing,
    extras: ExtrasConfig | None = None,
    lora: LoraConfig | None = None,
    mixed: bool = True,
    accumulated: bool = True,
    savings: Savings = Savings(),
) -> Memory:
    """Memory of a rank.

    Args:
        config: with `text_dim` and `vision_dim`.
        ranks: that share one copy of the weights (`parallel.sharding`).
        tokens: of a micro-batch on this rank.
        lora: an adapter is trained; the weights it belongs to have no gradients, moments or average.
        mixed: under bf16-mixed; else 32-true.
        accumulated: a rank has several micro-batches in a step, so that gradients of the ones before are
            there while activations are.
    """
    step = _step(config, tokens, checkpointing, mixed, accumulated, lora, extras)
    weights = weight_bytes(config, lora, extras)
    kept = step.peak - step.weights - step.trained - (step.trained // 2 if mixed else 0)
    if savings.offload in ("activations", "all"):
        # but for the block that is computed; the residual stream is float32 under autocast too
        kept -= (config.depth - 1) * tokens * config.width * 4
    # without `reshard` gradients are shared out when those of a block, whole before, are let go
    numbers = 1 if ranks > 1 and not savings.reshard else 2  # of a trained weight: average, gradient
    state = weights.replicated + (step.weights - weights.replicated + numbers * step.trained) / ranks
    return Memory(
        state=state + _moments(weights, savings) / ranks,
        gathered=_gathered(weights, savings, mixed, ranks > 1),
        activations=kept,
    )


def _moments(weights: WeightBytes, savings: Savings) -> int:
    """Bytes of the moments on all ranks' devices; offloaded, those of the largest block at a time."""
    outside = savings.offload in ("optimizer", "all")
    if savings.method == "adamw8bit":
        return weights.largest_moments8 if outside else weights.moments8
    trained = weights.trained_blocks + weights.trained_others
    return 2 * (max(weights.trained_largest, weights.trained_others) if outside else trained)


def _gathered(weights: WeightBytes, savings: Savings, mixed: bool, shared: bool) -> float:
    """Bytes of `Memory.gathered`."""
    # autocast keeps what it casts of trained float32 weights to the end of a step
    halves = weights.trained_others / 2 if mixed else 0.0
    half = shared and savings.gather == "bfloat16"
    if mixed and not half:
        halves += weights.trained_blocks / 2
    if not shared:
        return halves
    always = halves + weights.others + weights.trained_others
    if savings.reshard:
        # of two blocks: the next one's weights are there too, and gradients of the one before, being summed
        sent = weights.largest_half if half else weights.largest
        return always + 2 * (sent + weights.trained_largest)
    return always + (weights.blocks_half if half else weights.blocks) + weights.trained_blocks


@functools.lru_cache(maxsize=32)
def _step(config: Sizes, *options: Any) -> Allocations:
    """Allocations of a step; of a deep transformer from those of two blocks and of three.

    Every block but the first adds the same (frozen, it computes no gradients of its input): 30 blocks of Wan
    2.1 1.3B come out within 3 millionths of what all of them take.
    """
    _, _, accumulated, *_ = options
    # without gradients from before, the peak of a deep one may be at another moment than a shallow one's
    if config.depth <= DEEP or not accumulated:
        return step_allocations(config, *options)
    two, three = (astuple(step_allocations(replace(config, depth=n), *options)) for n in (2, 3))
    return Allocations(*(a + (config.depth - 2) * (b - a) for a, b in zip(two, three, strict=True)))
