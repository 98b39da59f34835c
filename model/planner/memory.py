"""Memory that training takes on a rank, before there is a GPU to try it on: an estimate, from what is kept.

Weights and state are counted; activations are those of a step without numbers, see
`model.planner.allocations`. Fragmentation, the allocator's reserve and encoders on the device come on top.
"""

from __future__ import annotations

import functools
from dataclasses import astuple, dataclass, replace
from typing import Any

from model.extras.config import ExtrasConfig
from model.inference.lora import LoraConfig
from model.net.activation_checkpointing import Checkpointing
from model.planner.allocations import Allocations, step_allocations
from model.planner.flops import Sizes

DEEP = 8  # blocks, more than which are not run one by one


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank.

    Attributes:
        state: weights in fp32, and of those that are trained their average, gradients and two moments, as far
            as they are this rank's.
        gathered: all weights, and gradients of those that are trained, in fp32 where they are shared out, and
            the trained weights in bf16.
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
    copies = step.trained // 2 if mixed else 0
    return Memory(
        state=(step.weights + 4 * step.trained) / ranks,
        gathered=(step.weights + step.trained if ranks > 1 else 0) + copies,
        activations=step.peak - step.weights - step.trained - copies,
    )


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
