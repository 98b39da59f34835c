"""Flow matching as pure functions: path, timesteps, loss, guidance; the solvers are in `model.flow.solvers`.

Time runs from noise (t = 0) to clean data (t = 1): x_t = t x_1 + (1 - t) x_0 (paper, section 3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from shards.errors import SettingError
from shards.limits import in_range

Sampling = Literal["uniform", "logit_normal", "mode"]


@dataclass(frozen=True)
class FlowConfig:
    """How timesteps are drawn and what the network's output means.

    Attributes:
        sampling: density of t before the shift: `uniform`, or of Esser et al. 2024, section 3.1,
            `logit_normal` (most of training between noise and data) or `mode` (a heavy-tailed one).
        logit_mean, logit_std: of logit(t) under `logit_normal`.
        mode_scale: of `mode`, from -1 to 2 / (pi - 2); 0 is uniform, above it the middle is favoured.
        shift: > 1 spends more of training, and of the solver's steps, near noise (Esser et al. 2024, eq. 23);
            the same value serves training and inference, see `shift_of`.
        shift_tokens: 0 uses `shift` for every size. Else `shift` is meant for a target of so many vision
            tokens, and grows with the square root of their number: larger pictures need more noise to be
            hidden equally well.
        prediction: `velocity`: the output is x_1 - x_0, as in the paper. `x1`: the output is x_1 and the loss
            is still on the velocity that it implies. A network narrower than its tokens cannot carry the
            noise from input to output, which velocity asks of it; clean data asks only for the data.
        min_remaining: in the loss of an `x1` prediction, the smallest 1 - t that its error is divided by; 1
            is the plain squared error of the data. The solver always divides by 1 - t itself.
    """

    sampling: Sampling = "logit_normal"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    mode_scale: float = 1.29
    shift: float = 1.0
    shift_tokens: int = 0
    prediction: Literal["velocity", "x1"] = "velocity"
    min_remaining: float = 0.05

    def __post_init__(self) -> None:
        if self.sampling not in get_args(Sampling):
            raise SettingError(f"flow.sampling: {self.sampling!r} is none of {', '.join(get_args(Sampling))}")
        if not self.shift > 0 or self.shift_tokens < 0:
            raise SettingError(
                f"flow.shift {self.shift} and shift_tokens {self.shift_tokens}: must be positive"
            )
        in_range("flow.shift", self.shift, 1e-6, 1e6)
        in_range("flow.shift_tokens", self.shift_tokens, 0, 1 << 40)
        in_range("flow.logit_mean", self.logit_mean, -100, 100)
        in_range("flow.logit_std", self.logit_std, 1e-6, 100)
        if not -1 <= self.mode_scale <= 2 / (math.pi - 2):
            raise SettingError(f"flow.mode_scale {self.mode_scale}: between -1 and 2 / (pi - 2) = 1.75")
        if not 0 < self.min_remaining <= 1:
            raise SettingError(f"flow.min_remaining {self.min_remaining}: above 0, at most 1")


def interpolate(x0: Tensor, x1: Tensor, t: Tensor | float) -> Tensor:
    """The point x_t = t x_1 + (1 - t) x_0 of the straight path from noise `x0` to data `x1`."""
    return t * x1 + (1 - t) * x0


def shift_time(t: Tensor, shift: float) -> Tensor:
    """Move times towards noise: the noise level s = 1 - t becomes shift s / (1 + (shift - 1) s).

    Keeps 0 and 1 where they are; shift = 1 is the identity.
    """
    noise = 1 - t
    return 1 - shift * noise / (1 + (shift - 1) * noise)


def shift_of(config: FlowConfig, tokens: int) -> float:
    """The shift for a target of `tokens` vision tokens: config.shift * sqrt(tokens / shift_tokens).

    Esser et al. 2024, section 5.3.2 (m / n there is a ratio of pixels); a video counts all its frames.
    """
    return config.shift * math.sqrt(tokens / config.shift_tokens) if config.shift_tokens else config.shift


def draw_time(config: FlowConfig, generator: torch.Generator, tokens: int) -> Tensor:
    """One timestep in (0, 1) for a target of `tokens` vision tokens, float32 scalar.

    It has its own generator: randomness is keyed, not streamed.
    """
    if config.sampling == "logit_normal":
        t = torch.sigmoid(torch.randn((), generator=generator) * config.logit_std + config.logit_mean)
    else:
        t = torch.rand((), generator=generator)
        if config.sampling == "mode":
            t = t + config.mode_scale * (torch.cos(math.pi / 2 * t) ** 2 - 1 + t)
    return shift_time(t, shift_of(config, tokens))


def to_velocity(
    output: Tensor, xt: Tensor, t: Tensor | float, config: FlowConfig, min_remaining: float = 1e-6
) -> Tensor:
    """The velocity that the network's output stands for.

    For `x1` it is (output - x_t) / (1 - t), with 1 - t held at `min_remaining` or above.

    Args:
        output, xt: [N, D]; t: float or [N, 1].
    """
    if config.prediction == "velocity":
        return output
    remaining = torch.as_tensor(1 - t, dtype=xt.dtype, device=xt.device).clamp_min(min_remaining)
    return (output - xt) / remaining


def target_velocity(x0: Tensor, x1: Tensor, xt: Tensor, t: Tensor, config: FlowConfig) -> Tensor:
    """What `to_velocity` with `config.min_remaining` is compared with: x_1 - x_0.

    Under `x1` and within `min_remaining` of t = 1 both sides are divided by that, so that the error of the
    prediction is weighted by at most 1 / min_remaining squared instead of a false residual being demanded.
    """
    if config.prediction == "velocity":
        return x1 - x0
    return to_velocity(x1, xt, t, config, config.min_remaining)


def token_loss(velocity: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per token, float32 [N], of [N, D] velocities (the loss of section 3.3)."""
    return (velocity.float() - target.float()).square().mean(dim=-1)


def time_grid(steps: int, shift: float) -> list[float]:
    """`steps + 1` times from 0 to 1, shifted as in training; raises ValueError for fewer than one step."""
    if steps < 1:
        raise SettingError(f"steps: needs at least 1, got {steps}")
    return shift_time(torch.linspace(0, 1, steps + 1, dtype=torch.float64), shift).tolist()


def wan_grid(steps: int, shift: float) -> list[float]:
    """As `time_grid`, but the times of Wan's pipeline: noise levels from 1 evenly towards 1/1000, shifted.

    That is what diffusers' `UniPCMultistepScheduler` makes of `flow_shift` and `use_flow_sigmas`.
    """
    if steps < 1:
        raise SettingError(f"steps: needs at least 1, got {steps}")
    noise = torch.linspace(1, 1 / 1000, steps + 1, dtype=torch.float64)[:-1]
    return [*(1 - shift * noise / (1 + (shift - 1) * noise)).tolist(), 1.0]
