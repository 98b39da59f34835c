"""Processes that torchrun or SLURM started, as Lightning is told of them."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments import ClusterEnvironment

from model.net.distributed import World


class ExternalProcesses(ClusterEnvironment):
    """Tells Lightning what `World` knows; the processes were started from outside."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        return int(os.environ["MASTER_PORT"])

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.world.world_size

    def set_world_size(self, size: int) -> None:
        """Fixed by the environment."""

    def global_rank(self) -> int:
        return self.world.rank

    def set_global_rank(self, rank: int) -> None:
        """Fixed by the environment."""

    def local_rank(self) -> int:
        return self.world.local_rank

    def node_rank(self) -> int:
        return self.world.rank // self.world.local_world_size
