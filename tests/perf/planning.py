"""How even plans are on the paper's mix, beside other ways to share the same steps out; what planning costs.

The mix is an assumption around the paper's Table 1 and 10: classes by count x ratio, lengths uniform around
the class means. A sequence costs 24 L d^2 + 4 L^2 d, d = 2048; ranks stand in nodes of 8. Figures are what
the slowest rank takes, with all its waits, over the mean of what the sequences cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.lengths import Lengths, draw_lengths
from model.data.mixture import MixtureSampler
from model.planner.alternatives import Alternative, alternatives, bag_name, knapformer
from model.planner.balance import Budget, Cluster
from model.planner.cost import CostModel
from model.planner.step_plan import Planner, StepPlan
from tests.perf.measure import Figure, per

WIDTH = 2048
COST = CostModel(24 * WIDTH**2, 4 * WIDTH)
MIX = (
    Lengths((900, 1024), copies=2, weight=0.386),  # image editing
    Lengths((900, 1024), weight=0.085),  # image generation
    Lengths((940, 1024), (14, 20), 2, weight=0.096),  # video editing
    Lengths((940, 1024), (9, 25), weight=0.433 * 0.42),  # video generation from text or an image
    Lengths((940, 1024), (5, 12), 2, weight=0.433 * 0.58),  # and from a video
)
BUDGETS = (40_000, 65_536)
# a GPU that does 400 TFLOP/s and sends 450 GB/s does some 900 operations per byte; a token's queries, keys,
# values and results in bf16, there and back again, in the operations of COST, which are a forward pass's
SENT = replace(COST, exchange=2 * 4 * WIDTH * 2 * 900 / 3)
# bags as (ranks, how many), published, that are not half single ranks and half groups of 8
BAGS = {128: [(1, 32), (2, 16), (4, 16)]}


def scattered(lengths: NDArray[np.int64], ranks: int, random: np.random.Generator) -> float:
    """Maximum over mean load when every rank gets as many sequences, at random."""
    places = random.permutation(np.arange(len(lengths)) % ranks)
    load = np.bincount(places, COST.of(lengths), ranks)
    return float(load.max() / load.mean())


def plans(
    ranks: int, batch: int, steps: int, budget: int, cost: CostModel
) -> tuple[list[StepPlan], list[float]]:
    """The plans of some steps, and the processor's seconds for each, which other programs do not lengthen."""
    lengths = draw_lengths(MIX, batch * steps, np.random.default_rng(ranks))
    order = MixtureSampler([[len(lengths)]], [1], 0)
    planner = Planner(lengths, order, batch, cost, Cluster(ranks, 8, 8, 16), Budget(budget))
    made, seconds = [], []
    for step in range(steps):
        begin = time.process_time()
        made.append(planner(step))
        seconds.append(time.process_time() - begin)
    return made, seconds


def told(ways: Sequence[Alternative]) -> str:
    """Mean and worst, and the tokens that are split."""
    over = [way.imbalance for way in ways]
    split = float(np.mean([way.split for way in ways]))
    return f"waited max/mean {np.mean(over):.4f} (worst step {np.max(over):.4f}), {split:.1%} of tokens split"


def other_ways(made: list[StepPlan], ranks: int) -> Iterator[Figure]:
    """The same steps, shared out in other ways in the same cost."""
    cluster, random = Cluster(ranks, 8, 8, 16), np.random.default_rng(0)
    ways: dict[str, list[Alternative]] = {}
    for plan in made:
        ways.setdefault("at random, never split", []).append(
            Alternative(scattered(plan.lengths, ranks, random), 0.0)
        )
        for name, way in alternatives(plan.lengths, COST, cluster).items():
            ways.setdefault(name, []).append(way)
        if ranks in BAGS:
            bags = BAGS[ranks]
            ways.setdefault(f"KnapFormer's {bag_name(bags)}", []).append(knapformer(plan.lengths, COST, bags))
    for name, each in ways.items():
        yield Figure(f"  {name}", None, None, "", told(each))


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Plans of 200 steps of 256 samples at 32 to 256 ranks, and of 4,096 samples at 512."""
    figures: list[Figure] = []
    for ranks, batch, steps in (
        (32, 256, 200),
        (64, 256, 200),
        (128, 256, 200),
        (256, 256, 200),
        (512, 4096, 20),
    ):
        steps = 2 if quick else steps
        for number, (budget, cost) in enumerate([*((b, COST) for b in BUDGETS), (BUDGETS[-1], SENT)]):
            made, seconds = plans(ranks, batch, steps, budget, cost)
            label = f"plan, {ranks} ranks, batch {batch}, budget {budget:,}" + ", sending costs" * (
                cost is SENT
            )
            ways = [Alternative(plan.balanced.imbalance, plan.split_tokens) for plan in made]
            figures.append(per(label, seconds, 1, "step", told(ways)))
            if number == 1:
                figures += other_ways(made, ranks)
    return figures
