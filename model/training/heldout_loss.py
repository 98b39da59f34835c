"""The flow loss of held-out samples, at times and noise that never change, so that it shows what is learned.

Computed by the packed path of training, with the averaged weights.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from model.data.batch import DataConfig, Example, collate
from model.data.dataset import EditDataset
from model.inference.offload import let_go
from model.training.config import FitConfig
from model.training.dataloader import EMPTY, SampleError, unreadable
from model.training.lockstep import lockstep
from model.training.module import EditModule
from shards.frames import evenly_spaced

log = logging.getLogger(__name__)

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # the middles of five equal strata


class HeldoutLoss:
    """The loss of some held-out samples of every row of a mixture.

    A sample counts as the mean over its target tokens and `TIMES` (of a distillation, the middles of its
    windows), of its first window, with its text and all
    sources, unweighted; a row as the mean over its samples, and `heldout/loss` is that over all of them.
    Nothing depends on the run's seed, steps or ranks.

    Args:
        pairs: the held-out samples.
        num_samples: of each row, spread over it.
        config: of the training; its token budget and what to do with a sample that cannot be read.
    """

    def __init__(self, pairs: EditDataset, num_samples: int, config: DataConfig) -> None:
        self.pairs, self.config = pairs, config
        self.rows: list[str] = []
        self._chosen: list[tuple[int, int]] = []  # number of the row, sample
        counts = [sum(sizes) for sizes in pairs.sizes]
        firsts = itertools.accumulate(counts, initial=0)
        for row, first, count in zip(pairs.rows, firsts, counts, strict=False):
            if count:
                spread = evenly_spaced(count, min(count, num_samples)).tolist()
                self._chosen += [(len(self.rows), first + place) for place in spread]
                self.rows.append(row)
        self._examples: list[tuple[int, Example]] | None = None  # of this rank; encoded once

    @property
    def names(self) -> list[str]:
        """What the losses are called: of all samples, then of each row where there are several."""
        rows = self.rows if len(self.rows) > 1 else []
        return ["heldout/loss", *(f"heldout/loss/{row}" for row in rows)]

    def __call__(self, module: EditModule, context: AbstractContextManager[object]) -> dict[str, float]:
        """The losses by name; all ranks call it together and share the samples.

        Args:
            context: of the run's precision.

        Raises:
            SampleError: a sample that cannot be read, on all ranks, unless such are replaced; then it is left
                out.
        """
        if self._examples is None:
            self._examples = self._encode(module)
        sums = torch.zeros(2, len(self.rows), dtype=torch.float64, device=module.device)
        with torch.no_grad(), context, lockstep(module.ema, lambda: self._add(module, [], sums)):
            times = TIMES if module.distillation is None else module.distillation.loss_times
            for pack in self._packs(self._examples, times):
                self._add(module, pack, sums)
        if module.world.world_size > 1:
            dist.all_reduce(sums)
        totals, numbers = sums.tolist()
        if not sum(numbers):
            return {}
        means = [
            total / number if number else float("nan") for total, number in zip(totals, numbers, strict=True)
        ]
        return dict(zip(self.names, [sum(totals) / sum(numbers), *means], strict=False))

    def _encode(self, module: EditModule) -> list[tuple[int, Example]]:
        """The examples of this rank's samples, with the number of their row."""
        world, examples, error = module.world, [], None
        fixed = DataConfig(crops=1, text_drop_prob=0.0)
        with _encoders_on(self.pairs, module.device):
            for row, index in self._chosen[world.rank :: world.world_size]:
                try:
                    examples.append((row, self.pairs.example(index, 0, 0, 0, fixed)))
                except (ValueError, OSError) as fault:
                    error = error or str(unreadable(f"held-out {self.pairs.name(index)}", fault))
                    log.warning("%s is left out of the held-out loss: %s", self.pairs.name(index), fault)
        errors = [error]
        if world.world_size > 1:
            errors = [None] * world.world_size
            dist.all_gather_object(errors, error)
        if self.config.on_error == "stop" and (found := [e for e in errors if e is not None]):
            raise SampleError(found[0])
        return examples

    def _packs(
        self, examples: list[tuple[int, Example]], times: Sequence[float]
    ) -> Iterator[list[tuple[int, Example]]]:
        """The examples at all times, in packs of at most the token budget; a longer one is a pack alone."""
        pack: list[tuple[int, Example]] = []
        tokens = 0
        for (row, example), time in itertools.product(examples, times):
            if pack and tokens + len(example.sequence) > self.config.token_budget:
                yield pack
                pack, tokens = [], 0
            pack.append((row, replace(example, time=torch.tensor(time))))
            tokens += len(example.sequence)
        if pack:
            yield pack

    def _add(self, module: EditModule, pack: list[tuple[int, Example]], sums: Tensor) -> None:
        """Add each sequence's mean loss, and one, to the sums of its row."""
        pad_to = None if pack else EMPTY
        micro = collate(
            [example for _, example in pack],
            pad_to,
            width=self.pairs.token_size,
            has_prompt=self.pairs.model.sequence.has_prompt,
        ).to(module.device)
        per_token = module.token_losses(module.ema, micro)
        if not pack:
            return
        sequence = micro.batch.target_sequence
        rows = torch.tensor([row for row, _ in pack], device=module.device)
        portion = (1 / micro.size.to(sums))[sequence]
        sums[0].index_add_(0, rows[sequence], per_token.to(sums) * portion)
        sums[1].index_add_(0, rows, torch.ones_like(rows, dtype=sums.dtype))


def heldout_loss_of(config: FitConfig, heldout: EditDataset | None) -> HeldoutLoss | None:
    """What computes a run's loss of held-out samples; None where there are none, or it asks for none."""
    if heldout is None or not config.train.validate_loss_every:
        return None
    return HeldoutLoss(heldout, config.train.num_loss_samples, config.data)


@contextmanager
def _encoders_on(pairs: EditDataset, device: torch.device) -> Iterator[None]:
    """The encoders work on a GPU that trains, and leave it again."""
    if device.type == "cpu":
        yield
        return
    encoders = (pairs.vae, pairs.text_encoder)
    for encoder in encoders:
        encoder.to(device)
    try:
        yield
    finally:
        let_go(*encoders)
