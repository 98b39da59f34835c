"""Memory that training takes on a rank, before there is a GPU to try it on: an estimate, from what is kept.

Weights and state are counted; activations are measured on the CPU, on transformers of one and of two blocks.
Fragmentation, the allocator's reserve and encoders on the device come on top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from model.extras.config import ExtrasConfig
from model.net.activation_checkpointing import Checkpointing, prepare_blocks
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.planner.summary import parameter_count
from model.sequence.interleave import SequenceConfig, TextElement, VisionElement, build_sequence
from model.sequence.packing import pack


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank.

    Attributes:
        state: weights, their average, gradients and two moments in fp32, as far as they are this rank's.
        gathered: all weights and gradients in fp32 where they are shared out, and the weights in bf16.
        activations: of a full micro-batch.
    """

    state: float
    gathered: float
    activations: float

    @property
    def total(self) -> float:
        return self.state + self.gathered + self.activations


def memory_of(
    config: DiTConfig,
    ranks: int,
    tokens: int,
    checkpointing: Checkpointing,
    extras: ExtrasConfig | None = None,
) -> Memory:
    """Memory of a rank under bf16-mixed.

    Args:
        config: with `text_dim` and `vision_dim`.
        ranks: that share one copy of the weights (`parallel.sharding`).
        tokens: of a micro-batch on this rank.
    """
    count = parameter_count(config, extras)
    return Memory(
        state=20 * count / ranks,
        gathered=(8 if ranks > 1 else 0) * count + 2 * count,
        activations=tokens * activation_bytes(config, checkpointing, extras),
    )


def activation_bytes(
    config: DiTConfig, checkpointing: Checkpointing, extras: ExtrasConfig | None = None
) -> float:
    """Bytes per token that a backward pass needs.

    Under checkpointing, what a single block keeps while it is computed again comes on top of what all keep.
    """
    block, rest = _kept(config, "none" if checkpointing == "none" else "full", extras)
    again = 0.0
    if checkpointing != "none":
        again = _kept(config, "none", extras)[0]
    if checkpointing == "selective":
        # what `model.net.activation_checkpointing.SAVED_OPS` names, in bf16: queries, keys, values,
        # attention, and four products
        kv = config.width // config.heads * (config.kv_heads or config.heads)
        block += 2 * (4 * config.width + 2 * kv + 2 * config.inner)
    return config.depth * block + rest + again


def _kept(
    config: DiTConfig, checkpointing: Literal["none", "full"], extras: ExtrasConfig | None
) -> tuple[float, float]:
    """Bytes per token of a block, and of all that is not a block.

    Hooks do not see what selective checkpointing keeps.
    """
    frames = (2, 6)
    slopes = []
    for depth in (1, 2):
        # SDPA keeps no scores, as kernels on a GPU
        shallow = replace(config, depth=depth, attention="sdpa")
        tokens, kept = zip(*(saved_bytes(shallow, checkpointing, n, extras) for n in frames), strict=True)
        slopes.append((kept[1] - kept[0]) / (tokens[1] - tokens[0]))
    return slopes[1] - slopes[0], 2 * slopes[0] - slopes[1]


def saved_bytes(
    config: DiTConfig,
    checkpointing: Literal["none", "full"],
    frames: int,
    extras: ExtrasConfig | None = None,
) -> tuple[int, int]:
    """(tokens, bytes) of what a forward pass on the CPU saves for the backward pass."""
    with torch.device("meta"):
        dit = DiT(config, extras)
    dit.to_empty(device="cpu")  # what is kept does not depend on values
    prepare_blocks(dit, checkpointing, compiled=False)
    patch = SequenceConfig(patch=1)
    latents = torch.zeros(frames, 4, 4, config.vision_dim)
    source, target = VisionElement("video1", latents), VisionElement("video2", latents, target=True)
    words = TextElement(torch.zeros(8, config.text_dim))
    batch = pack([build_sequence([source, words, target], patch, 1)])
    storages: dict[int, tuple[int, object]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes(), storage  # alive, so that its place is not used again
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        dit(batch, batch.vision, torch.full((batch.segments,), 0.5))
    return len(batch.gather), sum(size for size, _ in storages.values())
