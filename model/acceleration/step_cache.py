"""Predictions taken again while the network's input has hardly moved: TeaCache (Liu et al. 2024).

What is measured is the input of the first block after its modulation by the timestep, of the target's tokens
alone. These are the same in all branches of the guidance, so that one sum serves them all: the network is
run in every branch or in none. Branches of different age would differ by more than their conditions, which
guidance multiplies. What is taken again is the network's output, of which a velocity is made at the time and
tokens of now: under a prediction of clean data the velocity goes on changing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.net.transformer import Transformer


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
        polynomial: see `Recorder.fit`; none is the change itself.
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
            self._moved += _rescaled(relative_change(step_input, last), self.polynomial)
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
    """Watches a network that is sampled from, for what a polynomial and a threshold are fitted to.

    As a context manager; the first branch of a guidance is watched, and a solver whose times only grow.

    Attributes:
        inputs, outputs: of each sampling run, the changes of input and prediction between evaluations.
    """

    def __init__(self, network: Transformer) -> None:
        self.network = network
        self.inputs: list[list[float]] = []
        self.outputs: list[list[float]] = []
        self._time = math.inf
        self._last: tuple[Tensor, Tensor] | None = None

    def __enter__(self) -> Recorder:
        self._hook = self.network.register_forward_hook(self._record)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _record(self, _: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        batch, vision, timestep = inputs[:3]
        t = float(timestep[batch.target_segment[0]])
        if t == self._time:  # another branch
            return
        value = self.network.step_input(vision.index_select(0, batch.target_vision), t), output[0]
        if t < self._time or self._last is None:
            self.inputs.append([])
            self.outputs.append([])
        else:
            self.inputs[-1].append(relative_change(value[0], self._last[0]))
            self.outputs[-1].append(relative_change(value[1], self._last[1]))
        self._time, self._last = t, value

    def fit(self, degree: int = 4) -> tuple[float, ...]:
        """Coefficients, the highest power first, of the change of a prediction given that of the input.

        TeaCache's fit, by least squares over all runs.

        Raises:
            ValueError: there are not more changes than coefficients.
        """
        inputs, outputs = (np.concatenate(runs) for runs in (self.inputs, self.outputs))
        if len(inputs) <= degree + 1:
            raise ValueError(f"a polynomial of degree {degree} needs more than {degree + 1} changes to fit")
        return tuple(np.polyfit(inputs, outputs, degree).tolist())

    def threshold(self, share: float, polynomial: Sequence[float] = ()) -> float:
        """The smallest threshold under which at most a share of the evaluations of these runs is computed.

        Of a solver with one evaluation per step, of which the first and the last are computed always.
        """
        changes = [[_rescaled(change, polynomial) for change in run] for run in self.inputs]
        evaluations = sum(len(run) + 1 for run in changes)
        # the sums that a threshold may lie between
        sums = sorted({sum(run[i:j]) for run in changes for i in range(len(run)) for j in range(i, len(run))})
        low, high = 0, len(sums) - 1
        while low < high:
            middle = (low + high) // 2
            if sum(_computed(run, sums[middle] + 1e-9) for run in changes) <= share * evaluations:
                high = middle
            else:
                low = middle + 1
        return sums[low] + 1e-9


def _rescaled(change: float, polynomial: Sequence[float]) -> float:
    """What a change of the input does to the prediction; a fit may dip below zero, but nothing moves back."""
    return max(0.0, float(np.polyval(polynomial, change))) if polynomial else change


def _computed(changes: Sequence[float], threshold: float) -> int:
    """Evaluations of a run that are computed, given its changes."""
    computed, moved = 2, 0.0
    for change in changes[:-1]:
        moved += change
        if moved >= threshold:
            computed, moved = computed + 1, 0.0
    return computed
