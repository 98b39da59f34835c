"""Solvers of dx/dt = velocity(x, t) from noise (t = 0) to data (t = 1), along a given grid of times.

Each yields x after every step, so that the caller can show progress or stop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]


def euler(velocity: Velocity, x: Tensor, grid: list[float]) -> Iterator[Tensor]:
    """First order, one evaluation per step."""
    for t, after in itertools.pairwise(grid):
        x = x + (after - t) * velocity(x, t)
        yield x


def midpoint(velocity: Velocity, x: Tensor, grid: list[float]) -> Iterator[Tensor]:
    """Second order, two evaluations per step."""
    for t, after in itertools.pairwise(grid):
        half = x + (after - t) / 2 * velocity(x, t)
        x = x + (after - t) * velocity(half, (t + after) / 2)
        yield x


def unipc(velocity: Velocity, x: Tensor, grid: list[float], whole: bool = False) -> Iterator[Tensor]:
    """Multistep, second order, one evaluation per step: UniPC (Zhao et al. 2023) as diffusers has it.

    diffusers counts noise, sigma = 1 - t, and its velocity is dx/dsigma. Its first sigma is 1 - 1e-6.

    Args:
        whole: tell the network the scheduler's own time steps, which are whole numbers of 1000.
    """
    from diffusers import UniPCMultistepScheduler

    scheduler: Any = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(sigmas=1 - np.array(grid[:-1]), device=x.device)
    for t, moment in zip(grid[:-1], scheduler.timesteps, strict=True):
        moment_of_network = 1 - float(moment) / 1000 if whole else t
        x = scheduler.step(-velocity(x, moment_of_network), moment, x, return_dict=False)[0]
        yield x


def unipc_wan(velocity: Velocity, x: Tensor, grid: list[float]) -> Iterator[Tensor]:
    """`unipc` as `WanPipeline` runs it: the network is told whole thousandths of the noise level, cut off."""
    return unipc(velocity, x, grid, whole=True)


SOLVERS = {"euler": euler, "midpoint": midpoint, "unipc": unipc, "unipc_wan": unipc_wan}
