"""The diffusion transformer: LLaMA-3-like blocks over packed tokens, modulated by each segment's timestep.

It knows nothing of parallelism, data or losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import Backend, attention
from model.copying import CopyHead
from model.packing import PackedBatch
from model.rope import RopeConfig, rotate, rotation


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer. The paper's: width 2048, heads of 128; see configs/train for ours.

    Attributes:
        text_dim: numbers per text token; vision_dim: numbers per vision token (latent channels x patch x
            patch). 0 in a training configuration takes what the encoders give.
        kv_heads: fewer than `heads` is grouped-query attention; None means as many.
        hidden: inner width of SwiGLU; None is 8/3 of `width`, rounded up to a multiple of 32.
        place_prior: initial bias of queries and keys along time, height and width (needs `qkv_bias`). Above 0
            every head starts by looking at its own place in all elements, which is where an edit finds most
            of what it needs; 0 starts from content alone, as the paper presumably does.
        copy_prior: None is the paper's network. Else a `CopyHead` with these initial biases per axis is added
            to the output, for networks that predict clean data.
        modulation: False leaves timesteps out (plain LLaMA blocks).
        attention: backend, see `model.attention`.
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
    copy_prior: tuple[float, ...] | None = None
    modulation: bool = True
    norm_eps: float = 1e-6
    attention: Backend = "auto"

    def __post_init__(self) -> None:
        if self.place_prior and not self.qkv_bias:
            raise ValueError("dit.place_prior needs dit.qkv_bias")
        if self.width % self.heads:
            raise ValueError(f"dit.width {self.width} does not divide into {self.heads} heads")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"dit.heads {self.heads} is no multiple of kv_heads {self.kv_heads}")
        if sum(self.rope.dims) != self.width // self.heads:
            raise ValueError(
                f"dit.rope.dims {self.rope.dims} add up to {sum(self.rope.dims)}, "
                f"heads have {self.width // self.heads}"
            )

    @property
    def inner(self) -> int:
        """Inner width of SwiGLU."""
        return self.hidden or 32 * math.ceil(self.width * 8 / 3 / 32)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), as in LLaMA."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Attention(nn.Module):
    """Self-attention inside each sequence, with rotary positions and normalised queries and keys."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        self.size = config.width // config.heads
        self.backend = config.attention
        self.q = nn.Linear(config.width, self.heads * self.size, bias=config.qkv_bias)
        self.k = nn.Linear(config.width, self.kv_heads * self.size, bias=config.qkv_bias)
        self.v = nn.Linear(config.width, self.kv_heads * self.size, bias=config.qkv_bias)
        self.out = nn.Linear(self.heads * self.size, config.width, bias=False)
        self.q_norm = nn.RMSNorm(self.size, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.size, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
        v = self.v(x).unflatten(-1, (self.kv_heads, self.size))
        dtype = self.out.weight.dtype  # norm and rotation in fp32, also under autocast
        q = self.q_norm(self.q(x).to(dtype).unflatten(-1, (self.heads, self.size)))
        k = self.k_norm(self.k(x).to(dtype).unflatten(-1, (self.kv_heads, self.size)))
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        return self.out(attention(q, k, v, cu_seqlens, max_seqlen, self.backend).flatten(1))


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
        self.norm1 = nn.RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config)
        self.norm2 = nn.RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config.width, config.inner)
        self.table = nn.Parameter(torch.zeros(6, config.width)) if config.modulation else None

    def forward(
        self,
        x: Tensor,
        modulation: Tensor | None,
        segment: Tensor,
        cos: Tensor,
        sin: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
    ) -> Tensor:
        if modulation is None or self.table is None:
            x = x + self.attention(self.norm1(x), cos, sin, cu_seqlens, max_seqlen)
            return x + self.mlp(self.norm2(x))
        # six vectors per segment; one of them at a time is spread over the tokens
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).unbind(1)
        h = modulate(self.norm1(x), shift1, scale1, segment)
        h = self.attention(h, cos, sin, cu_seqlens, max_seqlen)
        x = torch.addcmul(x, gate1.index_select(0, segment), h)
        h = self.mlp(modulate(self.norm2(x), shift2, scale2, segment))
        return torch.addcmul(x, gate2.index_select(0, segment), h)


