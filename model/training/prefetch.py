"""Steps that are on the device before they are wanted."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from model.data.batch import StepBatch
from model.sequence.layout import map_tensors
from model.training.exchange import ExchangedSteps, end_workers

Copied = tuple[StepBatch, torch.cuda.Event]


class DevicePrefetcher:
    """A loader's steps on a CUDA device; a thread copies each while the one before is computed.

    The loader's worker processes prepare the steps, and it pins them: a copy from pinned memory on a stream
    of its own runs beside the computation. At most two steps are on the device.
    """

    def __init__(self, loader: DataLoader[StepBatch] | ExchangedSteps, device: torch.device) -> None:
        self.loader, self.device = loader, device
        self._read: Iterator[StepBatch] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[StepBatch]:
        stream, steps = torch.cuda.Stream(self.device), iter(self.loader)
        self._read = steps
        with ThreadPoolExecutor(1, "copies") as thread:
            following = thread.submit(self._copy, steps, stream)
            while (copied := following.result()) is not None:
                step, done = copied
                following = thread.submit(self._copy, steps, stream)
                compute = torch.cuda.current_stream(self.device)
                compute.wait_event(done)  # the device waits, the host does not
                yield map_tensors(step, functools.partial(_kept_for, compute))

    def close(self) -> None:
        """End the worker processes that read."""
        if isinstance(self.loader, ExchangedSteps):
            self.loader.close()
        else:
            end_workers(self._read)

    def _copy(self, steps: Iterator[StepBatch], stream: torch.cuda.Stream) -> Copied | None:
        """The next step, and when it will have been copied; None after the last."""
        step = next(steps, None)
        if step is None:
            return None
        with torch.cuda.stream(stream):
            copied, done = step.to(self.device, non_blocking=True), torch.cuda.Event()
            done.record(stream)
        return copied, done


def _kept_for(stream: torch.cuda.Stream, tensor: Tensor) -> Tensor:
    """A tensor whose memory is given to nobody else before `stream` is done with it."""
    tensor.record_stream(stream)
    return tensor
