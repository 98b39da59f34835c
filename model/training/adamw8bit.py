"""AdamW whose moments are kept in 8 bits (Dettmers et al. 2022), also of weights that ranks share out.

A moment is a byte per weight, one of 256 values that lie closer together the smaller they are, times the
largest of 256 neighbours in a row. Rows are what ranks share out, so that a state can go on with any number
of ranks. Weights whose rows are no multiple of 256, and small ones, have moments in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from model.planner.allocations import MOMENT_BLOCK, eight_bit_blocks

EXPONENTS = 7  # decades, 1e-6 to 1
MOMENTS = {"exp_avg": True, "exp_avg_sq": False}  # whether it has a sign


class AdamW8bit(torch.optim.Optimizer):
    """As `torch.optim.AdamW`; updates are computed in float32, from moments before they are rounded."""

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float, eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all weights that have a gradient, one after the other."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if not self.state[parameter]:
                    self.state[parameter] = blank_moments(parameter)
                state = {name: _local(value) for name, value in self.state[parameter].items()}
                _update(_local(parameter.detach()), _local(parameter.grad).float(), state, group)
        return loss


def blank_moments(parameter: Tensor) -> dict[str, Tensor]:
    """The state of a weight before its first step: moments of zero, shared out as the weight is."""
    state = {"step": torch.zeros((), device=_local(parameter).device)}
    blocks = eight_bit_blocks(parameter.shape)
    for name in MOMENTS:
        dtype = torch.uint8 if blocks else torch.float32
        state[name] = torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
        if blocks:
            state[f"{name}_scale"] = _scales(parameter, blocks)
    return state


def _scales(parameter: Tensor, blocks: int) -> Tensor:
    """Float32 zeros [rows, blocks], shared out by rows where the weight is."""
    local = _local(parameter)
    zeros = torch.zeros(len(local), blocks, device=local.device)
    if not isinstance(parameter, DTensor):
        return zeros
    size = torch.Size([len(parameter), blocks])
    return DTensor.from_local(
        zeros, parameter.device_mesh, parameter.placements, run_check=False, shape=size, stride=(blocks, 1)
    )


def _local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def _update(weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """AdamW's step of one weight, in place; no number of it is asked for by the host."""
    first, second = group["betas"]
    state["step"] += 1
    m, v = (_read(state, name) for name in MOMENTS)
    m = m.lerp(gradient, 1 - first)
    v = v.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    _write(state, "exp_avg", m)
    _write(state, "exp_avg_sq", v)
    correction = (1 - second ** state["step"]).sqrt()
    rate = group["lr"] / (1 - first ** state["step"])
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    weight.sub_(m.mul_(rate).div_(v.sqrt_().div_(correction).add_(group["eps"])))


def _read(state: dict[str, Tensor], name: str) -> Tensor:
    """A moment in float32, to be changed."""
    codes, scale = state[name], state.get(f"{name}_scale")
    if scale is None:
        return codes.clone()
    table = dynamic_map(MOMENTS[name], codes.device)
    return (table.index_select(0, codes.flatten().int()).view(-1, MOMENT_BLOCK) * scale.view(-1, 1)).view_as(
        codes
    )


def _write(state: dict[str, Tensor], name: str, value: Tensor) -> None:
    codes, scale = state[name], state.get(f"{name}_scale")
    if scale is None:
        codes.copy_(value)
        return
    blocks = value.reshape(-1, MOMENT_BLOCK)
    scale.copy_(blocks.abs().amax(1).view_as(scale))
    table = dynamic_map(MOMENTS[name], codes.device)
    unit = blocks / scale.view(-1, 1).clamp(min=torch.finfo(torch.float32).tiny)
    nearest = torch.bucketize(unit, (table[1:] + table[:-1]) / 2)
    if not MOMENTS[name]:
        nearest = torch.maximum(nearest, unit > 0)  # a square that became 0 would make a step without end
    codes.copy_(nearest.view_as(codes))


@functools.lru_cache
def dynamic_map(signed: bool, device: torch.device) -> Tensor:
    """Float32 [256], ascending: values of the paper's dynamic tree, from -1 or 0 to 1.

    Every decade below 1 has twice as many, evenly spaced, as the decade before.
    """
    values = [0.0, 1.0]
    for exponent in range(EXPONENTS):
        ends = torch.linspace(0.1, 1, (1 if signed else 2) * 2**exponent + 1, dtype=torch.float64)
        means = 10.0 ** (exponent - EXPONENTS + 1) * (ends[1:] + ends[:-1]) / 2
        values += means.tolist() + ((-means).tolist() if signed else [])
    return torch.tensor(sorted(values), dtype=torch.float32, device=device)
