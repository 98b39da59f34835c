"""The same computation as independent implementations: transformers' Llama, diffusers' flow matching.

Weights are random and small; agreement is to 1e-5 in fp32.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from model.flow.flow_matching import FlowConfig, time_grid
from model.flow.solvers import euler, unipc
from model.inference.sampler import Branch
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.interleave import SequenceConfig, TextElement, VisionElement, build_sequence
from model.sequence.packing import pack
from model.sequence.rope import RopeConfig, inverse_frequencies

WIDTH, HEADS, DEPTH, INNER = 64, 4, 3, 160
NAMES = {
    "self_attn.q_proj": "attention.q",
    "self_attn.k_proj": "attention.k",
    "self_attn.v_proj": "attention.v",
    "self_attn.o_proj": "attention.out",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
    "input_layernorm": "norm1",
    "post_attention_layernorm": "norm2",
}


def as_identity(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.eye(layer.in_features))
        layer.bias.zero_()


def llama_and_ours(kv_heads: int) -> tuple[LlamaModel, DiT]:
    """Both with the same random weights; ours has the projections that Llama lacks as identities."""
    torch.manual_seed(kv_heads)
    llama = LlamaModel(
        LlamaConfig(
            vocab_size=8,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            num_key_value_heads=kv_heads,
            rms_norm_eps=1e-6,
            rope_theta=10_000.0,
            attn_implementation="eager",
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in llama.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    ours = DiT(
        DiTConfig(
            text_dim=WIDTH,
            vision_dim=WIDTH,
            width=WIDTH,
            depth=DEPTH,
            heads=HEADS,
            kv_heads=kv_heads,
            hidden=INNER,
            rope=RopeConfig(dims=(WIDTH // HEADS, 0, 0, 0)),
            qk_norm=False,
            modulation=False,
        )
    ).eval()
    for layer in (ours.text_in, ours.vision_in, ours.out):
        as_identity(layer)
    theirs = llama.state_dict()
    state = {"norm.weight": theirs["norm.weight"]}
    for i, (their_name, our_name) in itertools.product(range(DEPTH), NAMES.items()):
        state[f"blocks.{i}.{our_name}.weight"] = theirs[f"layers.{i}.{their_name}.weight"]
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert {name.partition(".")[0] for name in missing} == {"text_in", "vision_in", "out", "bounds"}
    return llama, ours


@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
@torch.no_grad()
def test_the_stack_is_llama(kv_heads: int) -> None:
    llama, ours = llama_and_ours(kv_heads)
    sequences = [
        build_sequence(
            [
                VisionElement("video1", torch.randn(frames, 4, 6, WIDTH // 4)),
                TextElement(torch.randn(words, WIDTH)),
                VisionElement("video2", torch.randn(2, 4, 4, WIDTH // 4), target=True),
            ],
            SequenceConfig(patch=2),
        )
        for frames, words in ((3, 7), (1, 2))
    ]
    batch = pack(sequences)
    made = ours(batch, batch.vision, torch.ones(batch.segments))[0]
    # Llama sees each sequence alone: the tokens after the projectors, every token visible to every other
    table = torch.cat([batch.text, batch.vision, ours.bounds])
    embedded = table[batch.gather]
    bounds = batch.cu_seqlens.tolist()
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        theirs = llama(
            inputs_embeds=embedded[None, start:stop],
            position_ids=batch.positions[None, start:stop, 0],
            attention_mask=torch.zeros(1, 1, stop - start, stop - start),
        ).last_hidden_state[0]
        places = batch.target[batch.target_sequence == number] - start
        expected = theirs[places]
        assert expected.std() > 0.5  # the comparison is of something
        torch.testing.assert_close(made[batch.target_sequence == number], expected, atol=1e-5, rtol=0)


def tiny_branch() -> tuple[Branch, Tensor]:
    """The velocity of a small random network on an edit, and noise to start from."""
    torch.manual_seed(0)
    config = DiTConfig(
        text_dim=8, vision_dim=12, width=32, depth=2, heads=2, rope=RopeConfig(dims=(4, 4, 4, 4))
    )
    dit = DiT(config).eval().requires_grad_(False)
    dit.out.weight.normal_(std=0.2)
    sequence = build_sequence(
        [
            VisionElement("video1", torch.randn(2, 4, 6, 3)),
            TextElement(torch.randn(5, 8)),
            VisionElement("video2", torch.zeros(2, 4, 6, 3), target=True),
        ],
        SequenceConfig(patch=2),
        spatial=8,
    )
    branch = Branch(dit, sequence, FlowConfig())
    return branch, torch.randn(len(branch.batch.target), 12)


def by_hand(scheduler: Any, sigmas: list[float], branch: Branch, x: Tensor) -> Tensor:
    """Step a diffusers scheduler; it counts noise, and its velocity is dx / dsigma."""
    for sigma, moment in zip(sigmas, scheduler.timesteps, strict=True):
        x = scheduler.step(-branch.velocity(x, 1 - sigma), moment, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_is_diffusers_flow_match_euler(shift: float) -> None:
    branch, noise = tiny_branch()
    grid = time_grid(50, shift)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, 51)[:-1].tolist())  # it shifts what it is given
    np.testing.assert_allclose(1 - np.array(grid), scheduler.sigmas.numpy(), atol=1e-6)
    theirs = by_hand(scheduler, [1 - t for t in grid[:-1]], branch, noise)
    *_, ours = euler(branch.velocity, noise, grid)
    assert (ours - noise).abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_unipc_is_diffusers_unipc() -> None:
    branch, noise = tiny_branch()
    grid = time_grid(12, 2.0)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0
    )
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, 13)[:-1])
    theirs = by_hand(scheduler, [1 - t for t in grid[:-1]], branch, noise)
    *_, ours = unipc(branch.velocity, noise, grid)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_unipc_converges_at_second_order_and_euler_at_first() -> None:
    def velocity(x: Tensor, t: float) -> Tensor:
        """The flow from N(0, 1) to N(2, 1/4), which takes x to 2 + x / 2."""
        variance = t * t / 4 + (1 - t) ** 2
        return 2 + (t / 4 - (1 - t)) / variance * (x - 2 * t)

    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    orders = {}
    for solver in (euler, unipc):
        errors = []
        for steps in (20, 40, 80):
            *_, last = solver(velocity, x, time_grid(steps, 1.0))
            errors.append((last - (2 + x / 2)).abs().max().item())
        orders[solver] = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(0.8 < order < 1.2 for order in orders[euler]), orders
    assert all(order > 1.7 for order in orders[unipc]), orders


def test_ntk_is_the_published_change_of_base() -> None:
    scaled = inverse_frequencies(RopeConfig(dims=(12, 4, 56, 56), ntk=(2.0, 1.0, 4.0, 4.0)))
    for dim, factor, frequencies in zip((12, 4, 56, 56), (2, 1, 4, 4), scaled, strict=True):
        base = 10_000 * factor ** (dim / (dim - 2))
        expected = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        torch.testing.assert_close(frequencies, expected)
        lowest = 10_000 ** (-(dim - 2) / dim)
        assert float(frequencies[-1]) == pytest.approx(lowest / factor)


def test_ntk_is_transformers_dynamic_scaling() -> None:
    """There the base grows with (length / trained length), which is our factor, over one axis."""
    trained, dim = 64, 16
    config = LlamaConfig(
        hidden_size=dim,
        num_attention_heads=1,
        max_position_embeddings=trained,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 1.0},
    )
    for factor in (1, 2, 8):
        theirs, scale = ROPE_INIT_FUNCTIONS["dynamic"](config, torch.device("cpu"), seq_len=factor * trained)
        ours = inverse_frequencies(RopeConfig(dims=(dim,), ntk=(float(factor),)))[0]
        assert scale == 1
        torch.testing.assert_close(ours.float(), theirs, atol=0, rtol=1e-5)
