"""Floating point operations of the transformer by formula, from the lengths of its sequences alone.

Matrix products only, two operations per multiply-add, as `torch.utils.flop_counter` counts them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from model.net.config import DiTConfig
from model.net.wan_config import WanConfig
from model.planner.wan_flops import wan_blocks_work, wan_padding_work, wan_work
from model.planner.work import SINUSOIDS, Shape, Work

Sizes = DiTConfig | WanConfig


def blocks_work(config: Sizes, tokens: int, pairs: int) -> Work:
    """All blocks, forward, on `tokens` tokens, whose queries meet `pairs` pairs of a query and a key.

    In Wan's family every token also meets a prompt filled up to its full length.
    """
    if isinstance(config, WanConfig):
        return wan_blocks_work(config, tokens, pairs)
    width, inner = config.width, config.inner
    kv = width // config.heads * (config.kv_heads or config.heads)
    linear = tokens * (2 * width * width + 2 * width * kv + 3 * width * inner)
    return Work(linear=config.depth * linear, attention=config.depth * 2 * pairs * width)


def _rotation(config: DiTConfig, shape: Shape) -> Work:
    """Positions times frequencies: the angles of all tokens."""
    return Work(fixed=shape.total * len(config.rope.dims) * (sum(config.rope.dims) // 2))


def _into(config: DiTConfig, shape: Shape) -> Work:
    """What comes before the blocks: projectors of text and vision, timesteps and their modulation."""
    frozen = shape.text * config.text_dim + shape.vision * config.vision_dim
    if not config.modulation:
        return Work(frozen=frozen * config.width)
    frozen += shape.segments * SINUSOIDS
    return Work(linear=shape.segments * 7 * config.width**2, frozen=frozen * config.width)


def _out(config: DiTConfig, shape: Shape) -> Work:
    """What comes after: the projector of the target's tokens and its modulation."""
    modulation = 2 * shape.segments * config.width**2 if config.modulation else 0
    return Work(linear=shape.target * config.width * config.vision_dim + modulation)


def _copy_keys(config: DiTConfig, shape: Shape, copies: bool) -> Work:
    """Keys of the clean vision tokens, if there is a copy head."""
    clean = shape.vision - shape.target
    return Work(linear=clean * config.width * sum(config.rope.dims)) if copies else Work()


def _copy(config: DiTConfig, shape: Shape, copies: bool) -> Work:
    """Queries and gates of the target's tokens, scores, and their product with the latents copied."""
    if not copies:
        return Work()
    size, pairs = sum(config.rope.dims), shape.target * (shape.vision - shape.target)
    linear = shape.target * config.width * (size + 1) + pairs * size
    return Work(linear=linear, frozen=pairs * config.vision_dim)


def _pass(config: DiTConfig, shape: Shape, copies: bool) -> Work:
    """One forward pass over a whole sequence."""
    clean = shape.total - shape.noisy
    pairs = shape.total**2 if config.context == "full" else clean**2 + shape.noisy * shape.total
    before = _rotation(config, shape) + _into(config, shape)
    after = _copy_keys(config, shape, copies) + _out(config, shape) + _copy(config, shape, copies)
    return before + blocks_work(config, shape.total, pairs) + after


def _pack_work(config: Sizes, shapes: Iterable[Shape], copies: bool) -> Work:
    """One forward pass over packed sequences."""
    if isinstance(config, WanConfig):
        return sum((wan_work(config, shape) for shape in shapes), wan_padding_work(config))
    return sum((_pass(config, shape, copies) for shape in shapes), Work())


def forward_flops(config: Sizes, shapes: Iterable[Shape], copies: bool = False) -> int:
    """Operations of one forward pass over packed sequences.

    Args:
        copies: with a copy head, see `ExtrasConfig.copy_bias`.
    """
    return _pack_work(config, shapes, copies).flops


def backward_flops(config: Sizes, shapes: Iterable[Shape], fused: bool = True, copies: bool = False) -> int:
    """Operations of the backward pass; what activation checkpointing computes again is not counted.

    Args:
        fused: attention kernels that keep no scores compute them again: 2.5 times the forward's products
            instead of 2.
    """
    return _pack_work(config, shapes, copies).backward_flops(fused)


def edit_flops(
    config: Sizes, shapes: Iterable[Shape], steps: int, guidance: bool, copies: bool = False
) -> int:
    """Operations of whole edits with one evaluation per step; encoders and decoder are not counted.

    Under `context: cached` the clean tokens are run once (`DiT.prefill_context`), then the noisy ones at
    every step.

    Args:
        guidance: run every step a second time without the text.
    """
    total = 0
    for shape in shapes:
        if isinstance(config, WanConfig):
            # without the text there is the prompt of the empty text, of one token
            empty = replace(_without_inline(shape), text=1)
            branches = (shape, empty)[: 1 + guidance]
            total += steps * sum(forward_flops(config, [branch]) for branch in branches)
            continue
        for branch in (shape, _without_text(shape))[: 1 + guidance]:
            if config.context == "full":
                total += steps * _pass(config, branch, copies).flops
                continue
            clean = branch.total - branch.noisy
            once = _rotation(config, branch) + _into(config, branch) + _copy_keys(config, branch, copies)
            once += blocks_work(config, clean, clean**2)
            step = _into(config, replace(branch, text=0, vision=branch.target))
            step += _out(config, branch) + _copy(config, branch, copies)
            step += blocks_work(config, branch.noisy, branch.noisy * branch.total)
            total += once.flops + steps * step.flops
    return total


def _without_inline(shape: Shape) -> Shape:
    """Without the text that is among the tokens beside a prompt; media keep their bounds."""
    if not shape.inline:
        return shape
    total = shape.total - shape.inline
    return replace(shape, inline=0, total=total, segments=(total - shape.vision) // 2)


def _without_text(shape: Shape) -> Shape:
    """The unconditional branch: every segment that is left has its two bounds."""
    total = shape.total - shape.text
    return replace(shape, text=0, total=total, segments=(total - shape.vision) // 2)