class TimeEmbedding(nn.Module):
    """Sinusoids of 1000 t through two layers; t in [0, 1]."""

    frequencies: Tensor

    def __init__(self, width: int, sinusoids: int = 256) -> None:
        super().__init__()
        half = sinusoids // 2
        self.register_buffer(
            "frequencies", torch.exp(-math.log(10_000) * torch.arange(half) / half), persistent=False
        )
        self.mlp = nn.Sequential(nn.Linear(sinusoids, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """[segments] -> [segments, width]."""
        angles = 1000 * t.float()[:, None] * self.frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))


class DiT(nn.Module):
    """Packed tokens in, one prediction per target token out."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.text_in = nn.Linear(config.text_dim, width)
        self.vision_in = nn.Linear(config.vision_dim, width)
        self.bounds = nn.Parameter(torch.empty(2, width))  # start and end of vision
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(width, config.norm_eps)
        self.out = nn.Linear(width, config.vision_dim)
        self.copy = CopyHead(width, config.rope, config.copy_prior) if config.copy_prior else None
        if config.modulation:
            self.time = TimeEmbedding(width)
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
            self.final = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.reset()

    def reset(self) -> None:
        """Initialise: fan-in scaled normals; residual outputs divided by sqrt(2 depth); the output is zero.

        Zero output makes the first loss a known number; the gates start at 1, the other modulations at 0.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                if name.endswith(("attention.out", "mlp.down")):
                    std /= math.sqrt(2 * self.config.depth)
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.config.place_prior:
            half = sum(self.config.rope.dims) // 2
            prior = torch.zeros(2 * half)
            # pair (i, i + half) starts as (prior, 0): its product at distance d is prior^2 cos(frequency d)
            prior[self.config.rope.dims[0] // 2 : half] = self.config.place_prior
            for name, parameter in self.named_parameters():
                if name.endswith(("attention.q.bias", "attention.k.bias")):
                    with torch.no_grad():
                        parameter.copy_(prior.repeat(len(parameter) // (2 * half)))
        if self.copy is not None:
            self.copy.reset()
        nn.init.normal_(self.bounds, std=1.0)
        nn.init.zeros_(self.out.weight)
        if self.config.modulation:
            with torch.no_grad():
                for name, parameter in self.named_parameters():
                    if name.endswith("table"):
                        parameter[[2, 5]] = 1.0
                    elif name in ("modulation.1.weight", "final.1.weight"):
                        parameter.zero_()

    def forward(self, batch: PackedBatch, vision: Tensor, timestep: Tensor) -> tuple[Tensor, ...]:
        """Predict at the target tokens.

        Args:
            batch: layout, text and positions of N tokens.
            vision: float [vision tokens, vision_dim]: clean context, and the targets at their noise level.
            timestep: float [segments]: 1 for clean segments and text, t for targets.

        Returns:
            The prediction, [M, vision_dim] for the M target tokens in the order of `batch.target`, see
            `flow.to_velocity`; with a copy head also what was generated before copying, to be trained too.
        """
        width = self.config.width
        visible = self.vision_in(vision)
        text = self.text_in(batch.text) if len(batch.text) else visible.new_zeros(0, width)
        table = torch.cat([text, visible, self.bounds.to(visible.dtype), visible.new_zeros(1, width)])
        # the residual stream keeps the weights' dtype: fp32 under autocast
        x = table.index_select(0, batch.gather).to(self.bounds.dtype)
        cos, sin = rotation(batch.positions, self.config.rope)
        embedding = modulation = None
        if self.config.modulation:
            embedding = self.time(timestep)
            modulation = self.modulation(embedding).unflatten(1, (6, width))
        for block in self.blocks:
            x = block(x, modulation, batch.segment, cos, sin, batch.cu_seqlens, batch.max_seqlen)
        everything = self.norm(x)
        x = everything.index_select(0, batch.target)
        if embedding is not None:
            shift, scale = self.final(embedding).chunk(2, dim=1)
            x = modulate(x, shift, scale, batch.segment[batch.target])
        generated: Tensor = self.out(x)
        if self.copy is None:
            return (generated,)
        return self.copy(generated, everything, vision, batch, cos, sin), generated
