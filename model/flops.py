"""Floating point operations of the transformer by formula, from the lengths of its sequences alone.

Matrix products only, two operations per multiply-add, as `torch.utils.flop_counter` counts them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from model.dit import DiT, DiTConfig
from model.sequence import Sequence


@dataclass(frozen=True)
class Shape:
    """What a sequence's work depends on, in tokens.

    Attributes:
        text, vision: text tokens, and vision tokens of all elements.
        noisy: tokens of the target's segment, start and end of vision included; target: its vision tokens.
        total: all tokens; segments: texts and vision elements.
    """

    text: int
    vision: int
    noisy: int
    target: int
    total: int
    segments: int


def shape_of(sequence: Sequence) -> Shape:
    """The shape of a sequence."""
    target = sequence.target
    noisy = target.stop - target.start
    return Shape(
        text=len(sequence.text),
        vision=len(sequence.vision),
        noisy=noisy,
        target=noisy - 2,
        total=len(sequence),
        segments=len(sequence.segments),
    )


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one pass: of layers whose input needs a gradient, of those whose does not, of attention.

    `frozen` are the layers that see data: their backward pass has a gradient of the weights alone.
    """

    linear: int = 0
    frozen: int = 0
    attention: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.linear + other.linear, self.frozen + other.frozen, self.attention + other.attention)

    @property
    def flops(self) -> int:
        """Operations of the pass itself."""
        return 2 * (self.linear + self.frozen + self.attention)


def _blocks(config: DiTConfig, tokens: int, pairs: int) -> Work:
    """All blocks on `tokens` tokens, whose queries meet `pairs` pairs of a query and a key."""
    width, inner = config.width, config.inner
    kv = width // config.heads * (config.kv_heads or config.heads)
    linear = tokens * (2 * width * width + 2 * width * kv + 3 * width * inner)
    return Work(linear=config.depth * linear, attention=config.depth * 2 * pairs * width)


def _around(config: DiTConfig, shape: Shape) -> Work:
    """Everything but the blocks: projectors, timesteps, output; once per forward call of a batch."""
    width, segments = config.width, shape.segments
    frozen = shape.text * config.text_dim * width + shape.vision * config.vision_dim * width
    linear = shape.target * width * config.vision_dim
    if config.modulation:
        frozen += segments * 256 * width
        linear += segments * width * width * (1 + 6 + 2)
    return Work(linear=linear, frozen=frozen)


def _copying(config: DiTConfig, shape: Shape, keys: bool = True) -> Work:
    """The copy head: queries and gates of the target, keys of the clean vision tokens, both products."""
    if config.copy_prior is None:
        return Work()
    size, clean = sum(config.rope.dims), shape.vision - shape.target
    linear = shape.target * config.width * (size + 1) + keys * clean * config.width * size
    # the values copied are data: no gradient flows into them, so half of this product's backward is not run
    return Work(linear=linear + shape.target * clean * size, frozen=shape.target * clean * config.vision_dim)


def _pairs(config: DiTConfig, shape: Shape) -> int:
    """Pairs of a query and a key that it sees."""
    if config.context == "full":
        return shape.total**2
    clean = shape.total - shape.noisy
    return clean**2 + shape.noisy * shape.total


def _pass(config: DiTConfig, shapes: Iterable[Shape]) -> Work:
    total = Work()
    for shape in shapes:
        blocks = _blocks(config, shape.total, _pairs(config, shape))
        total += blocks + _around(config, shape) + _copying(config, shape)
    return total


def forward_flops(config: DiTConfig, shapes: Iterable[Shape]) -> int:
    """Operations of one forward pass over packed sequences."""
    return _pass(config, shapes).flops


def backward_flops(config: DiTConfig, shapes: Iterable[Shape], fused: bool = True) -> int:
    """Operations of the backward pass, without recomputation of activations.

    Args:
        fused: attention kernels that keep no scores compute them again: 2.5 times the forward's products
            instead of 2.
    """
    work = _pass(config, shapes)
    attention = work.attention * (5 if fused else 4)
    return 2 * (2 * work.linear + work.frozen) + attention


def edit_flops(config: DiTConfig, shapes: Iterable[Shape], steps: int, guidance: bool) -> int:
    """Operations of whole edits with one evaluation per step, encoders and decoder not counted.

    Under `context: causal` the clean tokens are run once (`DiT.remember`).

    Args:
        guidance: run every step a second time without the text.
    """
    total = 0
    for shape in shapes:
        for drop in (False, True)[: 1 + guidance]:
            # a text is one or more segments; how many hardly matters
            branch = (
                Shape(0, shape.vision, shape.noisy, shape.target, shape.total - shape.text, shape.segments)
                if drop
                else shape
            )
            around, copying = _around(config, branch), _copying(config, branch, config.context == "full")
            if config.context == "full":
                step = _blocks(config, branch.total, branch.total**2) + around + copying
                total += steps * step.flops
                continue
            clean = branch.total - branch.noisy
            once = _blocks(config, clean, clean**2) + around
            step = _blocks(config, branch.noisy, branch.noisy * branch.total) + around + copying
            total += once.flops + steps * step.flops
    return total


def parameter_count(config: DiTConfig) -> int:
    """Weights of a transformer, counted on the meta device."""
    with torch.device("meta"):
        return sum(p.numel() for p in DiT(config).parameters())
