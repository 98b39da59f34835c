"""Sizes of the transformer.

Apart from the network itself, so that plans and reports need no layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from model.extras.config import ExtrasConfig
from model.net.attention import Backend
from model.sequence.rope import AXES, RopeConfig, paper_dims
from shards.errors import SettingError
from shards.limits import MAX_DEPTH, MAX_HEADS, MAX_WIDTH, in_range


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer. The paper's: width 2048, heads of 128; see configs/model for ours.

    Attributes:
        text_dim: numbers per text token; vision_dim: numbers per vision token (latent channels x patch x
            patch). 0 in a training configuration takes what the encoders give.
        kv_heads: fewer than `heads` is grouped-query attention; None means as many.
        hidden: inner width of SwiGLU; None is 8/3 of `width`, rounded up to a multiple of 32.
        modulation: False leaves timesteps out (plain LLaMA blocks).
        context: what the clean tokens see. `full`: the noisy target too, as in the paper. `cached`: only each
            other, so that their keys and values are the same at every step and `DiT.prefill_context` computes
            them once per edit. The weights are the same; train as you will infer.
        attention: backend; deterministic: see `model.net.attention`.
    """

    text_dim: int = 0
    vision_dim: int = 0
    width: int = 256
    depth: int = 4
    heads: int = 2
    kv_heads: int | None = None
    hidden: int | None = None
    rope: RopeConfig = field(default_factory=RopeConfig)
    qk_norm: bool = True
    qkv_bias: bool = False
    modulation: bool = True
    norm_eps: float = 1e-6
    context: Literal["full", "cached"] = "full"
    attention: Backend = "auto"
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (
            ("text_dim", 0, MAX_WIDTH),
            ("vision_dim", 0, MAX_WIDTH),
            ("width", 1, MAX_WIDTH),
            ("depth", 1, MAX_DEPTH),
            ("heads", 1, MAX_HEADS),
            ("kv_heads", 1, MAX_HEADS),
            ("hidden", 1, 8 * MAX_WIDTH),
            ("norm_eps", 0, 1),
        ):
            if getattr(self, name) is not None:
                in_range(f"dit.{name}", getattr(self, name), least, most)
        if self.width % self.heads:
            raise SettingError(f"dit.width {self.width} does not divide into {self.heads} heads")
        if not self.rope.dims:
            dims = paper_dims(self.width // self.heads)
            object.__setattr__(self, "rope", replace(self.rope, dims=dims))
        if len(self.rope.dims) != len(AXES):
            raise SettingError(f"dit.rope.dims: one number each for {', '.join(AXES)}, got {self.rope.dims}")
        if self.heads % (self.kv_heads or self.heads):
            raise SettingError(f"dit.heads {self.heads} is no multiple of kv_heads {self.kv_heads}")
        if sum(self.rope.dims) != self.width // self.heads:
            raise SettingError(
                f"dit.rope.dims {self.rope.dims} add up to {sum(self.rope.dims)}, "
                f"heads have {self.width // self.heads}"
            )

    @property
    def inner(self) -> int:
        """Inner width of SwiGLU."""
        return self.hidden or 32 * math.ceil(self.width * 8 / 3 / 32)


def check_extras(extras: ExtrasConfig, config: DiTConfig) -> None:
    """Raise SettingError for extras that this transformer cannot have."""
    if extras.position_bias and not config.qkv_bias:
        raise SettingError("extras.position_bias needs dit.qkv_bias")
    heads, shared = extras.position_bias_heads, config.heads // (config.kv_heads or config.heads)
    if heads is not None and not (0 < heads <= config.heads and heads % shared == 0):
        raise SettingError(
            f"extras.position_bias_heads {heads}: from 1 to {config.heads} heads, by {shared} per key"
        )
