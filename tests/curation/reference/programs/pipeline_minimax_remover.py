"""Stands in for MiniMax-Remover's pipeline: the same call and demands; it fills with the number of the seed.

Like the real one it returns as many frames and such sides as its autoencoder gives back: 4 n + 1 and
multiples of 16. FAIL: see `failing`.
"""

import os
from types import SimpleNamespace

import numpy as np
import torch
from failing import at_import, at_work
from scipy import ndimage

at_import()


class Minimax_Remover_Pipeline:
    def __init__(self, transformer: object, vae: object, scheduler: object) -> None:
        assert vae.config.z_dim == 16
        assert scheduler.config.use_flow_sigmas
        with open("loads.txt", "a") as file:  # noqa: PTH123  # how often, for the tests
            file.write(f"{os.getpid()}\n")

    def to(self, device: str) -> "Minimax_Remover_Pipeline":
        assert device == "cuda:0"
        return self

    def __call__(
        self,
        height: int,
        width: int,
        num_frames: int,
        num_inference_steps: int,
        generator: torch.Generator,
        images: torch.Tensor,
        masks: torch.Tensor,
        iterations: int = 16,
    ) -> SimpleNamespace:
        at_work()
        assert images.min() >= -1
        assert images.max() <= 1
        assert masks.shape == (*images.shape[:3], 1)
        assert set(masks.unique().tolist()) <= {0.0, 1.0}
        holes = np.array([ndimage.binary_dilation(m > 0, iterations=iterations) for m in masks.numpy()])
        filled = np.where(holes, (generator.initial_seed() % 256) / 255, (images.numpy() + 1) / 2 + 0.02)
        count = (num_frames - 1) // 4 * 4 + 1
        return SimpleNamespace(frames=[filled[:count, : height // 16 * 16, : width // 16 * 16].clip(0, 1)])
