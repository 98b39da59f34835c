"""Steps on two and on four real ranks as planned, never split and in even groups; measured and predicted.

Ranks are processes over gloo with a thread each, forward and backward passes only. The cost that plans and
predictions go by is fitted in the same run by what `python -m model cost --ranks` does. Figures are the
seconds that processors worked (`StepTime.processor`), since four ranks may have fewer cores and others may
use them too; the clock's stand beside.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from model.net.config import DiTConfig
from model.planner.alternatives import UNBOUNDED, even_packs
from model.planner.balance import Cluster, PackPlan, balance, waited_load
from model.planner.calibrate import measure as calibrate
from model.planner.calibrate import packs_up_to, shared_packs
from model.planner.cost import CostModel
from model.planner.timed_steps import Step, time_steps
from model.sequence.rope import RopeConfig
from tests.perf.measure import Figure

CONFIG = DiTConfig(text_dim=8, vision_dim=8, width=256, depth=2, heads=8, rope=RopeConfig(dims=(8, 8, 8, 8)))
MIXES = {
    "3000 + 20 x 300": (3000, *(300,) * 20),
    "2600, 2400 + 6 x 500": (2600, 2400, *(500,) * 6),
    "4000, 1500, 1000 + 8 x 250": (4000, 1500, 1000, *(250,) * 8),
}
TOKENS = 4096  # of the longest packs that the cost is fitted to


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """On two ranks and on four; always on the CPU."""
    threads = torch.get_num_threads()
    try:
        return [figure for ranks in (2, 4) for figure in compared(ranks, quick)]
    finally:
        torch.set_num_threads(threads)


def compared(ranks: int, quick: bool) -> list[Figure]:
    """Every mix, shared out in every way; the best of three rounds, on the slowest rank."""
    torch.set_num_threads(ranks)  # a thread for each
    longest = 512 if quick else TOKENS
    mixes = {name: tuple(n // 8 if quick else n for n in mix) for name, mix in MIXES.items()}
    packs = packs_up_to(longest), shared_packs(longest)
    cost, timings = calibrate(
        CONFIG, packs[0], precision=torch.float32, ranks=ranks, shared=packs[1], processor=True
    )
    off = [float(cost.of(t.lengths, t.size).sum()) + cost.latency(t.size) - t.seconds for t in timings]
    worst = max(abs(o) / t.seconds for o, t in zip(off, timings, strict=True))
    text = (
        f"{cost.linear:.3g} s per token, {cost.quadratic:.3g} per pair, {cost.step:.3g} per micro-batch, "
        f"{cost.exchange:.3g} per token sent, {cost.exchange_step:.3g} per shared micro-batch; "
        f"at most {worst:.0%} off"
    )
    figures = [Figure(f"{ranks} ranks, cost fitted to {len(timings)} packs", None, None, "", text)]
    ways: dict[tuple[str, str], Step] = {}
    for mix, lengths in mixes.items():
        for way, made in ways_of(lengths, cost, ranks).items():
            ways[mix, way] = Step(lengths, tuple(made))
    times = time_steps(CONFIG, list(ways.values()), ranks, precision=torch.float32)
    measured = [t.processor for t in times]
    fastest = {mix: min(s for (m, _), s in zip(ways, measured, strict=True) if m == mix) for mix in mixes}
    for ((mix, way), step), taken in zip(ways.items(), times, strict=True):
        seconds = taken.processor
        lengths = np.array(step.lengths)
        predicted = float(waited_load(step.packs, lengths, cost, ranks).max())
        split = sum(step.lengths[i] for p in step.packs if p.size > 1 for i in p.samples) / sum(step.lengths)
        text = (
            f"predicted {predicted:.3g} s ({predicted / seconds - 1:+.0%}), {split:.0%} of tokens split, "
            f"{seconds / fastest[mix] - 1:.0%} over the fastest; {taken.seconds:.3g} s by the clock"
        )
        figures.append(Figure(f"  {mix}: {way}", 1000 * seconds, None, "ms/step", text))
    return figures


def ways_of(lengths: tuple[int, ...], cost: CostModel, ranks: int) -> dict[str, list[PackPlan]]:
    """Packs by the name of the way."""
    tokens = np.array(lengths)
    ways = {
        "as planned": balance(tokens, cost, Cluster(ranks, ranks, ranks, CONFIG.heads), UNBOUNDED).packs,
        "never split": balance(tokens, cost, Cluster(ranks, ranks), UNBOUNDED).packs,
    }
    for size in (2, 4)[: ranks // 2]:
        ways[f"groups of {size} for all"] = even_packs(tokens, cost, ranks, size)
    return ways
