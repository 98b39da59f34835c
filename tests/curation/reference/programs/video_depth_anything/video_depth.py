"""Stands in for Video-Depth-Anything: its class, its weights and demands; depth is the red channel.

FAIL: see `failing`; "nan" gives depths that are not finite.
"""

import os

import numpy as np
import torch
from failing import FAIL, at_import, at_work

at_import()


class VideoDepthAnything(torch.nn.Module):
    def __init__(
        self,
        encoder: str = "vitl",
        features: int = 256,
        out_channels: tuple = (256, 512, 1024, 1024),
        use_bn: bool = False,
        use_clstoken: bool = False,
        num_frames: int = 32,
        pe: str = "ape",
        metric: bool = False,
    ) -> None:
        super().__init__()
        self.head = torch.nn.Linear(features, sum(out_channels))
        with open("loads.txt", "a") as file:  # noqa: PTH123  # how often, for the tests
            file.write(f"{os.getpid()}\n")

    def infer_video_depth(
        self,
        frames: np.ndarray,
        target_fps: float,
        input_size: int = 518,
        device: str = "cuda",
        fp32: bool = False,
    ) -> "tuple[np.ndarray, float]":
        at_work()
        assert input_size % 14 == 0
        depths = np.stack([frame[..., 0].astype(np.float32) / 255 for frame in frames])
        if FAIL == "nan":
            depths[0, 0, 0] = np.nan
        return depths[: len(depths) // 2] if FAIL == "count" else depths, target_fps
