"""Commands about a training before it is run: what a model costs, how its steps are planned.

Apart from `model.cli`, which starts them; nothing heavy is imported before it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from model.config import ModelConfig
from model.data.mixture import read_mixture
from model.net.activation_checkpointing import Checkpointing
from model.planner.balance import Budget, Cluster
from model.planner.calibrate import report as calibration_report
from model.planner.report import report
from model.planner.summary import describe, with_widths
from shards.devices import choose_device


def info(model: ModelConfig = ModelConfig(), tokens: tuple[int, ...] = (17_652, 34_342)) -> int:  # noqa: B008
    """Say how large a model is and how much work an edit is.

    Args:
        model: a configuration, e.g. --model configs/model/2b.yaml.
        tokens: lengths of sequences, half of which is the clip to be made.
    """
    describe(model, list(tokens))
    return 0


def plan(
    mixture: Path,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    ranks: int = 8,
    node: int = 8,
    degree: int | None = None,
    batch_size: int = 256,
    token_budget: int = 65_536,
    flop_budget: float = float("inf"),
    steps: int = 20,
    first: int = 0,
    seed: int = 0,
    checkpointing: Checkpointing = "none",
    tflops: float | None = None,
    picture: Path | None = None,
    cost: Path | None = None,
) -> int:
    """Plan training steps of a mixture on a cluster and say how even they are; nothing is loaded.

    Args:
        mixture: a file of configs/train/mixtures.
        model: whose work is planned, e.g. --model configs/model/2b.yaml.
        ranks: of the cluster.
        node: ranks of a node.
        degree: most ranks that share a sequence; as many as a node and the heads allow when not given.
        batch_size: samples per step.
        token_budget: most tokens of a micro-batch on one rank.
        flop_budget: most operations of a micro-batch on one rank.
        steps: how many are planned.
        first: number of the first one.
        seed: of the order and of lengths where there is no data.
        checkpointing: of activations, as for fit; memory and work depend on it.
        tflops: operations per second that a device really does, in 10^12, to estimate the time from.
        picture: PNG to draw the plans into.
        cost: file that the command cost wrote, to plan by and to estimate the time from.
    """
    heads = model.dit.heads
    cluster = Cluster(ranks, node, min(node, ranks, heads) if degree is None else degree, heads)
    budget = Budget(token_budget, flop_budget)
    mix = read_mixture(mixture)
    options = checkpointing, tflops, picture, cost, model.extras
    report(mix, with_widths(model), cluster, budget, batch_size, steps, first, seed, *options)
    return 0


def cost(
    out: Path,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    token_budget: int = 16_384,
    device: str = "auto",
    checkpointing: Checkpointing = "none",
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed",
) -> int:
    """Measure what micro-batches cost on this device, for plans by seconds (parallel.cost, plan --cost).

    Args:
        out: JSON file to write.
        model: whose blocks are timed, with random weights.
        token_budget: largest micro-batch.
        device: auto, cpu or cuda.
        checkpointing: of activations, as for fit.
        precision: as train.precision.
    """
    device = choose_device(device)
    calibration_report(with_widths(model), token_budget, device, checkpointing, precision, out, model.extras)
    return 0
