"""The layers of the transformer: SwiGLU, attention over a pack, modulated blocks, the embedding of timesteps.

LLaMA 3's, with PixArt-alpha's modulation; `model.net.dit` puts them together.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.net.attention import Backend, attention
from model.net.config import DiTConfig
from model.net.ulysses import ulysses_attention
from model.sequence.layout import Layout
from model.sequence.packing import PackedBatch
from model.sequence.rope import rotate

Role = Literal["all", "context", "noisy"]  # which of a batch's tokens are computed


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), as in LLaMA."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class RMSNorm(nn.RMSNorm):
    """torch's, whose weight may be of another dtype than what it normalises: it is cast."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class KVCache:
    """Rotated keys and values of one block, [N, kv_heads, head_dim] each, filled in part by part."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.k = self.v = torch.empty(0)

    def put(self, rows: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the rows of some tokens in place; returns the keys and values of all."""
        if not len(self.k):
            self.k, self.v = (x.new_zeros(self.tokens, *x.shape[1:]) for x in (k, v))
        return self.k.index_copy_(0, rows, k), self.v.index_copy_(0, rows, v)


class PackedAttention(nn.Module):
    """Attention inside each sequence of a pack, shared by ranks where the batch says so.

    Attributes:
        heads, backend, deterministic: see `model.net.attention`.
        cached_context: clean tokens see each other alone, see `DiTConfig.context`.
    """

    def __init__(
        self, heads: int, backend: Backend, deterministic: bool, cached_context: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.backend, self.deterministic = heads, backend, deterministic
        self.cached_context = cached_context

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, role: Role, kv_cache: KVCache | None
    ) -> Tensor:
        """Attention itself, [n, heads, head_dim], of rotated queries and keys; it is never compiled."""
        if role == "context":
            if kv_cache is not None:
                kv_cache.put(batch.context, k, v)
            return self._context(q, k, v, batch)
        if role == "noisy":
            if kv_cache is None:
                raise ValueError("attention: noisy tokens alone need the context's keys and values")
            return self._noisy(q, *kv_cache.put(batch.noisy, k, v), batch)
        if batch.sp_plan is None:
            return self._all(q, k, v, batch)
        start, stop = batch.sp_plan.runs[batch.sp_plan.index]
        padding = len(q) - (stop - start)
        if padding:  # behind this rank's run; nobody asks for what it attends to
            q, k, v = (x.split([stop - start, padding])[0] for x in (q, k, v))
        shared = ulysses_attention(
            *(q, k, v, batch.sp_plan), lambda q, k, v, heads: self._all(q, k, v, batch, heads)
        )
        return torch.cat([shared, shared.new_zeros(padding, *shared.shape[1:])]) if padding else shared

    def _all(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout, heads: slice = slice(None)) -> Tensor:
        """Whole sequences, any heads: `heads` of all."""
        if not self.cached_context:
            return self._attend(q, k, v, layout)
        pick = layout.context
        clean = self._context(q[pick], k[pick], v[pick], layout)
        noisy = self._noisy(q[layout.noisy], k, v, layout)
        return torch.empty_like(q).index_copy(0, pick, clean).index_copy(0, layout.noisy, noisy)

    def _context(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        return self._attend(q, k, v, layout, "context", "context")

    def _noisy(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        return self._attend(q, k, v, layout, "noisy")

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        layout: Layout,
        queries_of: str = "seqlens",
        keys_of: str = "seqlens",
    ) -> Tensor:
        """Attention from tokens of one kind of `Layout.lengths` to those of another."""
        lengths, keys = layout.lengths[queries_of], layout.lengths[keys_of]
        bias = layout.key_bias
        if bias is not None and keys_of != "seqlens":
            bias = bias.index_select(0, getattr(layout, keys_of))
        return attention(
            *(q, k, v, getattr(layout, f"cu_{queries_of}"), max(lengths, default=0), self.backend),
            cu_seqlens_k=getattr(layout, f"cu_{keys_of}"),
            max_seqlen_k=max(keys, default=0),
            lengths=lengths,
            lengths_k=keys,
            deterministic=self.deterministic,
            key_bias=bias,
        )


class Attention(PackedAttention):
    """Self-attention inside each sequence, with rotary positions and normalised queries and keys."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config.heads, config.attention, config.deterministic, config.context == "cached")
        self.kv_heads = config.kv_heads or config.heads
        self.size = config.width // config.heads
        self.q = nn.Linear(config.width, self.heads * self.size, bias=config.qkv_bias)
        self.k = nn.Linear(config.width, self.kv_heads * self.size, bias=config.qkv_bias)
        self.v = nn.Linear(config.width, self.kv_heads * self.size, bias=config.qkv_bias)
        self.out = nn.Linear(self.heads * self.size, config.width, bias=False)
        self.q_norm = RMSNorm(self.size, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.size, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        batch: PackedBatch,
        role: Role = "all",
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        """Attend from the tokens `x`, which are all of the batch's, its context or its noisy ones by `role`.

        Args:
            x: [n, width]; cos, sin: [n, head_dim / 2].
            kv_cache: written to by the context, read from by the noisy tokens.
        """
        v = self.v(x).unflatten(-1, (self.kv_heads, self.size))
        # norm and rotation in the dtype of the residual stream: fp32 under autocast, whatever the weights are
        q = self.q_norm(self.q(x).to(x.dtype).unflatten(-1, (self.heads, self.size)))
        k = self.k_norm(self.k(x).to(x.dtype).unflatten(-1, (self.kv_heads, self.size)))
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        return self.out(self.mix(q, k, v, batch, role, kv_cache).flatten(1))


def modulate(x: Tensor, shift: Tensor, scale: Tensor, segment: Tensor) -> Tensor:
    """x * (1 + scale) + shift with each token's segment's vectors: [N, D] from [segments, D]."""
    return torch.addcmul(shift.index_select(0, segment), x, (1 + scale).index_select(0, segment))


class Block(nn.Module):
    """x + gate * attention(modulated norm), then the same with SwiGLU.

    The modulation is the shared projection of the timestep plus this block's own table (PixArt-alpha's
    adaLN-single); it is held per segment and gathered per token one vector at a time.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config)
        self.norm2 = RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config.width, config.inner)
        self.table = nn.Parameter(torch.zeros(6, config.width)) if config.modulation else None

    def forward(
        self,
        x: Tensor,
        modulation: Tensor | None,
        segment: Tensor,
        cos: Tensor,
        sin: Tensor,
        batch: PackedBatch,
        role: Role = "all",
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        if modulation is None or self.table is None:
            x = x + self.attention(self.norm1(x), cos, sin, batch, role, kv_cache)
            return x + self.mlp(self.norm2(x))
        # six vectors per segment; one of them at a time is spread over the tokens
        vectors = modulation.to(x.dtype) + self.table.to(x.dtype)
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors.unbind(1)
        h = modulate(self.norm1(x), shift1, scale1, segment)
        h = self.attention(h, cos, sin, batch, role, kv_cache)
        x = torch.addcmul(x, gate1.index_select(0, segment), h)
        h = self.mlp(modulate(self.norm2(x), shift2, scale2, segment))
        return torch.addcmul(x, gate2.index_select(0, segment), h)


class TimeEmbedding(nn.Module):
    """Sinusoids of 1000 t through two layers; t in [0, 1]."""

    def __init__(self, width: int, sinusoids: int = 256) -> None:
        super().__init__()
        self.frequencies = sinusoids // 2
        first = nn.Linear(sinusoids, width)
        self.mlp = nn.Sequential(first, nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """[segments] -> [segments, width]; the sinusoids are fp32 whatever the weights are."""
        return self.mlp(sinusoids(t, self.frequencies).to(next(self.mlp.parameters()).dtype))


def sinusoids(t: Tensor, frequencies: int) -> Tensor:
    """Cosines, then sines, of 1000 t at so many frequencies: float32 [segments, 2 frequencies]."""
    exponents = torch.arange(frequencies, device=t.device) / frequencies
    angles = 1000 * t.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)
