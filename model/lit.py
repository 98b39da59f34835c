"""One optimizer step: noise the targets, predict, weigh, step; and the moving average of the weights.

A thin LightningModule; what is learned from is made in `data`, what the numbers mean is in `flow`.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import lightning as L
import torch
from torch import Tensor

from model.config import ModelConfig
from model.data import MicroBatch, StepBatch
from model.dit import DiT
from model.flow import interpolate, target_velocity, to_velocity, token_loss
from model.settings import OptimConfig


def learning_rate(step: int, last: int, config: OptimConfig) -> float:
    """Rate of step `step` (from 0) of `last`: linear warm-up, then a cosine from `lr` to `final_lr`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, last - config.warmup)
    return config.final_lr + (config.lr - config.final_lr) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def micro_loss(dit: DiT, micro: MicroBatch, config: ModelConfig) -> Tensor:
    """Weighted squared error of the velocity per target token, float32 [M].

    With a copy head it is the mean over the mixture and what was generated alone: what is copied away would
    not be learned otherwise.
    """
    batch = micro.batch
    t = micro.time[batch.target_sequence, None]
    clean = batch.vision[batch.target_vision]
    noisy = interpolate(micro.noise, clean, t)
    vision = batch.vision.index_copy(0, batch.target_vision, noisy)
    timestep = torch.ones(batch.segments, device=t.device)
    timestep[batch.target_segment] = micro.time
    wanted = target_velocity(micro.noise, clean, noisy, t, config.flow)
    losses = [
        token_loss(to_velocity(output.float(), noisy, t, config.flow, config.flow.floor), wanted)
        for output in dit(batch, vision, timestep)
    ]
    return micro.weight * torch.stack(losses).mean(0)


def token_shares(step: StepBatch, average: str) -> list[Tensor]:
    """Per micro-batch each target token's share of the step's loss; all shares of a step add up to 1."""
    samples = sum(len(m.keys) for m in step.micro)
    tokens = sum(len(m.noise) for m in step.micro)
    shares = []
    for m in step.micro:
        if average == "token":
            shares.append(torch.full((len(m.noise),), 1 / tokens, device=m.noise.device))
        else:
            sizes = torch.bincount(m.batch.target_sequence, minlength=len(m.keys))
            shares.append(1 / (samples * sizes[m.batch.target_sequence]))
    return shares


class EditModule(L.LightningModule):
    """Trains a DiT; `ema` is a second DiT with averaged weights."""

    def __init__(
        self, config: ModelConfig, optim: OptimConfig, last_step: int, dit: DiT | None = None
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # a step has as many micro-batches as its plan says
        self.config, self.optim, self.last_step = config, optim, last_step
        self.dit = dit if dit is not None else DiT(config.dit)  # else with weights, or an adapter in it
        self.ema = copy.deepcopy(self.dit).requires_grad_(False)
        self.done = 0  # optimizer steps taken, over all runs that were resumed
        self.row: dict[str, float] = {}  # what the last step measured

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW without decay on vectors (norms, biases, bounds) and modulation tables."""
        plain = {
            id(p) for n, p in self.dit.named_parameters() if p.ndim < 2 or n.endswith(("table", "bounds"))
        }
        trained = [p for p in self.dit.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if id(p) not in plain]},
            {"params": [p for p in trained if id(p) in plain], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        betas = (self.optim.betas[0], self.optim.betas[1])
        return torch.optim.AdamW(
            groups, lr=self.optim.lr, betas=betas, weight_decay=self.optim.weight_decay, fused=True
        )

    def transfer_batch_to_device(self, batch: StepBatch, device: torch.device, _: int) -> StepBatch:
        """Lightning's hook: copy a step."""
        return batch.to(device)

    def training_step(self, batch: StepBatch, _: int) -> None:
        """Accumulate the gradients of all micro-batches, then step once."""
        optimizer: Any = self.optimizers()
        rate = learning_rate(self.done, self.last_step, self.optim)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        for micro, share in zip(batch.micro, token_shares(batch, self.optim.average), strict=True):
            loss = (share * micro_loss(self.dit, micro, self.config)).sum()
            self.manual_backward(loss)
            total += loss.detach()
        clip = self.optim.clip if self.optim.clip and self.done >= self.optim.warmup else math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.dit.parameters(), clip)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"step {self.done}: the gradient is not finite (loss {total.item()})")
        optimizer.step()
        self.done += 1
        self._average()
        self.row = {"loss": total.item(), "lr": rate, "grad_norm": norm.item()}
        self.log("loss", total, prog_bar=True, logger=False)

    @torch.no_grad()
    def _average(self) -> None:
        """ema = d ema + (1 - d) weights, d = min(ema, (1 + n) / (10 + n)) so that the start is forgotten."""
        decay = min(self.optim.ema, (1 + self.done) / (10 + self.done)) if self.optim.ema else 0.0
        ours: list[Tensor] = list(self.ema.parameters())
        theirs: list[Tensor] = list(self.dit.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - decay)
