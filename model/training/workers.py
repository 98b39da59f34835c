"""Steps of a run read ahead: by worker processes, for the ranks that share sequences, onto the device."""

from __future__ import annotations

import signal
import sys
from multiprocessing import AuthenticationError
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from model.data.batch import DataConfig
from model.net.distributed import World
from model.training.callbacks import STOPS
from model.training.dataloader import PlannedSteps
from model.training.exchange import ExchangedSteps, OwnedSteps, exchange_group
from model.training.prefetch import DevicePrefetcher
from shards.processes import background_processes

Loader = DataLoader[Any] | ExchangedSteps | DevicePrefetcher


class WorkerLoader(DataLoader[Any]):
    """A DataLoader whose worker processes have no terminal and leave Ctrl-C to this process."""

    def __iter__(self) -> Any:
        with background_processes():
            return super().__iter__()


def loader(steps: PlannedSteps, device: torch.device, world: World) -> Loader:
    """Steps in order, prepared ahead by worker processes if the configuration has any.

    For a CUDA device they are pinned and copied ahead too; without workers this process reads between steps,
    as encoders and device are then the renders' too. All ranks call it together.
    """
    shares = steps.cluster.degree > 1 and world.world_size > 1
    ahead: Any = _read_ahead(OwnedSteps(steps) if shares else steps, steps.config, device)
    if shares:
        ahead = ExchangedSteps(ahead, steps, exchange_group(world, steps.cluster.degree), device)
    return DevicePrefetcher(ahead, device) if device.type == "cuda" and steps.config.workers else ahead


def _read_ahead(data: Dataset[Any], config: DataConfig, device: torch.device) -> DataLoader[Any]:
    """What is to be read, in order, by the run's worker processes."""
    import resource

    if not config.workers:
        return DataLoader(data, batch_size=None)
    # every tensor that a worker hands over is an open file
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return WorkerLoader(
        data,
        batch_size=None,
        num_workers=config.workers,
        prefetch_factor=config.prefetch,
        pin_memory=device.type == "cuda",
        worker_init_fn=_begin_worker,
    )


def _begin_worker(_: int) -> None:
    """Leave signals to the main process, which saves the state while a worker's step is still wanted.

    SLURM and a container's end signal all processes of a step. And let a thread of a worker that hands over
    tensors end without a traceback when nobody takes them.
    """
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, EOFError | ConnectionError | AuthenticationError):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook
