"""Which optimizer trains which weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from model.training.config import OptimConfig

Groups = list[dict[str, Any]]


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` for some parameters and `torch.optim.AdamW` for the others, as one optimizer.

    Their parameter groups and state are this one's, so that schedules and checkpoints see a single one.
    Muon's updates are scaled to the size of AdamW's (`match_rms_adamw`): one learning rate serves both.

    Args:
        matrices: groups for Muon, of matrices alone; others: groups for AdamW.
    """

    def __init__(self, matrices: Groups, others: Groups, config: OptimConfig) -> None:
        muon = torch.optim.Muon(
            matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self.parts: tuple[torch.optim.Optimizer, ...] = (muon, adamw(others, config))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        for part in self.parts:
            part.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


def adamw(groups: Groups, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with the settings of a run."""
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)


def optimizer_of(named: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer of a transformer's parameters, of which those that need no gradient are left out.

    Vectors (norms, biases, bounds) and modulation tables are not decayed. Muon, if it is asked for, takes the
    matrices of the blocks; the projections in and out, which are no maps between hidden states, stay AdamW's
    (Jordan 2024).
    """
    matrices, decayed, plain = [], [], []
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or name.endswith(("table", "bounds")):
            plain.append(parameter)
        elif config.method == "muon" and name.startswith("blocks."):
            matrices.append(parameter)
        else:
            decayed.append(parameter)
    groups: Groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    others = [group for group in groups if group["params"]]
    return MuonAdamW([{"params": matrices}], others, config) if matrices else adamw(others, config)


def blank_state(optimizer: torch.optim.Optimizer) -> None:
    """Give every parameter the state that it has after a first step, all zeros, to be read into."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            zeros = torch.zeros_like(parameter, requires_grad=False)
            if "ns_steps" in group:
                state: dict[str, Tensor] = {"momentum_buffer": zeros}
            else:
                step = torch.zeros((), dtype=torch.float32)
                state = {"step": step, "exp_avg": zeros, "exp_avg_sq": torch.zeros_like(zeros)}
            optimizer.state[parameter] = state
