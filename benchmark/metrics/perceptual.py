"""LPIPS (Zhang et al. 2018) against the wanted result: how different two pictures look to a network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.core.item import Reference, RunStopped, Unscored
from benchmark.features.checkpoints import read_checkpoint
from benchmark.features.frames import batches

LEAST = 32  # pixels of a side, below which AlexNet has nothing left


class Perceptual:
    """LPIPS' network: AlexNet's features from a file, and the published linear heads, which torchmetrics has.

    Args:
        path: torchvision's `alexnet-owt-7be5be79.pth`.
        device: such as `cpu` or `cuda`.
    """

    def __init__(self, path: str, device: str = "cpu") -> None:
        self.path, self.device = path, device

    @property
    def identity(self) -> dict[str, str]:
        """What its distances depend on."""
        return {"path": self.path, "heads": "torchmetrics lpips alex"}

    @cached_property
    def model(self) -> Any:
        """The network, float32, in eval mode; RunStopped for a file that is not AlexNet's."""
        from torchmetrics.functional.image.lpips import _LPIPS

        # with dropout, which eval mode ends: without it the heads' names do not fit, and they stay random
        network = _LPIPS(net="alex", pnet_rand=True)
        held = read_checkpoint(Path(self.path), "torchvision's AlexNet")
        try:
            for name, parameter in network.net.named_parameters():
                _, layer, kind = name.split(".")  # slice, number in AlexNet's features, weight or bias
                parameter.data = held[f"features.{layer}.{kind}"].reshape(parameter.shape)
        except (KeyError, RuntimeError) as error:
            raise RunStopped(f"{self.path}: no AlexNet of torchvision: {error}") from error
        return network.to(self.device).eval()

    @torch.no_grad()
    def distances(self, a: np.ndarray, b: np.ndarray) -> list[float]:
        """Of pairs of uint8 RGB frames [T, H, W, 3]."""
        found: list[float] = []
        for some in batches(range(len(a))):
            pair = [
                torch.from_numpy(np.ascontiguousarray(v[some[0] : some[-1] + 1])).movedim(-1, 1).float()
                for v in (a, b)
            ]
            apart = self.model(*(p.to(self.device) / 127.5 - 1 for p in pair))
            found += apart.flatten().tolist()
        return found


@dataclass(frozen=True)
class Lpips:
    """Mean over frames of LPIPS (AlexNet, version 0.1) to the wanted result, frames at the result's size."""

    model: Perceptual
    name: str = "lpips"
    label: str = "LPIPS"
    unit: str = ""
    higher_is_better: bool = False
    range: tuple[float, float] = (0.0, 1.0)
    version: int = 1

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        if min(result.shape[1:3]) < LEAST:
            return Unscored(f"frames of {result.shape[2]}x{result.shape[1]} are too small for AlexNet")
        return float(np.mean(self.model.distances(result, reference.target)))
