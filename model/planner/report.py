"""`python -m model plan`: what the planner makes of a mixture on a cluster, before there is either."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.data.mixture import Mixture, shares, synthetic_lengths
from model.extras.config import ExtrasConfig
from model.net.activation_checkpointing import Checkpointing
from model.planner.alternatives import Alternative, alternatives
from model.planner.balance import Budget, Cluster
from model.planner.cost import CostModel, cost_of
from model.planner.flops import Sizes
from model.planner.memory import Savings, memory_of
from model.planner.plot import draw
from model.planner.step_plan import Planner, StepPlan
from shards.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

MOST = 1_000_000  # samples that lengths are drawn for
# the slowest rank's packs, exchanges and waits included, over the mean of the sequences' cost alone
WAITED = "waited maximum over mean useful load"


def report(
    mixture: Mixture,
    config: Sizes,
    cluster: Cluster,
    budget: Budget,
    batch_size: int,
    steps: int,
    first: int,
    seed: int,
    checkpointing: Checkpointing = "none",
    tflops: float | None = None,
    picture: Path | None = None,
    measured: Path | None = None,
    extras: ExtrasConfig | None = None,
    savings: Savings = Savings(),  # noqa: B008 (frozen)
) -> None:
    """Print the plans of `steps` steps from `first` on; lengths are drawn from the rows' `tokens`.

    Args:
        tflops: operations per second and device that are really done, in 10^12, for an estimate of the time.
        picture: PNG to draw the plans into, see `model.planner.plot`.
        measured: file of `python -m model cost`, to plan by and to estimate the time from.
        savings: what the run does to need less memory.

    Raises:
        ConfigError: a row without count and tokens, a budget that cannot hold the longest sample, or no step.
    """
    from rich.console import Console

    if steps < 1 or first < 0:
        raise ConfigError(f"plan: {steps} steps from step {first} on; at least 1, from 0 on")
    order, lengths = synthetic_lengths(mixture, MOST, seed)
    cost = cost_of(config, checkpointing == "full", measured)
    planner = Planner(lengths, order, batch_size, cost, cluster, budget)
    milliseconds, plans = [], []
    for step in range(first, first + steps):
        begin = time.perf_counter()
        plans.append(planner(step))
        milliseconds.append(1000 * (time.perf_counter() - begin))
    console = Console()
    console.print(_group_table(mixture))
    console.print(_plan_table(plans, milliseconds, cluster, budget, batch_size))
    console.print(_alternatives_table(plans, cost, cluster))
    memory = memory_of(config, cluster.ranks, budget.tokens, checkpointing, extras, savings=savings)
    rows = [(f"{name}, GiB", f"{size / 2**30:.1f}") for name, size in asdict(memory).items()]
    if measured is not None or tflops is not None:
        # a measured cost is in seconds, any other in operations
        slowest = [p.balanced.load.max() for p in plans]
        seconds = float(np.mean(slowest)) / (1 if measured is not None or tflops is None else tflops * 1e12)
        name = "as measured" if measured is not None else f"at {tflops:g} TFLOP/s"
        rows.append((f"seconds per step, {name}", f"{seconds:.2f}"))
        rows.append(("days for the paper's 56,000 steps", f"{56_000 * seconds / 86_400:.1f}"))
    console.print(_estimate_table(rows))
    if picture is not None:
        draw(plans, cost, cluster, picture)
        console.print(f"drawn to {picture}")


def _group_table(mixture: Mixture) -> Table:
    """How often each group of rows is visited."""
    from rich.table import Table

    table = Table("group", "rows", "visits", title="mixture, by count x ratio")
    part = shares(mixture.rows)
    for group in dict.fromkeys(row.group for row in mixture.rows.values()):
        names = [name for name, row in mixture.rows.items() if row.group == group]
        table.add_row(group, str(len(names)), f"{sum(part[n] for n in names):.1%}")
    return table


def _plan_table(
    plans: list[StepPlan], milliseconds: list[float], cluster: Cluster, budget: Budget, batch_size: int
) -> Table:
    """How even the plans are, and how full."""
    from rich.table import Table

    title = (
        f"{len(plans)} steps of {batch_size} samples on {cluster.ranks} ranks, lengths drawn, not measured"
    )
    table = Table("", "mean", "worst", title=title)
    batches = [len(b) for plan in plans for b in plan.micro]
    for name, values, form in (
        (WAITED, [p.balanced.imbalance for p in plans], "{:.4f}"),
        ("tokens in split sequences", [p.split_tokens for p in plans], "{:.1%}"),
        ("tokens per step", [float(p.lengths.sum()) for p in plans], "{:,.0f}"),
        ("micro-batches per rank", [float(n) for n in batches], "{:.2f}"),
        ("padding to full micro-batches", [p.padding(budget.tokens) for p in plans], "{:.1%}"),
        ("milliseconds per plan", milliseconds, "{:.1f}"),
    ):
        table.add_row(name, form.format(np.mean(values)), form.format(np.max(values)))
    return table


def _alternatives_table(plans: list[StepPlan], cost: CostModel, cluster: Cluster) -> Table:
    """The same steps shared out in other ways, in the same cost; none of them is bound by a budget."""
    from rich.table import Table

    table = Table("the same steps", "mean", "worst", "tokens split", title=WAITED)
    ways = {"as planned": [Alternative(p.balanced.imbalance, p.split_tokens) for p in plans]}
    for plan in plans:
        for name, way in alternatives(plan.lengths, cost, cluster).items():
            ways.setdefault(name, []).append(way)
    for name, each in ways.items():
        over = [way.imbalance for way in each]
        split = float(np.mean([way.split for way in each]))
        table.add_row(name, f"{np.mean(over):.4f}", f"{np.max(over):.4f}", f"{split:.1%}")
    return table


def _estimate_table(rows: list[tuple[str, str]]) -> Table:
    """What a rank needs, in memory and time."""
    from rich.table import Table

    table = Table("", "", title="estimates for a rank, weights shared out among all", show_header=False)
    for row in rows:
        table.add_row(*row)
    return table
