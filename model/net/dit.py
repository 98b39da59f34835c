"""The diffusion transformer: LLaMA-3-like blocks over packed tokens, modulated by each segment's timestep.

It knows nothing of parallelism, data or losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.extras.config import ExtrasConfig
from model.extras.copy_head import CopyHead
from model.net.blocks import Block, KVCache, TimeEmbedding, modulate
from model.net.config import DiTConfig, check_extras
from model.net.transformer import Transformer
from model.sequence.packing import PackedBatch
from model.sequence.rope import rotation


@dataclass(frozen=True)
class ContextCache:
    """What the clean tokens of a batch leave behind under `context: cached`; made by `DiT.prefill_context`.

    Attributes:
        blocks: keys and values, block by block.
        keys: of the copy head, if there is one.
        cos, sin: rotation of all N tokens; noisy_rope: that of the noisy ones.
        segment: of the noisy tokens; noisy_rows: their places in the table of `DiT._embed_noisy`.
        target: places of the target's vision tokens among them.
    """

    blocks: list[KVCache]
    keys: tuple[Tensor, Tensor] | None
    cos: Tensor
    sin: Tensor
    noisy_rope: tuple[Tensor, Tensor]
    segment: Tensor
    noisy_rows: Tensor
    target: Tensor


class DiT(Transformer):
    """Packed tokens in, one prediction per target token out."""

    def __init__(self, config: DiTConfig, extras: ExtrasConfig | None = None) -> None:
        super().__init__()
        self.config, self.extras = config, extras or ExtrasConfig()
        check_extras(self.extras, config)
        width = config.width
        self.text_in = nn.Linear(config.text_dim, width)
        self.vision_in = nn.Linear(config.vision_dim, width)
        self.bounds = nn.Parameter(torch.empty(2, width))  # start and end of vision
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(width, config.norm_eps)
        self.out = nn.Linear(width, config.vision_dim)
        bias = self.extras.copy_bias
        self.copy = CopyHead(width, config.rope, bias) if bias else None
        if config.modulation:
            self.time = TimeEmbedding(width)
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
            self.final = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        if self.device.type != "meta":  # weights come later, and drawing them there imports the compiler
            self.init_weights()

    def init_weights(self) -> None:
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
        if self.extras.position_bias:
            half = sum(self.config.rope.dims) // 2
            prior = torch.zeros(2 * half)
            # pair (i, i + half) starts as (prior, 0): its product at distance d is prior^2 cos(frequency d)
            prior[self.config.rope.dims[0] // 2 : half] = self.extras.position_bias
            share = (self.extras.position_bias_heads or self.config.heads) / self.config.heads
            for name, parameter in self.named_parameters():
                if name.endswith(("attention.q.bias", "attention.k.bias")):
                    heads = parameter.detach().view(-1, 2 * half)
                    heads[: round(share * len(heads))] = prior
        if self.copy is not None:
            self.copy.init_weights()
        nn.init.normal_(self.bounds, std=1.0)
        nn.init.zeros_(self.out.weight)
        if self.config.modulation:
            with torch.no_grad():
                for name, parameter in self.named_parameters():
                    if name.endswith("table"):
                        parameter[[2, 5]] = 1.0
                    elif name in ("modulation.1.weight", "final.1.weight"):
                        parameter.zero_()

    def forward(
        self, batch: PackedBatch, vision: Tensor, timestep: Tensor, context: ContextCache | None = None
    ) -> tuple[Tensor, ...]:
        """Predict at the target tokens.

        Args:
            batch: layout, text and positions of N tokens.
            vision: float [vision tokens, vision_dim]: clean context, and the targets at their noise level.
            timestep: float [segments]: 1 for clean segments and text, t for targets.
            context: of `prefill_context` on the same batch; then only the noisy tokens are computed. The
                result is the same.

        Returns:
            The prediction, [M, vision_dim] for the M target tokens in the order of `batch.target`, see
            `flow_matching.to_velocity`; with a copy head also what was generated before copying, to be
            trained too.
        """
        embedding, modulation = self._modulation(timestep)
        if context is None:
            x = self._embed(batch, vision)
            cos, sin = rotation(batch.positions, self.config.rope)
            for block in self.blocks:
                x = block(x, modulation, batch.segment, cos, sin, batch)
            hidden = self.norm(x)
            keys = self.copy.keys(hidden, batch, cos, sin) if self.copy else None
            x = hidden.index_select(0, batch.target)
        else:
            cos, sin, keys = context.cos, context.sin, context.keys
            x = self._embed_noisy(batch, vision, context.noisy_rows)
            for block, kv_cache in zip(self.blocks, context.blocks, strict=True):
                x = block(x, modulation, context.segment, *context.noisy_rope, batch, "noisy", kv_cache)
            x = self.norm(x.index_select(0, context.target))
        clean = x
        if embedding is not None:
            shift, scale = self.final(embedding).chunk(2, dim=1)
            x = modulate(x, shift, scale, batch.segment[batch.target])
        generated: Tensor = self.out(x)
        if self.copy is None or keys is None:
            return (generated,)
        return self.copy(generated, clean, keys, batch, cos, sin), generated

    @property
    def caches_context(self) -> bool:
        """Under `context: cached`."""
        return bool(self.config.context == "cached")

    @torch.no_grad()
    def prefill_context(self, batch: PackedBatch) -> ContextCache:
        """Run the clean tokens once; `forward` with the result runs the noisy ones alone at every step.

        Raises:
            ValueError: under `context: full`, where clean tokens change with the noisy ones.
        """
        if self.config.context != "cached":
            raise ValueError(
                f"dit.context is {self.config.context!r}: only under 'cached' can the context be kept"
            )
        cos, sin = rotation(batch.positions, self.config.rope)
        rows = batch.context
        context_rope = cos[rows], sin[rows]
        x = self._embed(batch, batch.vision)[rows]
        _, modulation = self._modulation(torch.ones(batch.segments, device=x.device))
        caches = [KVCache(len(batch.gather)) for _ in self.blocks]
        for block, kv_cache in zip(self.blocks, caches, strict=True):
            x = block(x, modulation, batch.segment[rows], *context_rope, batch, "context", kv_cache)
        keys = None
        if self.copy is not None:
            hidden = x.new_zeros(len(batch.gather), self.config.width)
            keys = self.copy.keys(hidden.index_copy(0, rows, self.norm(x)), batch, cos, sin)
        noisy, visions, targets = batch.noisy, len(batch.vision), len(batch.target)
        gather = batch.gather[noisy] - len(batch.text)
        vision_places = torch.searchsorted(batch.target_vision, gather)
        return ContextCache(
            blocks=caches,
            keys=keys,
            cos=cos,
            sin=sin,
            noisy_rope=(cos[noisy], sin[noisy]),
            segment=batch.segment[noisy],
            noisy_rows=torch.where(gather < visions, vision_places, gather - visions + targets),
            target=torch.searchsorted(noisy, batch.target),
        )

    def step_input(self, x: Tensor, t: float) -> Tensor:
        """See `Transformer.step_input`."""
        block: Any = self.blocks[0]
        h: Tensor = block.norm1(self.vision_in(x.to(self.bounds.dtype)))
        _, modulation = self._modulation(torch.full((1,), t, device=x.device))
        if modulation is None or block.table is None:
            return h
        shift, scale = (modulation.to(h.dtype) + block.table.to(h.dtype))[:, :2].unbind(1)
        return torch.addcmul(shift, h, 1 + scale)

    def _embed(self, batch: PackedBatch, vision: Tensor) -> Tensor:
        """[N, width]: text and vision through their projectors, the learned bounds, zeros for padding."""
        kind, width = self.bounds.dtype, self.config.width
        # also without rows, so that every weight has a gradient whatever is in the pack
        visible = self.vision_in(
            (vision if len(vision) else vision.new_zeros(0, self.config.vision_dim)).to(kind)
        )
        words = batch.text if len(batch.text) else vision.new_zeros(0, self.config.text_dim)
        text = self.text_in(words.to(kind))
        table = torch.cat([text, visible, self.bounds.to(visible.dtype), visible.new_zeros(1, width)])
        # the residual stream keeps the weights' dtype: fp32 under autocast
        return table.index_select(0, batch.gather).to(kind)

    def _embed_noisy(self, batch: PackedBatch, vision: Tensor, noisy_rows: Tensor) -> Tensor:
        """[Q, width]: the rows of `_embed` that belong to the noisy tokens."""
        visible = self.vision_in(vision.index_select(0, batch.target_vision).to(self.bounds.dtype))
        table = torch.cat([visible, self.bounds.to(visible.dtype)])
        return table.index_select(0, noisy_rows).to(self.bounds.dtype)

    def _modulation(self, timestep: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Embedding of the timesteps [segments, width] and its projection [segments, 6, width], if any."""
        if not self.config.modulation:
            return None, None
        embedding = self.time(timestep)
        return embedding, self.modulation(embedding).unflatten(1, (6, self.config.width))
