"""Measure what micro-batches cost on a device, so that steps are planned by seconds instead of operations.

`python -m model cost --out cost.json` calls `report`; `parallel.cost` and `model plan --cost` read the file.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.extras.config import ExtrasConfig
from model.net.activation_checkpointing import Checkpointing, prepare_blocks
from model.net.families import build_transformer
from model.net.transformer import Transformer
from model.net.wan_config import WanConfig
from model.planner.allocations import layout_of, texts_for
from model.planner.cost import CostModel, fit
from model.planner.flops import Sizes
from model.sequence.interleave import VisionElement, build_sequence
from model.sequence.packing import PackedBatch, pack
from shards.errors import SettingError
from shards.files import write_json

SHORTEST, REPEATS = 128, 3


@dataclass(frozen=True)
class Timing:
    """Lengths of the sequences of a micro-batch and the seconds of its forward and backward pass."""

    lengths: tuple[int, ...]
    seconds: float


def packs_up_to(budget: int) -> list[tuple[int, ...]]:
    """Micro-batches of equal sequences: doubling lengths, filling half of the token budget and all of it.

    Raises:
        ValueError: a budget below 512 tokens, with too few lengths to tell terms apart.
    """
    if budget < 4 * SHORTEST:
        raise SettingError(f"token_budget {budget}: needs at least {4 * SHORTEST} to vary lengths")
    lengths = [SHORTEST * 2**i for i in range(int(math.log2(budget // SHORTEST)) + 1)]
    packs = {(n,) * (part // n) for n in lengths for part in (budget // 2, budget) if part >= n}
    return sorted(packs)


def measure(
    config: Sizes,
    packs: list[tuple[int, ...]],
    device: str = "cpu",
    checkpointing: Checkpointing = "none",
    precision: torch.dtype = torch.bfloat16,
    extras: ExtrasConfig | None = None,
) -> tuple[CostModel, list[Timing]]:
    """Time forward and backward passes with random weights, and fit the cost model to them.

    Args:
        config: with `text_dim` and `vision_dim`.
        packs: lengths of the sequences of each micro-batch, at least 4.
        precision: of autocast; float32 turns it off.

    Returns:
        The model, its coefficients in seconds, and the measurements: the best of three, the device warm.
    """
    dit = build_transformer(config, extras).to(device)
    out = dit.get_submodule("proj_out" if isinstance(config, WanConfig) else "out")
    with torch.no_grad():
        out.get_parameter("weight").normal_(std=0.02)  # zero at the start, and so would all gradients be
    prepare_blocks(dit, checkpointing, compiled=False)
    timings = []
    for number, lengths in enumerate(packs):
        batch = _batch(config, lengths).to(device)
        runs = [_seconds(dit, batch, device, precision) for _ in range(REPEATS + (2 if number == 0 else 1))]
        timings.append(Timing(lengths, min(runs[1:])))
    return fit([t.lengths for t in timings], [t.seconds for t in timings]), timings


def _batch(config: Sizes, lengths: tuple[int, ...]) -> PackedBatch:
    """Sequences of a word and a target each."""
    layout = layout_of(config)
    sequences = []
    for length in lengths:
        word = torch.randn(1, config.text_dim)
        words = texts_for(layout, word)
        vision = length - 3 if layout.has_words else length
        target = VisionElement("video1", torch.randn(1, 1, vision, config.vision_dim), target=True)
        sequences.append(build_sequence([*words, target], layout))
    return pack(sequences)


def _seconds(dit: Transformer, batch: PackedBatch, device: str, precision: torch.dtype) -> float:
    times = torch.full((batch.segments,), 0.5, device=device)
    _wait(device)
    begin = time.perf_counter()
    with torch.autocast(torch.device(device).type, precision, enabled=precision != torch.float32):
        out = dit(batch, batch.vision, times)[0]
    out.float().square().mean().backward()
    _wait(device)
    taken = time.perf_counter() - begin
    dit.zero_grad()
    return taken


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def report(
    config: Sizes,
    token_budget: int,
    device: str,
    checkpointing: Checkpointing,
    precision: str,
    out: Path,
    extras: ExtrasConfig | None = None,
) -> None:
    """Measure, print each measurement beside the fit, and write the coefficients as JSON."""
    from rich.console import Console
    from rich.table import Table

    dtype = torch.float32 if precision == "32-true" else torch.bfloat16
    cost, timings = measure(config, packs_up_to(token_budget), device, checkpointing, dtype, extras)
    table = Table(
        "sequences", "tokens each", "seconds", "by the fit", title=f"forward and backward, {device}"
    )
    worst = 0.0
    for timing in timings:
        fitted = float(cost.of(timing.lengths).sum()) + cost.step
        worst = max(worst, abs(fitted / timing.seconds - 1))
        row = (len(timing.lengths), timing.lengths[0], f"{timing.seconds:.4g}", f"{fitted:.4g}")
        table.add_row(*map(str, row))
    console = Console()
    console.print(table)
    where = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    value: dict[str, Any] = {
        "linear": cost.linear,
        "quadratic": cost.quadratic,
        "step": cost.step,
        "measured": {
            "device": where,
            "torch": torch.__version__,
            "precision": precision,
            "checkpointing": checkpointing,
            "width": config.width,
            "depth": config.depth,
            "worst_relative_error": round(worst, 4),
        },
    }
    write_json(out, value)
    console.print(
        f"{cost.linear:.3g} s per token, {cost.quadratic:.3g} s per pair, {cost.step:.3g} s per micro-batch; "
        f"at most {worst:.0%} off; written to {out}",
        highlight=False,
    )
