"""Rotary position embedding over four axes: sequence, time, height, width.

Paper section 3.2; NTK-aware scaling per axis after Peng et al. 2023 (YaRN, section 3.1).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shards.errors import SettingError
from shards.limits import MAX_WIDTH, in_range

AXES = ("sequence", "time", "height", "width")


@dataclass(frozen=True)
class RopeConfig:
    """How a head's channels are shared out between the axes.

    Attributes:
        dims: channels per axis, each even; they add up to the head size. The paper's heads of 128 have
            12, 4, 56, 56; () is as many in proportion, see `paper_dims`.
        theta: base of the geometric series of frequencies.
        ntk: factor per axis by which positions may exceed those seen in training. 1 leaves the axis as it is;
            s multiplies the base by s ** (d / (d - 2)), so that the lowest frequency is slowed by s and the
            highest stays.
        source: the first axis, which then has no channels of its own, turns all channels of a head by
            theta ** (-2 i / head size) per position, on top of the other axes: how Bernini tells sources
            apart (its `use_src_id_rotary_emb`).
    """

    dims: tuple[int, ...] = ()
    theta: float = 10_000.0
    ntk: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    source: bool = False

    def __post_init__(self) -> None:
        if self.dims and len(self.dims) != len(self.ntk):
            raise SettingError(f"rope: {len(self.dims)} axes in dims but {len(self.ntk)} in ntk")
        in_range("rope.theta", self.theta, 1, 1e12)
        for dim in self.dims:
            in_range("rope.dims", dim, 0, MAX_WIDTH)
        for factor in self.ntk:
            in_range("rope.ntk", factor, 1, 1e6)
        if any(dim % 2 for dim in self.dims):
            raise SettingError(f"rope.dims: every axis needs an even number of channels, got {self.dims}")
        if self.source and self.dims and self.dims[0]:
            raise SettingError(f"rope.source needs a first axis without channels, got rope.dims {self.dims}")


def paper_dims(head_dim: int) -> tuple[int, int, int, int]:
    """The paper's 12/4/56/56 scaled to another head size: even numbers that add up, at least 2 for time.

    Raises SettingError when `head_dim` is not a multiple of 8 or is below 16.
    """
    if head_dim % 8 or head_dim < 16:
        raise SettingError(
            f"head size {head_dim}: needs a multiple of 8, at least 16, or rope.dims of its own"
        )
    space = 2 * (head_dim * 56 // 256)
    time = max(2, 2 * (head_dim * 4 // 256))
    return head_dim - 2 * space - time, time, space, space


def inverse_frequencies(config: RopeConfig) -> list[Tensor]:
    """Per axis the angular frequencies in radians per position, float64 [dims[axis] / 2]."""
    frequencies = []
    for dim, factor in zip(config.dims, config.ntk, strict=True):
        # an axis with one frequency (2 channels) has only the highest, which NTK scaling leaves alone
        base = config.theta * factor ** (dim / (dim - 2)) if dim > 2 else config.theta
        exponent = torch.arange(0, dim, 2, dtype=torch.float64) / max(dim, 1)
        frequencies.append(base**-exponent)
    return frequencies


@functools.lru_cache(maxsize=64)
def _frequency_table(config: RopeConfig, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        table = torch.block_diag(*inverse_frequencies(config))
        if config.source:
            table[0] = config.theta ** -(torch.arange(table.shape[1], dtype=torch.float64) / table.shape[1])
        return table.to(device)


def frequency_table(config: RopeConfig, device: torch.device) -> Tensor:
    """float64 [axes, head_dim / 2]: row `axis` holds that axis's frequencies at its channels, 0 elsewhere.

    Under `RopeConfig.source` the first row is dense.

    This is all that is kept: it depends on the configuration alone, so nothing grows with a sequence's length
    and a compiled graph has no table to outgrow. It is no buffer of a module, since `.to(bfloat16)` would
    round the frequencies.
    """
    return _frequency_table(config, device)


def mark_constants() -> None:
    """Tell the compiler that the table is constant, else it looks through the cache; call it first.

    A decorator would load the compiler, seconds of work, in every process.
    """
    torch.compiler.assume_constant_result(frequency_table)


def rotation(positions: Tensor, config: RopeConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every token's angles.

    Args:
        positions: [N, axes], any real dtype.

    Returns:
        (cos, sin), float32 [N, head_dim / 2]; axis after axis in the order of `config.dims`.
    """
    if positions.shape[-1] != len(config.dims):
        raise ValueError(f"positions have {positions.shape[-1]} axes, rope has {len(config.dims)}")
    angles = positions.double() @ frequency_table(config, positions.device)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys by their positions.

    Channel i is paired with channel i + head_dim / 2, as in LLaMA, so that one axis over the whole head is
    exactly LLaMA's embedding.

    Args:
        x: [N, heads, head_dim].
        cos, sin: [N, head_dim / 2].

    Returns:
        [N, heads, head_dim] in the dtype of `x`.
    """
    if not torch.is_grad_enabled():  # a function of its own costs as much as the turn of a short sequence
        return _turned(x, cos, sin)
    turned: Tensor = _Turn.apply(x, cos, sin)
    return turned


class _Turn(torch.autograd.Function):
    """The gradient of a turn is the turn back: nothing but the angles is kept for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradients[0], cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See `rotate`; in float32."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    halves = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    return torch.cat(halves, dim=-1).to(x.dtype)
