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
    """What a micro-batch costs each of the g ranks that share it, forward and backward.

    Of sequences of L tokens: sum of (linear L + quadratic L^2) / g, plus step; for g > 1 also exchange times
    (g - 1) / g^2 sum of L, which is how many of its tokens a rank sends to others, plus exchange_step.

    The unit is of no consequence to a plan; a `flop_budget` is in the same one.

    Attributes:
        linear: per token; quadratic: per pair of tokens.
        step: of a micro-batch whatever it holds (kernel launches).
        exchange: per token that is sent; exchange_step: of a shared micro-batch whatever it holds.
    """

    linear: float
    quadratic: float
    step: float = 0.0
    exchange: float = 0.0
    exchange_step: float = 0.0

    def __post_init__(self) -> None:
        others = (self.quadratic, self.step, self.exchange, self.exchange_step)
        if not 0 < self.linear < math.inf or not all(0 <= n < math.inf for n in others):
            raise SettingError(
                f"cost: linear {self.linear} must be above 0, and quadratic {self.quadratic}, step "
                f"{self.step}, exchange {self.exchange} and exchange_step {self.exchange_step} not below"
            )

    def of(self, lengths: ArrayLike, size: int = 1) -> Floats:
        """Cost of each sequence on each of the `size` ranks that share it, float64, for lengths in tokens."""
        tokens = np.asarray(lengths, np.float64)
        work = (self.linear + self.quadratic * tokens) * tokens
        if size == 1:
            return work
        return work / size + self.exchange * (size - 1) / size**2 * tokens

    def latency(self, size: int = 1) -> float:
        """Cost of a micro-batch that `size` ranks share whatever it holds."""
        return self.step + (self.exchange_step if size > 1 else 0.0)


def read_cost(path: str | Path) -> CostModel:
    """The coefficients that `python -m model cost` wrote, in seconds; raises ConfigError naming the file."""
    try:
        value = read_json(path)
        known = {name: float(value[name]) for name in ("linear", "quadratic", "step")}
        # files from before these were measured do without them
        known |= {name: float(value[name]) for name in ("exchange", "exchange_step") if name in value}
        return CostModel(**known)
    except (OSError, ValueError, ArithmeticError, KeyError, TypeError, EditVerseError) as error:
        raise ConfigError(
            f"{path}: not a measured cost ({error}); `python -m model cost` writes one"
        ) from error


def by_formula(config: Sizes, backward: float = 2.0) -> CostModel:
    """Operations of the blocks by `model.planner.flops`, under `context: full`.

    In Wan's family every token meets a full prompt; what a prompt itself costs is left out. Launching and
    sending cost nothing by operations: only measured costs know of them.

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


def fit(
    packs: Sequence[Sequence[int]], seconds: Sequence[float], sizes: Sequence[int] | None = None
) -> CostModel:
    """Coefficients, in seconds, that explain measured micro-batches (forward plus backward) best.

    Non-negative least squares of relative errors, so that short packs count as much as long ones.

    Args:
        packs: lengths of the sequences of each micro-batch; seconds: what each took.
        sizes: how many ranks shared each; one when not given, and sending then costs nothing.

    Raises:
        ValueError: fewer than three measurements, or lengths that do not vary enough to tell terms apart.
    """
    from scipy.optimize import nnls

    sizes = [1] * len(packs) if sizes is None else sizes
    if not len(packs) == len(seconds) == len(sizes) or len(packs) < 3:
        raise SettingError(f"cost: {len(packs)} packs and {len(seconds)} timings; at least three of both")
    taken = np.asarray(seconds, np.float64)
    if (taken <= 0).any():
        raise SettingError("cost: a timing is not above 0")
    rows = np.array([_terms(p, g) for p, g in zip(packs, sizes, strict=True)], np.float64)
    scale = np.maximum(rows.max(0), 1e-30)  # a term that never occurs is 0 in all rows, and in the result
    found, _ = nnls(rows / scale / taken[:, None], np.ones(len(taken)))
    coefficients = np.where(rows.max(0) > 0, found / scale, 0.0).tolist()
    if coefficients[0] <= 0:
        raise SettingError(
            "cost: the measured packs do not tell linear and quadratic cost apart; vary lengths"
        )
    return CostModel(*coefficients)


def _terms(lengths: Sequence[int], size: int) -> tuple[float, ...]:
    """What a micro-batch's cost is a sum of, in the order of `CostModel`'s coefficients."""
    tokens, pairs = sum(lengths), sum(n * n for n in lengths)
    sent = (size - 1) / size**2 * tokens
    return tokens / size, pairs / size, 1.0, sent, float(size > 1)
