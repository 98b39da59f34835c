"""The processes of a run: who this one is, and the process groups, as torchrun or SLURM set them up.

The rendezvous is static: every process is told its rank, and where rank 0 listens.
"""

from __future__ import annotations

import datetime
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from model.net.ulysses import forget_groups, make_groups
from shards.errors import ConfigError

TIMEOUT = datetime.timedelta(minutes=60)  # rank 0 may read an index, or render, while the others wait


@dataclass(frozen=True)
class World:
    """Ranks in all, this one's number, and the same within its node."""

    world_size: int = 1
    rank: int = 0
    local_world_size: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:
        numbered = 0 <= self.rank < self.world_size and 0 <= self.local_rank < self.local_world_size
        if not numbered or self.world_size % self.local_world_size:
            raise ConfigError(
                f"cluster: rank {self.rank} of {self.world_size}, {self.local_rank} of "
                f"{self.local_world_size} on its node: nodes must have equally many ranks"
            )

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0, which writes files and logs."""
        return self.rank == 0

    def device(self, accelerator: str) -> torch.device:
        """This rank's: a CUDA device if there are any and `accelerator` allows it, else the CPU."""
        if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda"):
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")


def world_of(environment: Mapping[str, str]) -> World:
    """Read torchrun's variables, else srun's (one task per device), else one process.

    Raises:
        ConfigError: a variable that is missing or no number.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_STEP_ID" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1:
        names = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_NTASKS_PER_NODE", "SLURM_LOCALID")
    else:
        return World()
    try:
        world_size, rank, local_world_size, local_rank = (int(environment[name]) for name in names)
    except KeyError as error:
        raise ConfigError(f"cluster: the environment has no {error.args[0]}; use torchrun or srun") from error
    except ValueError as error:
        raise ConfigError(f"cluster: {', '.join(names)}: {error}") from error
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if world_size > 1 and name not in environment:
            raise ConfigError(f"cluster: the environment has no {name}; see configs/slurm/train.sbatch")
    return World(world_size, rank, local_world_size, local_rank)


@contextmanager
def init_distributed(accelerator: str) -> Iterator[World]:
    """Join the run's processes, by NCCL on CUDA devices and by gloo otherwise, and leave at the end."""
    world = world_of(os.environ)
    if world.world_size == 1 or dist.is_initialized():
        yield world
        return
    device = world.device(accelerator)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
        world_size=world.world_size,
        rank=world.rank,
        timeout=TIMEOUT,
        device_id=device if cuda else None,
    )
    try:
        make_groups(world.world_size, world.local_world_size)
        yield world
        dist.barrier()  # SLURM may end a job some time after the first of its ranks has left
    finally:
        forget_groups()
        dist.destroy_process_group()


def exit_rank(status: int) -> int:
    """Give back an exit status; in a process of several, end it with that status at once.

    Python's tear-down is left out there: in one of ten runs on gloo (torch 2.15) a thread of torch's aborted
    the process in it, after all work was done.
    """
    if world_of(os.environ).world_size > 1:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    return status


@contextmanager
def main_process_first(world: World) -> Iterator[None]:
    """Rank 0 runs the block before all others do, which then find what it left."""
    if world.world_size > 1 and not world.is_main_process:
        dist.barrier()
    yield
    if world.world_size > 1 and world.is_main_process:
        dist.barrier()
