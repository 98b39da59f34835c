"""Wan's transformer over packed tokens: what open weights of this class are (Wan 2.1 and 2.2, Bernini-R).

Modules and weights have the names of diffusers' `WanTransformer3DModel`; what differs are conventions, and
`model.net.wan_weights` translates them: the patch embedding is a linear layer over our patches, a head's
halves are rotated instead of neighbouring channels, time runs from noise (0) to data (1), and the velocity
is that of our time, minus theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.net.blocks import PackedAttention, RMSNorm, modulate, sinusoids
from model.net.cross_attention import Prompts, text_attention, written_out
from model.net.transformer import Transformer
from model.net.wan_config import WanConfig
from model.sequence.layout import Layout
from model.sequence.packing import PackedBatch
from model.sequence.rope import rotate, rotation

SINUSOIDS = 256


class WanAttention(PackedAttention):
    """Projections with biases, queries and keys normalised over the whole width, all heads together.

    With `words` its `word_gate` [heads] is that of the attention to words, see `WanConfig.words`.
    """

    def __init__(self, config: WanConfig, words: bool = False) -> None:
        super().__init__(config.heads, config.attention, config.deterministic)
        width = config.width
        self.size = width // config.heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])  # a list, as in diffusers, for the name
        self.norm_q, self.norm_k = (RMSNorm(width, config.norm_eps) for _ in range(2))
        self.word_gate = nn.Parameter(torch.zeros(config.heads)) if words else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, batch: PackedBatch) -> Tensor:
        """Attend inside each sequence: [N, width] -> [N, width]; cos, sin: [N, head_dim / 2]."""
        q, k, v = self.projected(x, x)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        return self.to_out[0](self.mix(q, k, v, batch, "all", None).flatten(1))

    def _all(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout, heads: slice = slice(None)) -> Tensor:
        if self.word_gate is None:
            return super()._all(q, k, v, layout, heads)
        visible = self._among("visible", q, k, v, layout)
        words = self._among("words", q, k, v, layout)
        return torch.addcmul(visible, words, self.word_gate[heads, None].tanh().to(words.dtype))

    def _among(self, kind: str, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        """Attention from all tokens to those of a kind."""
        rows = getattr(layout, kind)
        keys, values = k.index_select(0, rows), v.index_select(0, rows)
        return self._attend(q, keys, values, layout, keys_of=kind)

    def to_text(self, x: Tensor, prompts: Prompts) -> Tensor:
        """Attend to each sequence's prompt: [N, width] -> [N, width]."""
        q, k, v = self.projected(x, prompts.states)
        q, k = q.to(v.dtype), k.to(v.dtype)
        return self.to_out[0](self.mix_text(q, k, v, prompts).flatten(1))

    def mix_text(self, q: Tensor, k: Tensor, v: Tensor, prompts: Prompts) -> Tensor:
        """Attention to prompts itself, [n, heads, head_dim]; it is never compiled."""
        return text_attention(q, k, v, prompts, self.backend, self.deterministic)

    def projected(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of `x` and keys and values of `y`, [n, heads, head_dim]; norms in the dtype of `x`."""
        q, k = self.norm_q(self.to_q(x).to(x.dtype)), self.norm_k(self.to_k(y).to(x.dtype))
        heads = (self.heads, self.size)
        return q.unflatten(1, heads), k.unflatten(1, heads), self.to_v(y).unflatten(1, heads)


class FeedForward(nn.Module):
    """Linear, GELU (tanh), linear; `net.0.proj` and `net.2` as in diffusers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        first = nn.ModuleDict({"proj": nn.Linear(width, hidden)})
        self.net = nn.ModuleList([first, nn.GELU(approximate="tanh"), nn.Linear(hidden, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[1](self.net[0].get_submodule("proj")(x)))


class TwoLinear(nn.Module):
    """`linear_1`, an activation, `linear_2`."""

    def __init__(self, inputs: int, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, width), nn.Linear(width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.activation(self.linear_1(x)))


class ConditionEmbedder(nn.Module):
    """Time steps and prompts at the network's width."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.time_embedder = TwoLinear(SINUSOIDS, config.width, nn.SiLU())
        self.time_proj = nn.Linear(config.width, 6 * config.width)
        self.text_embedder = TwoLinear(config.text_dim, config.width, nn.GELU(approximate="tanh"))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """[segments] -> embedding [segments, width] and modulation [segments, 6, width]; theirs is 1 - t."""
        dtype = self.time_proj.weight.dtype
        embedding = self.time_embedder(sinusoids(1 - t.float(), SINUSOIDS // 2).to(dtype))
        return embedding, self.time_proj(F.silu(embedding)).unflatten(1, (6, -1))


class WanBlock(nn.Module):
    """Modulated self-attention, attention to the prompt, modulated feed-forward; norms and gates in fp32."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attn1, self.attn2 = WanAttention(config, config.words), WanAttention(config)
        self.norm2 = nn.LayerNorm(config.width, config.norm_eps)
        self.ffn = FeedForward(config.width, config.hidden)
        self.scale_shift_table = nn.Parameter(torch.empty(1, 6, config.width))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        segment: Tensor,
        cos: Tensor,
        sin: Tensor,
        batch: PackedBatch,
        prompts: Prompts,
    ) -> Tensor:
        """[N, width] -> [N, width]; modulation: [segments, 6, width], segment: int64 [N]."""
        kind = x.dtype
        # six vectors per segment; one of them at a time is spread over the tokens
        vectors = (self.scale_shift_table.float() + modulation.float()).unbind(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors
        h = modulate(layer_norm(x, self.eps), shift1, scale1, segment).to(kind)
        x = gated(x, gate1, segment, self.attn1(h, cos, sin, batch))
        h = F.layer_norm(
            *(x.float(), x.shape[-1:], self.norm2.weight.float(), self.norm2.bias.float(), self.eps)
        )
        x = x + self.attn2.to_text(h.to(kind), prompts).to(kind)
        h = modulate(layer_norm(x, self.eps), shift2, scale2, segment).to(kind)
        return gated(x, gate2, segment, self.ffn(h))


def layer_norm(x: Tensor, eps: float) -> Tensor:
    """LayerNorm without weights over the last axis, in float32."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps)


def gated(x: Tensor, gate: Tensor, segment: Tensor, h: Tensor) -> Tensor:
    """x + gate * h with each token's segment's gate: [N, width]; summed in float32, in the dtype of `x`."""
    return torch.addcmul(x.float(), gate.index_select(0, segment), h.float()).to(x.dtype)


class WanTransformer(Transformer):
    """Packed tokens in, one prediction per target token out, as `model.net.dit.DiT`; prompts come apart."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Linear(config.vision_dim, config.width)
        self.condition_embedder = ConditionEmbedder(config)
        self.blocks = nn.ModuleList(WanBlock(config) for _ in range(config.depth))
        self.proj_out = nn.Linear(config.width, config.vision_dim)
        self.scale_shift_table = nn.Parameter(torch.empty(1, 2, config.width))
        self.text_in = nn.Linear(config.text_dim, config.width) if config.words else None
        # start and end of vision
        self.bounds = nn.Parameter(torch.empty(2, config.width)) if config.words else None
        if self.device.type != "meta":  # weights come later, and drawing them there imports the compiler
            self.init_weights()

    def init_weights(self) -> None:
        """Initialise as Wan's own code: Xavier's uniform, normals of 0.02 for embeddings, a zero output."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if name.startswith(("condition_embedder.time_embedder", "condition_embedder.text_embedder")):
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith("scale_shift_table"):
                nn.init.normal_(parameter, std=self.config.width**-0.5)
        nn.init.zeros_(self.proj_out.weight)
        self.init_words()

    def init_words(self) -> None:
        """Initialise what `WanConfig.words` adds: as other embeddings, with gates at zero."""
        if self.text_in is None or self.bounds is None:
            return
        nn.init.normal_(self.text_in.weight, std=0.02)
        nn.init.zeros_(self.text_in.bias)
        nn.init.normal_(self.bounds, std=0.02)
        for block in self.blocks:
            nn.init.zeros_(block.get_parameter("attn1.word_gate"))

    def forward(
        self, batch: PackedBatch, vision: Tensor, timestep: Tensor, context: None = None
    ) -> tuple[Tensor]:
        """Predict at the target tokens.

        Args:
            batch: layout, prompts and positions of N tokens: vision and padding, and under
                `WanConfig.words` text, start and end tokens.
            vision: float [vision tokens, vision_dim]: clean sources, and the targets at their noise level.
            timestep: float [segments], 1 is clean; see `WanConfig.source_time`.
            context: none; sources change with the target.

        Returns:
            The velocity x_1 - x_0, [M, vision_dim] for the M target tokens in the order of `batch.target`.

        Raises:
            ValueError: the batch has no prompts, or has its text among the tokens and should not, or the
                other way around.
        """
        self._check(batch)
        if self.config.source_time == "target":
            timestep = timestep[batch.target_of]
        embedding, modulation = self.condition_embedder(timestep)
        prompts = self._prompts(batch)
        cos, sin = rotation(batch.positions, self.config.rope)
        x = self._embed(batch, vision)
        for block in self.blocks:
            x = block(x, modulation, batch.segment, cos, sin, batch, prompts)
        x = x.index_select(0, batch.target)
        shift, scale = (self.scale_shift_table.float() + embedding.float()[:, None]).unbind(1)
        h = modulate(layer_norm(x, self.config.norm_eps), shift, scale, batch.segment[batch.target])
        return (-self.proj_out(h.to(x.dtype)),)

    def step_input(self, x: Tensor, t: float) -> Tensor:
        """See `Transformer.step_input`."""
        block: Any = self.blocks[0]
        h = layer_norm(self.patch_embedding(x.to(self.patch_embedding.weight.dtype)), block.eps)
        _, modulation = self.condition_embedder(torch.full((1,), t, device=x.device))
        shift, scale = (block.scale_shift_table.float() + modulation.float())[:, :2].unbind(1)
        return torch.addcmul(shift, h, 1 + scale)

    def _check(self, batch: PackedBatch) -> None:
        """Refuse tokens of another `SequenceConfig.text`, by numbers that are on the CPU."""
        tokens = len(batch.noisy) + len(batch.context)  # padding is both words and visible
        words, vision = tokens - len(batch.visible), tokens - len(batch.words)
        fits = words or not vision if self.config.words else not (words or len(batch.text))
        if batch.prompt is None or not fits:
            wanted = "both" if self.config.words else "cross_attention"
            raise ValueError(f"Wan's transformer needs prompts: sequence.text must be {wanted}")

    def _prompts(self, batch: PackedBatch) -> Prompts:
        packed = batch.prompt
        assert packed is not None  # `forward` has asked
        dtype, size = self.patch_embedding.weight.dtype, self.config.text_dim
        longest = max(packed.lengths, default=0)
        if longest > self.config.text_tokens:
            raise ValueError(
                f"a prompt has {longest} tokens, more than text_tokens {self.config.text_tokens}"
            )
        states = packed.states if len(packed.states) else packed.states.new_zeros(0, size)
        rows = torch.cat([states, states.new_zeros(1, size)]).to(dtype)
        where = written_out(packed, self.config.text_tokens)
        return Prompts(self.condition_embedder.text_embedder(rows), packed, self.config.text_tokens, where)

    def _embed(self, batch: PackedBatch, vision: Tensor) -> Tensor:
        """[N, width]: vision and text through their embeddings, the learned bounds, zeros for padding."""
        dtype, width = self.patch_embedding.weight.dtype, self.config.width
        # also without rows, so that every weight has a gradient whatever is in the pack
        visible = self.patch_embedding(
            (vision if len(vision) else vision.new_zeros(0, self.config.vision_dim)).to(dtype)
        )
        if self.text_in is None or self.bounds is None:
            # the batch's table has two rows for start and end tokens, which none of these tokens is
            table = torch.cat([visible, visible.new_zeros(3, width)])
        else:
            text = batch.text if len(batch.text) else vision.new_zeros(0, self.config.text_dim)
            text, bounds = self.text_in(text.to(dtype)), self.bounds.to(visible.dtype)
            table = torch.cat([text, visible, bounds, visible.new_zeros(1, width)])
        return table.index_select(0, batch.gather).to(dtype)


@torch.no_grad()
def with_words(base: Transformer, config: WanConfig, seed: int) -> WanTransformer:
    """A transformer that gives what `base` gives, with new weights for words, see `WanConfig.words`.

    Args:
        base: the weights are taken over, not copied.
        config: of the result.
        seed: of the new weights.
    """
    with torch.device("meta"):
        network = WanTransformer(config)
    network.load_state_dict(base.state_dict(), assign=True, strict=False)
    for name, weight in list(network.named_parameters()):
        if weight.is_meta:
            module, _, last = name.rpartition(".")
            new = nn.Parameter(torch.empty(weight.shape, dtype=base.dtype, device=base.device))
            network.get_submodule(module).register_parameter(last, new)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.init_words()
    return network


class WanExperts(Transformer):
    """Two of Wan's transformers, the first for much noise and the second for little (Wan 2.2 A14B)."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        if config.boundary is None:
            raise ValueError("two experts need dit.boundary, the noise level that parts them")
        self.config, self.boundary = config, config.boundary
        self.transformer, self.transformer_2 = WanTransformer(config), WanTransformer(config)

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]  # of both
        """The blocks of the first, then of the second."""
        return nn.ModuleList([*self.transformer.blocks, *self.transformer_2.blocks])

    def forward(
        self, batch: PackedBatch, vision: Tensor, timestep: Tensor, context: None = None
    ) -> tuple[Tensor]:
        """As `WanTransformer`, by the expert for the targets' noise.

        Raises:
            ValueError: the batch has targets on both sides of the boundary.
        """
        noisy = self._is_noisy(timestep[batch.target_segment])
        first = bool(noisy.all())
        if not first and bool(noisy.any()):
            raise ValueError(f"a batch has noise on both sides of {self.boundary}, where the expert changes")
        chosen = self.transformer if first else self.transformer_2
        result: tuple[Tensor] = chosen(batch, vision, timestep)
        return result

    def step_input(self, x: Tensor, t: float) -> Tensor:
        """See `Transformer.step_input`: of the expert for time t."""
        first = bool(self._is_noisy(torch.tensor(t)))
        return (self.transformer if first else self.transformer_2).step_input(x, t)

    def _is_noisy(self, timestep: Tensor) -> Tensor:
        """Whether times are the first expert's."""
        # told in whole thousandths: half of one is out of reach of rounding
        return 1 - timestep > self.boundary - 5e-4
