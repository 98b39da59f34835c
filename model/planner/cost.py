"""What a sequence costs to train on: linear in its tokens plus quadratic for attention.

`by_formula` counts operations; `fit` measures: the coefficients then are seconds of a machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.planner.flops import Sizes, blocks_work
from shards.errors import ConfigError, EditVerseError, SettingError
from shards.limits import read_json

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CostModel:
    """cost(L) = linear L + quadratic L^2 of a sequence of L tokens, forward and backward.

    The unit is of no consequence to a plan; a `flop_budget` is in the same one.

    Attributes:
        linear: per token; quadratic: per pair of tokens.
        step: of a micro-batch whatever it holds (kernel launches, gathering weights).
    """

    linear: float
    quadratic: float
    step: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.linear < math.inf or not all(0 <= n < math.inf for n in (self.quadratic, self.step)):
            raise SettingError(
                f"cost: linear {self.linear} must be above 0, quadratic {self.quadratic} and "
                f"step {self.step} not below"
            )

    def of(self, lengths: ArrayLike) -> Floats:
        """Cost of each sequence, float64, for lengths in tokens."""
        tokens = np.asarray(lengths, np.float64)
        return self.linear * tokens + self.quadratic * tokens * tokens


def read_cost(path: str | Path) -> CostModel:
    """The coefficients that `python -m model cost` wrote, in seconds; raises ConfigError naming the file."""
    try:
        value = read_json(path)
        return CostModel(*(float(value[name]) for name in ("linear", "quadratic", "step")))
    except (OSError, ValueError, ArithmeticError, KeyError, TypeError, EditVerseError) as error:
        raise ConfigError(
            f"{path}: not a measured cost ({error}); `python -m model cost` writes one"
        ) from error


def by_formula(config: Sizes, backward: float = 2.0) -> CostModel:
    """Operations of the blocks by `model.planner.flops`, under `context: full`.

    In Wan's family every token meets a full prompt; what a prompt itself costs is left out.

    Args:
        backward: work of the backward pass as a multiple of the forward's; full activation checkpointing
            runs the forward again: 3.
    """
    token, pair = (blocks_work(config, *counts).flops for counts in ((1, 0), (0, 1)))
    return CostModel((1 + backward) * token, (1 + backward) * pair)


def cost_of(config: Sizes, full_checkpointing: bool, measured: str | Path | None) -> CostModel:
    """What plans go by: the seconds in a file that `model cost` wrote if there is one, else operations."""
    if measured is not None:
        return read_cost(measured)
    # full checkpointing runs the forward pass again
    return by_formula(config, 3.0 if full_checkpointing else 2.0)


def fit(packs: Sequence[Sequence[int]], seconds: Sequence[float]) -> CostModel:
    """Coefficients, in seconds, that explain measured micro-batches (forward plus backward) best.

    Non-negative least squares of relative errors, so that short packs count as much as long ones.

    Args:
        packs: lengths of the sequences of each micro-batch; seconds: what each took.

    Raises:
        ValueError: fewer than three measurements, or lengths that do not vary enough to tell terms apart.
    """
    from scipy.optimize import nnls

    if len(packs) != len(seconds) or len(packs) < 3:
        raise SettingError(f"cost: {len(packs)} packs and {len(seconds)} timings; at least three of both")
    taken = np.asarray(seconds, np.float64)
    if (taken <= 0).any():
        raise SettingError("cost: a timing is not above 0")
    rows = np.array([[sum(p), sum(n * n for n in p), 1.0] for p in packs], np.float64)
    scale = rows.max(0)
    found, _ = nnls(rows / scale / taken[:, None], np.ones(len(taken)))
    linear, quadratic, step = found / scale
    if linear <= 0:
        raise SettingError(
            "cost: the measured packs do not tell linear and quadratic cost apart; vary lengths"
        )
    return CostModel(float(linear), float(quadratic), float(step))
