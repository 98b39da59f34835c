"""`python -m tests.model.shared_pack` on each of some ranks: a pack that they share against the pack alone.

Raises AssertionError on the rank where predictions or gradients differ. Run by test_ulysses.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from model.net.config import DiTConfig
from model.net.families import build_transformer
from model.net.transformer import Transformer
from model.net.ulysses import make_groups
from model.net.wan_config import WanConfig
from model.sequence.interleave import (
    SequenceConfig,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
)
from model.sequence.layout import SPPlan
from model.sequence.packing import PackedBatch, pack, pack_layout
from model.sequence.rope import RopeConfig

DIT = DiTConfig(text_dim=8, vision_dim=12, width=64, depth=2, heads=4, rope=RopeConfig(dims=(4, 4, 4, 4)))
WAN = WanConfig(text_dim=8, vision_dim=12, width=64, depth=2, heads=4, hidden=96, text_tokens=12)
PROMPT = SequenceConfig(text="cross_attention", first_axis="source")
CASES = {
    "a key per query": (DIT, SequenceConfig()),
    "a key for two queries": (dataclasses.replace(DIT, kv_heads=2), SequenceConfig()),
    "a key for all queries": (dataclasses.replace(DIT, kv_heads=1), SequenceConfig()),
    "keys that groups cut unevenly": (
        dataclasses.replace(DIT, width=192, heads=12, kv_heads=3),
        SequenceConfig(),
    ),
    "a context that sees itself alone": (
        dataclasses.replace(DIT, kv_heads=2, context="cached"),
        SequenceConfig(),
    ),
    "prompts": (WAN, PROMPT),
    "prompts and words": (
        dataclasses.replace(WAN, words=True),
        dataclasses.replace(PROMPT, text="both"),
    ),
}


def sequences(config: SequenceConfig) -> list[TokenSequence]:
    """Three edits of 27 to 63 tokens, and fewer of vision, in no order."""
    made = []
    for seed, (frames, words) in enumerate(((3, 7), (1, 4), (2, 0))):
        generator = torch.Generator().manual_seed(seed)
        source, target = (
            VisionElement(name, torch.randn(frames, 4, 6, 3, generator=generator), target=name == "video2")
            for name in ("video1", "video2")
        )
        states = torch.randn(words, 8, generator=generator)
        texts = [TextElement(states, prompt=True)] * config.has_prompt + [
            TextElement(states)
        ] * config.has_words
        made.append(build_sequence([source, *texts, target], config, spatial=8))
    return made


def filled(network: Transformer) -> Transformer:
    """All that is zero at the start with numbers, so that every input reaches the output."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def predicted(network: Transformer, batch: PackedBatch) -> tuple[Tensor, list[Tensor]]:
    """Predictions, and gradients of the sum of their squares over the pack."""
    timestep = torch.ones(batch.segments)
    timestep[batch.target_segment] = 0.37
    out = network(batch, batch.vision, timestep)[0]
    network.zero_grad()
    out.square().sum().backward()
    return out.detach(), [p.grad for p in network.parameters() if p.grad is not None]


def runs(parts: list[TokenSequence], sp_plan: SPPlan) -> Iterator[PackedBatch]:
    """This rank's run of a pack, with padding behind it and without."""
    shared = sp_plan, pack_layout(parts)
    held = [parts[i].part(a, b) for i, a, b in sp_plan.parts([len(p) for p in parts])]
    yield pack(held, shared=shared)
    yield pack(held, pad_to=sum(map(len, held)) + 5, shared=shared)


def main() -> None:
    """All cases, by groups of two and of four."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    make_groups(world, world)
    for name, (config, layout) in CASES.items():
        torch.manual_seed(0)
        network = filled(build_transformer(config))
        parts = sequences(layout)
        whole = pack(parts)
        expected, gradients = predicted(network, whole)
        gradients = [g.clone() for g in gradients]
        # a bias of keys changes no softmax: its gradient is what rounding leaves
        rounding = 1e-6 * max(float(g.abs().max()) for g in gradients)
        for size in (2, 4):
            first = rank // size * size
            sp_plan = SPPlan(rank, tuple(range(first, first + size)), sum(map(len, parts)))
            start, stop = sp_plan.runs[sp_plan.index]
            own = (whole.target >= start) & (whole.target < stop)
            for batch in runs(parts, sp_plan):
                out, shares = predicted(network, batch)
                case = f"{name}, {size} ranks, {len(batch.gather)} tokens"
                torch.testing.assert_close(out, expected[own], atol=2e-5, rtol=1e-4, msg=case)
                assert len(shares) == len(gradients), case  # a rank's run may lack words, or vision
                for mine, total in zip(shares, gradients, strict=True):
                    dist.all_reduce(mine)
                    mine *= size / world  # every group did the same
                    close = 1e-5 * float(total.abs().max()) + rounding
                    torch.testing.assert_close(mine, total, atol=close, rtol=1e-4, msg=case)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
