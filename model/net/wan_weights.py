"""Wan's weights in diffusers' layout and in ours: the same names, four conventions.

Measured against diffusers' `WanTransformer3DModel`; tests/model/test_wan.py shows that each matters:

1. `patch_embedding.weight` [d, C, 1, 2, 2] is a linear layer [d, 4 C] over our patches, which are ordered
   row, column, channel.
2. Wan rotates neighbouring channels of a head, we rotate halves: the rows of `attn1`'s queries and keys, and
   their norms, are sorted evens first within each head. `attn2` is not rotated.
3. and 4. Time and the sign of the velocity are `WanTransformer.forward`'s.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from shards.errors import ConfigError

ROTATED = re.compile(r"blocks\.\d+\.attn1\.(to_q\.(weight|bias)|to_k\.(weight|bias)|norm_[qk]\.weight)$")
PATCH = (1, 2, 2)  # frames, rows, columns of latents per token


def halves(width: int, heads: int) -> Tensor:
    """int64 [width], where each channel of ours is in Wan's order: per head the even ones, then the odd."""
    rows = torch.arange(width).view(heads, -1, 2)
    return rows.transpose(1, 2).reshape(-1)


def from_diffusers(name: str, value: Tensor, heads: int) -> Tensor:
    """A tensor of diffusers' layout in ours.

    Raises:
        ConfigError: a patch embedding of other patches than 1 x 2 x 2.
    """
    if name == "patch_embedding.weight":
        if value.ndim != 5 or tuple(value.shape[2:]) != PATCH:
            raise ConfigError(f"{name}: {list(value.shape)}, not [width, channels, 1, 2, 2]")
        return value.permute(0, 2, 3, 4, 1).reshape(len(value), -1)
    if ROTATED.fullmatch(name):
        return value[halves(len(value), heads).to(value.device)]
    return value


def to_diffusers(name: str, value: Tensor, heads: int) -> Tensor:
    """The inverse of `from_diffusers`, to the bit."""
    if name == "patch_embedding.weight":
        return value.view(len(value), *PATCH, -1).permute(0, 4, 1, 2, 3).contiguous()
    if ROTATED.fullmatch(name):
        return value[halves(len(value), heads).to(value.device).argsort()]
    return value


def diffusers_shape(name: str, shape: torch.Size) -> torch.Size:
    """The shape that diffusers' layout has for a weight of ours."""
    if name != "patch_embedding.weight":
        return shape
    return torch.Size([shape[0], shape[1] // 4, *PATCH])
