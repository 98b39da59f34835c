"""Sizes of the transformer.

Apart from the network itself, so that plans and reports need no layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from model.net.attention import Backend
from model.sequence.rope import AXES, RopeConfig
from shards.errors import SettingError
from shards.limits import MAX_DEPTH, MAX_HEADS, MAX_WIDTH, in_range


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer. The paper's: width 2048, heads of 128; see configs/train for ours.

    Attributes:
        text_dim: numbers per text token; vision_dim: numbers per vision token (latent channels x patch x
            patch). 0 in a training configuration takes what the encoders give.
        kv_heads: fewer than `heads` is grouped-query attention; None means as many.
        hidden: inner width of SwiGLU; None is 8/3 of `width`, rounded up to a multiple of 32.
        place_prior: initial bias of queries and keys along time, height and width (needs `qkv_bias`). Above 0
            heads start by looking at their own place in all elements, which is where an edit finds most of
            what it needs; 0 starts from content alone, as the paper presumably does. place_heads: how many of
            the heads start so, the first ones; None is all, which leaves none to look at the words from afar.
        copy_prior: None is the paper's network. Else a `CopyHead` with these initial biases per axis is added
            to the output, for networks that predict clean data.
        modulation: False leaves timesteps out (plain LLaMA blocks).
        context: what the clean tokens see. `full`: the noisy target too, as in the paper. `causal`: only each
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
    place_prior: float = 0.0
    place_heads: int | None = None
    copy_prior: tuple[float, ...] | None = None
    modulation: bool = True
    norm_eps: float = 1e-6
    context: Literal["full", "causal"] = "full"
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
            ("place_prior", -1000, 1000),
            ("norm_eps", 0, 1),
        ):
            if getattr(self, name) is not None:
                in_range(f"dit.{name}", getattr(self, name), least, most)
        if len(self.rope.dims) != len(AXES):
            raise SettingError(f"dit.rope.dims: one number each for {', '.join(AXES)}, got {self.rope.dims}")
        for prior in self.copy_prior or ():
            in_range("dit.copy_prior", prior, -1000, 1000)
        if self.copy_prior is not None and len(self.copy_prior) != len(AXES):
            raise SettingError(f"dit.copy_prior: one number per axis of rope.dims, got {self.copy_prior}")
        if self.place_prior and not self.qkv_bias:
            raise SettingError("dit.place_prior needs dit.qkv_bias")
        shared = self.heads // (self.kv_heads or self.heads)  # queries per key
        if self.place_heads is not None and not (
            0 < self.place_heads <= self.heads and self.place_heads % shared == 0
        ):
            raise SettingError(
                f"dit.place_heads {self.place_heads}: from 1 to {self.heads} heads, by {shared}"
            )
        if self.width % self.heads:
            raise SettingError(f"dit.width {self.width} does not divide into {self.heads} heads")
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
