"""Measure what micro-batches cost on a device, so that steps are planned by seconds instead of operations.

`python -m model cost --out cost.json` calls `report`; `parallel.cost` and `model plan --cost` read the file.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from model.extras.config import ExtrasConfig
from model.net.activation_checkpointing import Checkpointing
from model.planner.cost import CostModel, fit
from model.planner.flops import Sizes
from model.planner.timed_steps import Step, every_group, time_steps
from shards.errors import SettingError
from shards.files import write_json

SHORTEST = 128


@dataclass(frozen=True)
class Timing:
    """Lengths of the sequences of a micro-batch, the ranks that share it, and its seconds.

    Forward and backward pass, on the rank that takes longest.
    """

    lengths: tuple[int, ...]
    seconds: float
    size: int = 1


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


def shared_packs(budget: int) -> list[tuple[int, ...]]:
    """Micro-batches that ranks share: full ones of a few lengths, and short ones."""
    lengths = [n for n in (budget, budget // 2, budget // 4, budget // 16) if n >= SHORTEST]
    return [(n,) * (budget // n) for n in lengths] + [(n,) for n in lengths[1:]]


def measure(
    config: Sizes,
    packs: list[tuple[int, ...]],
    device: str = "cpu",
    checkpointing: Checkpointing = "none",
    precision: torch.dtype = torch.bfloat16,
    extras: ExtrasConfig | None = None,
    ranks: int = 1,
    shared: list[tuple[int, ...]] | None = None,
    processor: bool = False,
) -> tuple[CostModel, list[Timing]]:
    """Time forward and backward passes with random weights, and fit the cost model to them.

    Args:
        config: with `text_dim` and `vision_dim`.
        packs: lengths of the sequences of each micro-batch, at least 4.
        precision: of autocast; float32 turns it off.
        ranks: that measure at a time, see `time_steps`; a power of two that divides the heads.
        shared: micro-batches that are also timed when groups of 2, 4, ... ranks share them.
        processor: go by the seconds that processors worked instead of the clock's, see `StepTime`.

    Returns:
        The model, its coefficients in seconds, and the measurements: the best of three, the device warm.
    """
    layouts = [(lengths, 1) for lengths in packs]
    sizes = [2**i for i in range(1, ranks.bit_length())]
    layouts += [(lengths, size) for size in sizes for lengths in shared or ()]
    steps = [Step(lengths, every_group(len(lengths), size, ranks)) for lengths, size in layouts]
    times = time_steps(config, steps, ranks, device, checkpointing, precision, extras)
    seconds = [t.processor if processor else t.seconds for t in times]
    timings = [Timing(lengths, taken, size) for (lengths, size), taken in zip(layouts, seconds, strict=True)]
    cost = fit([t.lengths for t in timings], [t.seconds for t in timings], [t.size for t in timings])
    return cost, timings


def report(
    config: Sizes,
    token_budget: int,
    device: str,
    checkpointing: Checkpointing,
    precision: str,
    out: Path,
    extras: ExtrasConfig | None = None,
    ranks: int = 1,
) -> None:
    """Measure, print each measurement beside the fit, and write the coefficients as JSON.

    Args:
        ranks: processes that measure at a time and share micro-batches; sending costs nothing if it is 1.
    """
    from rich.console import Console
    from rich.table import Table

    dtype = torch.float32 if precision == "32-true" else torch.bfloat16
    options = device, checkpointing, dtype, extras, ranks, shared_packs(token_budget)
    cost, timings = measure(config, packs_up_to(token_budget), *options)
    columns = "ranks", "sequences", "tokens each", "seconds", "by the fit"
    table = Table(*columns, title=f"forward and backward, {device}, {ranks} at a time")
    worst = 0.0
    for timing in timings:
        fitted = float(cost.of(timing.lengths, timing.size).sum()) + cost.latency(timing.size)
        worst = max(worst, abs(fitted / timing.seconds - 1))
        row = (timing.size, len(timing.lengths), timing.lengths[0], f"{timing.seconds:.4g}", f"{fitted:.4g}")
        table.add_row(*map(str, row))
    console = Console()
    console.print(table)
    where = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    value: dict[str, Any] = {
        **asdict(cost),
        "measured": {
            "ranks": ranks,
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
    sending = f", {cost.exchange:.3g} s per token sent, {cost.exchange_step:.3g} s per shared micro-batch"
    console.print(
        f"{cost.linear:.3g} s per token, {cost.quadratic:.3g} s per pair, {cost.step:.3g} s per micro-batch"
        f"{sending if ranks > 1 else ' (sending was not measured: one rank)'}; "
        f"at most {worst:.0%} off; written to {out}",
        highlight=False,
    )
