"""How even plans are on the paper's mix, beside random assignment and KnapFormer's greedy; what they cost.

The mix is an assumption around the paper's Table 1 and 10: classes by count x ratio, lengths uniform around
the class means. Loads are 24 L d^2 + 4 L^2 d per sequence, d = 2048; ranks stand in nodes of 8.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.mixture import Lengths, MixtureSampler, draw_lengths
from model.planner.balance import Budget, Cluster
from model.planner.cost import CostModel
from model.planner.step_plan import Planner
from tests.perf.measure import Figure, per

WIDTH = 2048
COST = CostModel(24 * WIDTH**2, 4 * WIDTH)
BUDGET = 65_536
MIX = (
    Lengths((900, 1024), copies=2, weight=0.386),  # image editing
    Lengths((900, 1024), weight=0.085),  # image generation
    Lengths((940, 1024), (14, 20), 2, weight=0.096),  # video editing
    Lengths((940, 1024), (9, 25), weight=0.433 * 0.42),  # video generation from text or an image
    Lengths((940, 1024), (5, 12), 2, weight=0.433 * 0.58),  # and from a video
)
# bags as (ranks, how many): the published mixed ones, uniform ones beside them
BAGS = {
    32: {"g1": [(1, 32)], "g1n16+g8n2": [(1, 16), (8, 2)]},
    64: {"g1": [(1, 64)], "g2n32": [(2, 32)], "g1n32+g8n4": [(1, 32), (8, 4)]},
    128: {"g1": [(1, 128)], "g4n32": [(4, 32)], "g1n32+g2n16+g4n16": [(1, 32), (2, 16), (4, 16)]},
}


def knapformer(lengths: NDArray[np.int64], bags: list[tuple[int, int]]) -> tuple[float, float]:
    """(maximum over mean load, share of tokens split) of the published greedy.

    Heaviest first; of the bags whose capacity holds a sequence (else of the largest) the one that is least
    occupied before it; every sequence is cut into equal parts over its bag.
    """
    sizes = np.array([size for size, count in bags for _ in range(count)])
    work = COST.of(lengths)
    capacity = work.sum() / sizes.sum() * sizes
    load = np.zeros(len(sizes))
    split = 0
    for i in np.argsort(-work, kind="stable").tolist():
        able = (capacity >= work[i]) & (lengths[i] >= sizes)
        candidates = np.flatnonzero(able if able.any() else sizes == sizes.max())
        bag = int(candidates[(load / capacity)[candidates].argmin()])
        load[bag] += work[i]
        split += int(lengths[i]) * (sizes[bag] > 1)
    return float((load / sizes).max() / (work.sum() / sizes.sum())), split / float(lengths.sum())


def scattered(lengths: NDArray[np.int64], ranks: int, random: np.random.Generator) -> float:
    """Maximum over mean load when every rank gets as many sequences, at random."""
    places = random.permutation(np.arange(len(lengths)) % ranks)
    load = np.bincount(places, COST.of(lengths), ranks)
    return float(load.max() / load.mean())


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Plans of 200 steps of 256 samples at 32, 64 and 128 ranks, and of 4,096 samples at 512."""
    figures: list[Figure] = []
    for ranks, batch, steps in ((32, 256, 200), (64, 256, 200), (128, 256, 200), (512, 4096, 20)):
        steps = 2 if quick else steps
        random = np.random.default_rng(ranks)
        lengths = draw_lengths(MIX, batch * steps, random)
        order = MixtureSampler([[len(lengths)]], [1], 0)
        plan = Planner(lengths, order, batch, COST, Cluster(ranks, 8, 8, 16), Budget(BUDGET))
        seconds, rows, others = [], [], []
        for step in range(steps):
            begin = time.perf_counter()
            made = plan(step)
            seconds.append(time.perf_counter() - begin)
            share = made.balanced.load.mean()
            over = float(made.lengths[COST.of(made.lengths) > share].sum() / made.lengths.sum())
            rows.append((made.balanced.imbalance, made.split_tokens, over))
            others.append(
                [(scattered(made.lengths, ranks, random), 0.0)]
                + [knapformer(made.lengths, bags) for bags in BAGS.get(ranks, {}).values()]
            )
        mean, worst = np.mean(rows, axis=0), np.max(rows, axis=0)
        label = f"plan, {ranks} ranks, batch {batch}"
        text = (
            f"max/mean load {mean[0]:.4f} (worst step {worst[0]:.4f}), {mean[1]:.3%} of tokens split "
            f"({mean[2]:.1%} exceed a rank's share)"
        )
        figures.append(per(label, seconds, 1, "step", text))
        for name, (load, split) in zip(
            ["random", *(f"KnapFormer {n}" for n in BAGS.get(ranks, {}))],
            np.mean(others, axis=0),
            strict=True,
        ):
            note = f"max/mean load {load:.3f}, {split:.1%} of tokens split"
            figures.append(Figure(f"  {name}, the same steps", None, None, "", note))
    return figures
