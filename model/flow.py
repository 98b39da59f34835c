"""Flow matching as pure functions: path, timesteps, loss, solvers, guidance.

Time runs from noise (t = 0) to clean data (t = 1): x_t = t x_1 + (1 - t) x_0 (paper, section 3.3).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class FlowConfig:
    """How timesteps are drawn and what the network's output means.

    Attributes:
        sampling: density of t before the shift. `logit_normal` is Esser et al. 2024, section 3.1.
        mean, std: of logit(t) under `logit_normal`.
        shift: > 1 spends more of training, and of the solver's steps, near noise (Esser et al. 2024, eq. 23);
            the same value serves training and inference.
        prediction: `velocity`: the output is x_1 - x_0, as in the paper. `clean`: the output is x_1 and the
            loss is still on the velocity that it implies. A network narrower than its tokens cannot carry the
            noise from input to output, which velocity asks of it; clean data asks only for the data.
        floor: in the loss of a clean prediction, the smallest 1 - t that its error is divided by; 1 is the
            plain squared error of the data. The solver always divides by 1 - t itself.
    """

    sampling: Literal["uniform", "logit_normal"] = "logit_normal"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0
    prediction: Literal["velocity", "clean"] = "velocity"
    floor: float = 0.05


def interpolate(x0: Tensor, x1: Tensor, t: Tensor | float) -> Tensor:
    """The point x_t = t x_1 + (1 - t) x_0 of the straight path from noise `x0` to data `x1`."""
    return t * x1 + (1 - t) * x0


def shift_time(t: Tensor, shift: float) -> Tensor:
    """Move times towards noise: the noise level s = 1 - t becomes shift s / (1 + (shift - 1) s).

    Keeps 0 and 1 where they are; shift = 1 is the identity.
    """
    noise = 1 - t
    return 1 - shift * noise / (1 + (shift - 1) * noise)


def draw_time(config: FlowConfig, generator: torch.Generator) -> Tensor:
    """One timestep in (0, 1), float32 scalar, from its own generator (randomness is keyed, not streamed)."""
    if config.sampling == "uniform":
        t = torch.rand((), generator=generator)
    else:
        t = torch.sigmoid(torch.randn((), generator=generator) * config.std + config.mean)
    return shift_time(t, config.shift)


def to_velocity(
    output: Tensor, xt: Tensor, t: Tensor | float, config: FlowConfig, floor: float = 1e-6
) -> Tensor:
    """The velocity that the network's output stands for.

    For `clean` it is (output - x_t) / (1 - t), with 1 - t held at `floor` or above.

    Args:
        output, xt: [N, D]; t: float or [N, 1].
    """
    if config.prediction == "velocity":
        return output
    remaining = torch.as_tensor(1 - t, dtype=xt.dtype, device=xt.device).clamp_min(floor)
    return (output - xt) / remaining


def target_velocity(x0: Tensor, x1: Tensor, xt: Tensor, t: Tensor, config: FlowConfig) -> Tensor:
    """What `to_velocity` with `config.floor` is compared with: x_1 - x_0.

    Under `clean` and within `floor` of t = 1 both sides are divided by the same floor, so that the error of
    the prediction is weighted by at most 1 / floor squared instead of a false residual being demanded.
    """
    if config.prediction == "velocity":
        return x1 - x0
    return to_velocity(x1, xt, t, config, config.floor)


def token_loss(velocity: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per token, float32 [N], of [N, D] velocities (the loss of section 3.3)."""
    return (velocity.float() - target.float()).square().mean(dim=-1)


def time_grid(steps: int, shift: float) -> list[float]:
    """`steps + 1` times from 0 to 1, shifted as in training; raises ValueError for fewer than one step."""
    if steps < 1:
        raise ValueError(f"steps: needs at least 1, got {steps}")
    return shift_time(torch.linspace(0, 1, steps + 1, dtype=torch.float64), shift).tolist()


def euler(velocity: Velocity, x: Tensor, grid: list[float]) -> Iterator[Tensor]:
    """Solve dx/dt = velocity(x, t) along `grid`, one evaluation per step; yields x after every step."""
    for t, after in itertools.pairwise(grid):
        x = x + (after - t) * velocity(x, t)
        yield x


def midpoint(velocity: Velocity, x: Tensor, grid: list[float]) -> Iterator[Tensor]:
    """Second order: two evaluations per step; yields x after every step."""
    for t, after in itertools.pairwise(grid):
        half = x + (after - t) / 2 * velocity(x, t)
        x = x + (after - t) * velocity(half, (t + after) / 2)
        yield x


SOLVERS = {"euler": euler, "midpoint": midpoint}


def guide(with_text: Tensor, without_text: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance on the text alone (Ho and Salimans 2022): scale 1 is no guidance."""
    return without_text + scale * (with_text - without_text)
