"""One optimizer step: noise the targets, predict, weigh, step; and the moving average of the weights.

A thin LightningModule; what is learned from is made in `data`, what the numbers mean is in `flow`.
"""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from model.config import ModelConfig
from model.data.batch import Groups, MicroBatch, StepBatch
from model.distillation.objective import Distillation
from model.flow.flow_matching import interpolate, target_velocity, to_velocity, token_loss
from model.inference.lora import LoraConfig
from model.net.distributed import World
from model.net.families import build_transformer
from model.net.transformer import Transformer
from model.training.config import OptimConfig, ParallelConfig
from model.training.fsdp import (
    before_micro_batch,
    gathered,
    mesh_of,
    reduce_gradients,
    shard,
    whole_on_main,
)
from model.training.optimizer import optimizer_of
from shards.errors import EditVerseError

log = logging.getLogger(__name__)
BINS = 10  # of the timestep, for the breakdown of the loss


class DivergedError(EditVerseError, FloatingPointError):
    """A step whose gradient is not finite: its state is not saved."""


def learning_rate(step: int, last: int, config: OptimConfig) -> float:
    """Rate of step `step` (from 0) of `last`: linear warm-up, then a cosine from `lr` to `final_lr`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, last - config.warmup)
    return config.final_lr + (config.lr - config.final_lr) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def micro_loss(dit: Transformer, micro: MicroBatch, config: ModelConfig) -> Tensor:
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
        token_loss(to_velocity(output.float(), noisy, t, config.flow, config.flow.min_remaining), wanted)
        for output in dit(batch, vision, timestep)
    ]
    return micro.weight * torch.stack(losses).mean(0)


def token_shares(step: StepBatch, average: str, tokens: Tensor | None = None) -> list[Tensor]:
    """Per micro-batch each target token's share of the step's loss.

    All shares add up to 1 over the micro-batches of all ranks.

    Args:
        tokens: scalar, target tokens of the step on all ranks; those of `step` when not given.
    """
    if average == "sample":
        return [1 / (step.samples * m.size[m.batch.target_sequence]) for m in step.micro]
    if tokens is None:
        tokens = torch.tensor(sum(len(m.noise) for m in step.micro))
    share = 1 / tokens.clamp(min=1).double()
    return [share.to(m.noise).expand(len(m.noise)) for m in step.micro]


class EditModule(L.LightningModule):
    """Trains a DiT; `ema` is a second DiT with averaged weights."""

    def __init__(
        self,
        config: ModelConfig,
        optim: OptimConfig,
        last_step: int,
        dit: Transformer | None = None,
        world: World = World(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # a step has as many micro-batches as its plan says
        self.config, self.optim, self.last_step, self.world = config, optim, last_step, world
        # one that is given has weights, or an adapter in it
        self.dit = dit if dit is not None else build_transformer(config.network, config.extras)
        # what is not trained is its own average: it is shared, not copied
        frozen = {id(p): p for p in self.dit.parameters() if not p.requires_grad}
        self.ema = copy.deepcopy(self.dit, frozen).requires_grad_(False)
        self.lora: LoraConfig | None = None  # of the adapter in `dit`, if any
        self.distillation: Distillation | None = None  # what is learned instead of the data's velocity
        self.reshard = False  # see `ParallelConfig`
        self.groups = Groups()  # whose losses are reported one by one
        self.done = 0  # optimizer steps taken, over all runs that were resumed
        self.metrics: dict[str, float] = {}  # what the last step measured
        self.losses_by_group: dict[str, float] = {}  # its losses by task, data set and timestep
        self.stop_requested = False  # set by a signal on this rank; `stopping` once all ranks know
        self.stopping = False
        self.interrupted = False  # the signal was Ctrl-C
        self.skipped = 0  # steps without an update, since the run was started or resumed
        self._skipped_in_a_row = 0

    def shard(self, parallel: ParallelConfig, device: str) -> None:
        """Share weights, their average and the optimizer's state out among the ranks."""
        self.reshard = parallel.reshard
        mesh = mesh_of(self.world, parallel.sharding, device)
        shard(self.dit, mesh, parallel.gather, parallel.reshard)
        shard(self.ema, mesh, reshard=True)
        frozen = {n: p for n, p in self.dit.named_parameters() if not p.requires_grad}
        self.ema.load_state_dict(frozen, strict=False, assign=True)

    def configure_model(self) -> None:
        """Lightning's hook; `shard` was called before, since the state is read into shards."""

    def averaged_weights(self) -> dict[str, Tensor]:
        """The averaged weights that are trained, on the CPU of rank 0; none elsewhere. All ranks call it."""
        trained = {name for name, p in self.dit.named_parameters() if p.requires_grad}
        averages = ((name, p) for name, p in self.ema.named_parameters() if name in trained)
        return whole_on_main(averages, self.world)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Lightning's hook, see `optimizer_of`."""
        return optimizer_of(self.dit.named_parameters(), self.optim)

    def transfer_batch_to_device(self, batch: StepBatch, device: torch.device, _: int) -> StepBatch:
        """Lightning's hook: copy a step, if it is not there yet (`model.training.prefetch`)."""
        return batch.to(device)

    def _sum(self, values: Tensor) -> Tensor:
        """Sums over all ranks, in place; on a GPU nothing waits for them."""
        if self.world.world_size > 1:
            dist.all_reduce(values)
        return values

    def training_step(self, batch: StepBatch, _: int) -> None:
        """Accumulate the gradients of all micro-batches, then step once.

        The device is asked for numbers once a step, after the last backward pass: whether to step depends on
        them. While the optimizer and the average run, the host logs and prepares what comes next.
        """
        optimizer: Any = self.optimizers()
        rate = learning_rate(self.done, self.last_step, self.optim)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        shares = token_shares(batch, self.optim.loss_reduction, self._target_tokens(batch))
        names = [*self.groups.names, *(f"loss/t{b / BINS:.1f}" for b in range(BINS))]
        total = torch.zeros((), device=self.device)
        breakdown = torch.zeros(2, len(names), device=self.device, dtype=torch.float64)
        for number, (micro, share) in enumerate(zip(batch.micro, shares, strict=True), 1):
            before_micro_batch(self.dit, number == len(batch.micro), self.reshard)
            per_token = self.token_losses(self.dit, micro)
            loss = (share * per_token).sum()
            self.manual_backward(loss * self.world.world_size)  # FSDP divides what it sums
            total += loss.detach()
            self._accumulate_breakdown(micro, per_token.detach(), breakdown)
        reduce_gradients(self.dit, self.reshard)
        norm = self._clip()
        ours = [float(sum(m.tokens for m in batch.micro)), float(self.stop_requested)]
        tokens, stop, loss_sum, *values, gradient = self._read(ours, total, breakdown, norm)
        self.stopping = stop > 0
        if math.isfinite(gradient):
            optimizer.step()
            self._skipped_in_a_row = 0
        else:
            self._skip(batch, loss_sum)
        self.done += 1
        if not self._skipped_in_a_row:
            self._average()
        self.metrics = {"loss": loss_sum, "lr": rate, "grad_norm": gradient, "tokens": tokens}
        if self.skipped:
            self.metrics["skipped"] = float(self.skipped)
        sums, sizes = values[: len(names)], values[len(names) :]
        self.losses_by_group = {n: v / c for n, v, c in zip(names, sums, sizes, strict=True) if c > 0}

    def token_losses(self, network: Transformer, micro: MicroBatch) -> Tensor:
        """What is learned, per target token, float32 [M]; `network` is `dit` or `ema`."""
        if self.distillation is not None:
            return self.distillation.token_losses(network, micro)
        return micro_loss(network, micro, self.config)

    def _target_tokens(self, batch: StepBatch) -> Tensor | None:
        """Of the step on all ranks, on the device; None where the loss does not ask for them."""
        if self.optim.loss_reduction == "sample":
            return None
        own = sum(len(m.noise) for m in batch.micro)
        return self._sum(torch.full((), own, dtype=torch.float64, device=self.device))

    def _clip(self) -> Tensor:
        """Norm of the gradients, which are scaled down to `optim.clip` once the warm-up is over."""
        if self.optim.clip and self.done >= self.optim.warmup:
            return gathered(torch.nn.utils.clip_grad_norm_(self.dit.parameters(), self.optim.clip))
        gradients = [p.grad for p in self.dit.parameters() if p.grad is not None]
        return gathered(torch.nn.utils.get_total_norm(gradients))

    def _read(self, ours: list[float], total: Tensor, breakdown: Tensor, norm: Tensor) -> list[float]:
        """The step's numbers: sums over all ranks of the first three, and the norm, which all ranks have."""
        # a number that is filled in, unlike one that is copied, does not wait for the device
        filled = [torch.full((1,), n, dtype=torch.float64, device=self.device) for n in ours]
        summed = self._sum(torch.cat([*filled, total.double().view(1), breakdown.flatten()]))
        numbers: list[float] = torch.cat([summed, norm.detach().double().view(1)]).tolist()
        return numbers

    def _skip(self, batch: StepBatch, loss: float) -> None:
        """Count a step whose gradient is not finite, and name its samples on this rank.

        Raises:
            DivergedError: it is the last of as many in a row as `optim.max_skipped`.
        """
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= self.optim.max_skipped:
            raise DivergedError(
                f"step {self.done}: the gradient is not finite (loss {loss}), the {self._skipped_in_a_row}. "
                "time in a row; lower optim.lr, or lengthen optim.warmup"
            )
        keys = ", ".join(key for micro in batch.micro for key in micro.keys)
        log.warning("step %d: skipped, its gradient is not finite (loss %s): %s", self.done, loss, keys)

    def _accumulate_breakdown(self, micro: MicroBatch, per_token: Tensor, breakdown: Tensor) -> None:
        """Add each sequence's mean loss, and how much of it is here, to the sums of its groups."""
        sequence = micro.batch.target_sequence
        portion = (1 / micro.size.to(breakdown))[sequence]
        bins = (micro.time * BINS).long().clamp(max=BINS - 1) + len(self.groups.names)
        for row in (bins, *micro.groups):
            breakdown[0].index_add_(0, row[sequence], per_token.to(breakdown) * portion)
            breakdown[1].index_add_(0, row[sequence], portion)

    @torch.no_grad()
    def _average(self) -> None:
        """ema = d ema + (1 - d) weights, d = min(ema, (1 + n) / (10 + n)) so that the start is forgotten."""
        decay = min(self.optim.ema, (1 + self.done) / (10 + self.done)) if self.optim.ema else 0.0
        pairs = zip(self.ema.parameters(), self.dit.parameters(), strict=True)
        trained: list[tuple[Tensor, Tensor]] = [(a, w) for a, w in pairs if w.requires_grad]
        ours, theirs = [a for a, _ in trained], [w for _, w in trained]
        torch._foreach_lerp_(ours, theirs, 1 - decay)
