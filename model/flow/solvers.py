"""Solvers of dx/dt = velocity(x, t) from noise (t = 0) to data (t = 1), along a given grid of times.

Each yields x after every step, so that the caller can show progress or stop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
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


def unipc(velocity: Velocity, x: Tensor, grid: list[float]) -> Iterator[Tensor]:
    """Multistep, second order, one evaluation per step: UniPC (Zhao et al. 2023) as diffusers has it.

    diffusers counts noise, sigma = 1 - t, and its velocity is dx/dsigma. Its first sigma is 1 - 1e-6.
    """
    scheduler = _scheduler(grid, x.device)
    for t, moment in zip(grid[:-1], scheduler.timesteps, strict=True):
        x = scheduler.step(-velocity(x, t), moment, x, return_dict=False)[0]
        yield x


def _scheduler(grid: list[float], device: torch.device) -> Any:
    from diffusers import UniPCMultistepScheduler

    scheduler: Any = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(sigmas=1 - np.array(grid[:-1]), device=device)
    return scheduler


def whole_times(grid: list[float]) -> dict[float, float]:
    """What `WanPipeline` tells the network at each time of a grid: noise in whole thousandths, cut off."""
    moments = _scheduler(grid, torch.device("cpu")).timesteps.tolist()
    return {t: 1 - moment / 1000 for t, moment in zip(grid[:-1], moments, strict=True)}


SOLVERS = {"euler": euler, "midpoint": midpoint, "unipc": unipc, "unipc_wan": unipc}
