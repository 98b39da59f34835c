"""Training steps of packed and of padded batches: the same samples, weights and results, in turn.

Lengths are the paper's mix (`tests.perf.planning`) with 1/16 of the tokens of a frame, the width is 1/16 of
the 2b's: attention has the same share of the work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import ModelConfig
from model.data.batch import Example, MicroBatch, StepBatch, collate
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.interleave import (
    PAD,
    Segment,
    SequenceConfig,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
)
from model.sequence.rope import RopeConfig
from model.training.module import micro_loss, token_shares
from tests.perf.measure import Figure, per
from tests.perf.planning import MIX

SIDE, CHANNELS, WORDS = 16, 16, 384  # latents of a frame: 64 tokens after patching, 1,024 in the paper
BATCH, MICRO = 64, 8  # samples of a step, and of a padded micro-batch
DIT = DiTConfig(
    text_dim=WORDS,
    vision_dim=4 * CHANNELS,
    width=128,
    depth=2,
    heads=2,
    rope=RopeConfig(dims=(16, 16, 16, 16)),
)


def make_examples(count: int) -> list[Example]:
    """Samples of the mix in random order, each of a source (where there is one), two words and a target."""
    random, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    weights = np.array([kind.weight for kind in MIX])
    examples = []
    for number, kind in enumerate(random.choice(len(MIX), count, p=weights / weights.sum())):
        frames = int(random.integers(*MIX[kind].frames, endpoint=True))
        media = [
            VisionElement(f"video{i + 1}", torch.randn(frames, SIDE, SIDE, CHANNELS, generator=generator))
            for i in range(MIX[kind].copies)
        ]
        target = VisionElement(media[-1].name, media[-1].latents, target=True)
        words = TextElement(torch.randn(2, WORDS, generator=generator))
        sequence = build_sequence([*media[:-1], words, target], SequenceConfig(patch=2), 8)
        size = frames * (SIDE // 2) ** 2
        noise = torch.randn(size, 4 * CHANNELS, generator=generator)
        moment = torch.rand((), generator=generator)
        examples.append(Example(f"{number}", "mix", sequence, noise, moment, torch.ones(size), size))
    return examples


def filler(count: int) -> Example:
    """Tokens of padding that nothing attends to and that count for nothing."""
    sequence = TokenSequence(
        text=torch.zeros(0, WORDS),
        vision=torch.zeros(0, 4 * CHANNELS),
        kind=torch.full((count,), PAD),
        positions=torch.zeros(count, 4, dtype=torch.long),
        segment=torch.zeros(count, dtype=torch.long),
        segments=(Segment("vision", "padding", 0, count, target=True),),
    )
    return Example("", "", sequence, torch.zeros(0, 4 * CHANNELS), torch.zeros(()), torch.zeros(0), 1)


def padded(examples: list[Example]) -> tuple[MicroBatch, Tensor]:
    """Every sample filled up to the longest; bool [samples, tokens], where there is no padding."""
    longest = max(len(e.sequence) for e in examples)
    parts = []
    for example in examples:
        parts.append(example)
        if len(example.sequence) < longest:
            parts.append(filler(longest - len(example.sequence)))
    lengths = torch.tensor([len(e.sequence) for e in examples])
    return collate(parts), torch.arange(longest) < lengths[:, None]


def attend_padded(dit: DiT, real: Tensor) -> None:
    """Let all blocks attend to a rectangle of samples at once, with a mask of the keys."""

    def attend(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int, **keys: Any) -> Tensor:
        q, k, v = (x.unflatten(0, real.shape).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None])
        return out.transpose(1, 2).flatten(0, 1)

    for block in dit.blocks:
        block.attention._attend = attend


def packed(examples: list[Example], budget: int) -> list[MicroBatch]:
    """Side by side up to a token budget, longest first into the first that has room."""
    bins: list[list[Example]] = []
    for example in sorted(examples, key=lambda e: -len(e.sequence)):
        for chosen in bins:
            if sum(len(e.sequence) for e in chosen) + len(example.sequence) <= budget:
                chosen.append(example)
                break
        else:
            bins.append([example])
    return [collate(chosen) for chosen in bins]


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Forward, backward and AdamW of the same steps in three layouts, in turn, and their losses."""
    examples = make_examples(BATCH)
    lengths = [len(e.sequence) for e in examples]
    budget = MICRO * max(lengths)
    by_length = sorted(examples, key=lambda e: len(e.sequence))

    def rectangles(order: list[Example]) -> list[tuple[MicroBatch, Tensor | None]]:
        return [padded(order[i : i + MICRO]) for i in range(0, BATCH, MICRO)]

    layouts: dict[str, list[tuple[MicroBatch, Tensor | None]]] = {
        f"packed, at most {budget} tokens": [(m, None) for m in packed(examples, budget)],
        f"padded, {MICRO} samples as they come": rectangles(examples),
        f"padded, {MICRO} samples of like length": rectangles(by_length),
    }
    config = ModelConfig(dit=DIT)
    seconds: dict[str, list[float]] = {name: [] for name in layouts}
    losses: dict[str, float] = {}
    for turn in range(2 if quick else 5):
        for name, layout in layouts.items():
            taken, losses[name] = _train(config, layout, device)
            if turn:  # the first is not counted
                seconds[name].append(taken)
    first = next(iter(losses.values()))
    tokens = {n: sum(len(m.batch.gather) for m, _ in layout) for n, layout in layouts.items()}
    base = statistics.median(seconds[next(iter(seconds))])
    figures = []
    for name, taken in seconds.items():
        worth, slower = sum(lengths) / tokens[name], statistics.median(taken) / base
        rate = (
            f"{{}} samples/s, {tokens[name]} tokens, {1 - worth:.0%} padding, {slower:.2f}x the time, "
            f"loss off by {abs(losses[name] / first - 1):.0e}"
        )
        figures.append(per(f"step of {BATCH}, {name}", taken, BATCH, "sample", rate))
    return figures


def _train(
    config: ModelConfig, layout: list[tuple[MicroBatch, Tensor | None]], device: str
) -> tuple[float, float]:
    """(seconds, loss) of an optimizer step from the same weights, bf16-mixed."""
    torch.manual_seed(0)
    dit = DiT(config.dit).to(device)
    step = StepBatch(0, tuple(m for m, _ in layout), BATCH).to(device)
    masks = [None if real is None else real.to(device) for _, real in layout]
    optimizer = torch.optim.AdamW(dit.parameters())
    total: Tensor = torch.zeros((), device=device)
    _wait(device)
    begin = time.perf_counter()
    with torch.autocast(device, torch.bfloat16):
        for micro, share, real in zip(step.micro, token_shares(step, "sample"), masks, strict=True):
            if real is not None:
                attend_padded(dit, real)
            loss = (share * micro_loss(dit, micro, config)).sum()
            loss.backward()
            total += loss.detach()
    torch.nn.utils.clip_grad_norm_(dit.parameters(), 1.0)
    optimizer.step()
    _wait(device)
    return time.perf_counter() - begin, float(total)


def _wait(device: str) -> None:
    done: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    done()
