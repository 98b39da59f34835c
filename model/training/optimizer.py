"""Which optimizer trains which weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.training.adamw8bit import AdamW8bit, blank_moments
from model.training.config import OptimConfig

Groups = list[dict[str, Any]]


class Parts(torch.optim.Optimizer):
    """Optimizers of some weights each, as one.

    Their parameter groups and state are this one's, so that schedules and checkpoints see a single one.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        for part in self.parts:
            part.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each in turn."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            self.step_part(part)
        return loss

    def step_part(self, part: torch.optim.Optimizer) -> None:
        """One step of one of them."""
        part.step()


class MuonAdamW(Parts):
    """`torch.optim.Muon` for some parameters and `torch.optim.AdamW` for the others.

    Muon's updates are scaled to the size of AdamW's (`match_rms_adamw`): one learning rate serves both.

    Args:
        matrices: groups for Muon, of matrices alone; others: groups for AdamW.
    """

    def __init__(self, matrices: Groups, others: Groups, config: OptimConfig) -> None:
        muon = torch.optim.Muon(
            matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        super().__init__((muon, adamw(others, config)))


class OffloadedOptimizer(Parts):
    """Parts whose state waits in the memory of the CPU while others step.

    Copies are not overlapped with anything.
    """

    def step_part(self, part: torch.optim.Optimizer) -> None:
        """One step of one, whose state comes and goes."""
        self.move(part, home=False)
        part.step()
        self.move(part, home=True)

    @torch.no_grad()
    def move(self, part: torch.optim.Optimizer, home: bool) -> None:
        """Bring the state of a part's weights to where they are, or home to the CPU."""
        for parameter in (p for group in part.param_groups for p in group["params"]):
            state = self.state.get(parameter, {})
            for name, value in state.items():
                if value.ndim:  # what is counted stays
                    state[name] = value.to("cpu" if home else parameter.device)


def adamw(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW with the settings of a run."""
    betas = (config.betas[0], config.betas[1])
    decay, eps = config.weight_decay, config.eps
    if config.method == "adamw8bit":
        return AdamW8bit(groups, lr=config.lr, betas=betas, weight_decay=decay, eps=eps)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, weight_decay=decay, eps=eps, fused=True)


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


def offloaded(named: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> OffloadedOptimizer:
    """As `optimizer_of`, block by block, with the state in the memory of the CPU."""
    by_block: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            block = ".".join(name.split(".")[:2]) if name.startswith("blocks.") else ""
            by_block.setdefault(block, []).append((name, parameter))
    made = [optimizer_of(weights, config) for weights in by_block.values()]
    parts = [part for each in made for part in (each.parts if isinstance(each, MuonAdamW) else (each,))]
    return OffloadedOptimizer(parts)


def blank_state(optimizer: torch.optim.Optimizer) -> None:
    """Give every parameter the state that it has after a first step, all zeros, to be read into."""
    if isinstance(optimizer, OffloadedOptimizer):
        for part in optimizer.parts:
            blank_state(part)
            optimizer.move(part, home=True)
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if isinstance(optimizer, AdamW8bit):
                optimizer.state[parameter] = blank_moments(parameter)
                continue
            zeros = torch.zeros_like(parameter, requires_grad=False)
            if "ns_steps" in group:
                state: dict[str, Tensor] = {"momentum_buffer": zeros}
            else:
                step = torch.zeros((), dtype=torch.float32)
                state = {"step": step, "exp_avg": zeros, "exp_avg_sq": torch.zeros_like(zeros)}
            optimizer.state[parameter] = state
