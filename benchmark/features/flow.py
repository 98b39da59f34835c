"""Optical flow between neighbouring frames: by torchvision's RAFT with a weights file, or by OpenCV's DIS."""

from __future__ import annotations

import itertools
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmark.core.item import RunStopped
from benchmark.features.checkpoints import read_checkpoint
from shards.errors import first_line

LEAST = 128  # pixels of a side, which RAFT needs


class Dis:
    """OpenCV's DIS flow, medium preset: no network, no weights."""

    identity = "opencv DIS, medium"

    def between(self, frames: np.ndarray) -> np.ndarray:
        """float32 [T - 1, H, W, 2] pixels (x, y) from each frame to the next, of uint8 RGB [T, H, W, 3]."""
        import cv2

        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        flows = []
        for a, b in itertools.pairwise(grey):
            engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
            flows.append(engine.calc(a, b, None))
        return np.stack(flows)


class Raft:
    """RAFT (Teed and Deng 2020) as torchvision has it.

    Args:
        path: its weights, `raft_large_C_T_SKHT_V2-ff5fadd5.pth` or those of `raft_small`.
        size: which of the two.
        device: such as `cpu` or `cuda`.
    """

    def __init__(self, path: str, size: Literal["large", "small"] = "large", device: str = "cpu") -> None:
        self.path, self.size, self.device = path, size, device

    @property
    def identity(self) -> dict[str, str]:
        """What its flow depends on."""
        return {"path": self.path, "size": self.size}

    @cached_property
    def model(self) -> Any:
        """The network, float32, in eval mode; RunStopped for a file that is not its weights."""
        from torchvision.models import optical_flow

        network = getattr(optical_flow, f"raft_{self.size}")()
        try:
            network.load_state_dict(read_checkpoint(Path(self.path), "torchvision's RAFT"))
        except RuntimeError as error:
            raise RunStopped(f"{self.path}: no raft_{self.size}: {first_line(error)}") from error
        return network.to(self.device).eval()

    @torch.no_grad()
    def between(self, frames: np.ndarray) -> np.ndarray:
        """As `Dis.between`; frames are edge-padded to sides that divide by 8."""
        video = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 1).float() / 127.5 - 1
        height, width = video.shape[2:]
        more = [max(LEAST, -(-side // 8) * 8) - side for side in (height, width)]
        video = torch.nn.functional.pad(video, (0, more[1], 0, more[0]), mode="replicate").to(self.device)
        flows = [
            self.model(a[None], b[None])[-1][0, :, :height, :width].movedim(0, -1).cpu()
            for a, b in itertools.pairwise(video)
        ]
        return torch.stack(flows).numpy()
