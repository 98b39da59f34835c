"""A metric that ends the process that asks it, as the kernel does when memory is short."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.core.item import Reference


@dataclass(frozen=True)
class DeadlyMetric:
    """Kills its process once, at the fourth item; `folder` remembers the items across processes."""

    folder: str
    name: str = "deadly"
    label: str = "deadly"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    version: int = 1

    def __call__(self, reference: Reference, result: np.ndarray) -> float:
        """1, if it returns."""
        folder = Path(self.folder)
        (folder / str(time.monotonic_ns())).touch()
        if len(list(folder.iterdir())) >= 4 and not (folder / "killed").exists():
            (folder / "killed").touch()
            time.sleep(1)  # two workers: at least two items are done, and their scores on their way
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0
