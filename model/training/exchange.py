"""Ranks that share sequences read each of them once, and hand what they read to each other.

One rank of a group reads and encodes a sequence (`model.training.dataloader.owner_of`), so that it alone says
by what a sample is replaced that cannot be read. Loader workers belong to no process group: they read, and
the process that trains hands on and packs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from model.data.batch import Example, StepBatch
from model.net.distributed import World
from model.training.dataloader import PlannedSteps, ReadStep, SampleError


class OwnedSteps(Dataset[ReadStep]):
    """What this rank reads of every step: the sequences that it alone works on, and those that it owns."""

    def __init__(self, steps: PlannedSteps) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, i: int) -> ReadStep:
        return self.steps.read(i, owned=True)


class ExchangedSteps:
    """The steps of a loader of `OwnedSteps`, whole.

    All ranks of `group`, a block of ranks that may share sequences, iterate over theirs together.

    Args:
        group: on the CPU, used by nothing else: on a GPU a thread of its own exchanges ahead of the training.
        device: that trains; for a CUDA device the steps are pinned.

    Raises:
        SampleError: by iterating, on all ranks of the group if one of them cannot read what they share.
    """

    def __init__(
        self,
        loader: DataLoader[ReadStep],
        steps: PlannedSteps,
        group: dist.ProcessGroup,
        device: torch.device,
    ) -> None:
        self.loader, self.steps, self.group = loader, steps, group
        self.pin = device.type == "cuda"
        self._read: Iterator[ReadStep] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[StepBatch]:
        self._read = iter(self.loader)
        for number in range(len(self)):
            try:
                step = next(self._read)
            except Exception as error:
                plan = self.steps.plan(self.steps.first + number)
                if self.steps.shared_samples(plan):
                    self._exchange(message_of(error))
                raise
            shared = self.steps.shared_samples(step.plan)
            if shared:
                owned = {sample: e for sample, e in step.examples.items() if sample in shared}
                for theirs in self._exchange(owned):
                    step.examples.update(theirs)
            batch = self.steps.packed(step)
            yield batch.pin_memory() if self.pin else batch

    def close(self) -> None:
        """End the worker processes that read."""
        end_workers(self._read)

    def _exchange(self, ours: dict[int, Example] | str) -> list[dict[int, Example]]:
        """What each rank of the group has read; `ours` is an error's message where this one could not.

        Raises:
            SampleError: another rank could not.
        """
        everyone: list[Any] = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(everyone, ours, self.group)
        errors = [given for given in everyone if isinstance(given, str)]
        if errors and not isinstance(ours, str):
            raise SampleError(errors[0])
        return [given for given in everyone if not isinstance(given, str)]


def end_workers(read: object) -> None:
    """End the worker processes, if any, of what iterates over a DataLoader.

    They take no signal, and a process waits for them before it ends.
    """
    shutdown = getattr(read, "_shutdown_workers", None)
    if shutdown is not None:
        shutdown()


def message_of(error: Exception) -> str:
    """What a sample's error says, without the traceback that a worker's has in front."""
    return str(error).strip().rpartition("SampleError: ")[2]


def exchange_group(world: World, degree: int) -> dist.ProcessGroup:
    """The block of `degree` ranks that this one may share sequences with; all ranks call it together."""
    blocks = [list(range(first, first + degree)) for first in range(0, world.world_size, degree)]
    groups: list[Any] = [dist.new_group(block, backend="gloo") for block in blocks]
    own: dist.ProcessGroup = groups[world.rank // degree]
    return own
