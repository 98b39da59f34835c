"""A picture of plans: how even the ranks are, what is shared, and where the long sequences are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.planner.balance import Cluster, waited_load
from model.planner.cost import CostModel
from model.planner.step_plan import StepPlan
from shards.files import atomic_path


def draw(plans: Sequence[StepPlan], cost: CostModel, cluster: Cluster, path: Path) -> None:
    """Write a PNG of the plans of some steps.

    Above, the first step: what every rank takes over the mean useful load, for packs of its own and for those
    that it shares. Below, the slowest rank of every step over that mean, and where all tokens are: in
    sequences of which length, with how many ranks to one.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 7), dpi=120, layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.2, 1))
    ranks = figure.add_subplot(grid[0, :])
    first = plans[0]
    mean = first.balanced.useful
    packs = [pack for pack in first.balanced.packs if pack.size > 1]
    shared = waited_load(packs, first.lengths, cost, cluster.ranks)
    places = np.arange(cluster.ranks)
    ranks.bar(places, (first.balanced.load - shared) / mean, 0.9, label="whole sequences", color="#4878a8")
    bottom = (first.balanced.load - shared) / mean
    ranks.bar(places, shared / mean, 0.9, bottom, label="its part of shared sequences", color="#e49444")
    ranks.axhline(1, color="black", linewidth=0.8)
    for node in range(cluster.size, cluster.ranks, cluster.size):
        ranks.axvline(node - 0.5, color="black", linewidth=0.4, linestyle=":")
    ranks.set(
        title=f"step {first.step}: {len(first.draws)} sequences, {int(first.lengths.sum()):,} tokens",
        xlabel="rank (dotted: nodes)",
        ylabel="cost over the mean useful load",
        xlim=(-0.6, cluster.ranks - 0.4),
        ylim=(0, max(1.25, 1.1 * float(first.balanced.load.max()) / mean)),
    )
    ranks.legend(loc="upper right", ncols=2)

    steps = figure.add_subplot(grid[1, 0])
    imbalance = [plan.balanced.imbalance for plan in plans]
    steps.plot([plan.step for plan in plans], imbalance, marker=".", color="#4878a8")
    steps.set(xlabel="step", ylabel="slowest rank over the mean", ylim=(1, max(1.02, 1.05 * max(imbalance))))
    steps.xaxis.set_major_locator(MaxNLocator(integer=True))

    lengths = figure.add_subplot(grid[1, 1])
    tokens = np.concatenate([plan.lengths for plan in plans])
    degrees = np.concatenate([plan.balanced.degrees for plan in plans])
    low, high = max(1, tokens.min()), tokens.max()
    bins = np.geomspace(low, max(high, low + 1), 40)
    present = np.unique(degrees)
    parts = [tokens[degrees == d] for d in present]
    weights = [part / tokens.sum() for part in parts]
    lengths.hist(parts, bins.tolist(), weights=weights, stacked=True, label=[str(d) for d in present])
    lengths.set(xscale="log", xlabel="tokens of a sequence", ylabel="share of all tokens")
    lengths.legend(title="ranks to it")
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
