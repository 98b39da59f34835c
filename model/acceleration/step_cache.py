"""Predictions taken again while the network's input has hardly moved: TeaCache (Liu et al. 2024).

What is measured is the input of the first block after its modulation by the timestep, of the target's tokens
alone. These are the same in all branches of the guidance, so that one sum serves them all: the network is
run in every branch or in none. Branches of different age would differ by more than their conditions, which
guidance multiplies. What is taken again is the network's output, of which a velocity is made at the time and
tokens of now: under a prediction of clean data the velocity goes on changing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Evaluations:
    """How often the network was asked for a prediction, branches counted one by one.

    Attributes:
        computed: runs of the network; reused: times that its last prediction was taken again.
    """

    computed: int = 0
    reused: int = 0

    def describe(self) -> str:
        """The share that was computed, in words; "" where that is all."""
        asked = self.computed + self.reused
        return f"{self.computed} of {asked} network evaluations computed" if self.reused else ""


class StepCache:
    """Says of each evaluation of a sampling run, in order, whether the network is to be run.

    Args:
        threshold: of the sum of relative changes since the network was last run.
        polynomial: see `fit_polynomial`; none is the change itself.
        after, before: times of evaluations that may be left out; those of the first and the last step of a
            solver are not.
    """

    def __init__(
        self, threshold: float, after: float, before: float, polynomial: Sequence[float] = ()
    ) -> None:
        self.threshold, self.after, self.before, self.polynomial = threshold, after, before, polynomial
        self._last: Tensor | None = None
        self._moved = 0.0

    def is_due(self, step_input: Tensor, t: float, needed: bool = False) -> bool:
        """Whether the network is to be run at time `t`.

        Args:
            step_input: [M, width], see `Transformer.step_input`.
            needed: it is run in any case.
        """
        last, self._last = self._last, step_input
        if last is not None:
            change = relative_change(step_input, last)
            # a fit may dip below zero; nothing moves back
            self._moved += max(0.0, float(np.polyval(self.polynomial, change))) if self.polynomial else change
        inside = self.after <= t < self.before
        due = needed or last is None or not inside or self._moved >= self.threshold
        if due:
            self._moved = 0.0
        return due


def relative_change(value: Tensor, last: Tensor) -> float:
    """Mean absolute difference over the mean absolute value before."""
    norm = last.abs().mean(dtype=torch.float32).clamp_min(torch.finfo(torch.float32).tiny)
    return float((value - last).abs().mean(dtype=torch.float32) / norm)


class Recorder:
    """What a polynomial is fitted to: changes from one evaluation to the next, of input and prediction."""

    def __init__(self) -> None:
        self.inputs: list[float] = []
        self.outputs: list[float] = []
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, step_input: Tensor, prediction: Tensor) -> None:
        """Take the next evaluation of a sampling run; both are of the target's tokens."""
        if self._last is not None:
            self.inputs.append(relative_change(step_input, self._last[0]))
            self.outputs.append(relative_change(prediction, self._last[1]))
        self._last = step_input, prediction

    def restart(self) -> None:
        """Begin another sampling run."""
        self._last = None


def fit_polynomial(inputs: Sequence[float], outputs: Sequence[float], degree: int = 4) -> tuple[float, ...]:
    """Coefficients, the highest power first, of the relative change of a prediction given that of the input.

    TeaCache's fit, by least squares.

    Raises:
        ValueError: there are not more pairs than coefficients.
    """
    if len(inputs) <= degree + 1:
        raise ValueError(f"a polynomial of degree {degree} needs more than {degree + 1} evaluations to fit")
    return tuple(np.polyfit(inputs, outputs, degree).tolist())
