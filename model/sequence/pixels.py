"""Pixels as the encoders take them.

uint8 from 0 to 255 becomes float from -1 to 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_float(pixels: np.ndarray) -> Tensor:
    """uint8 [..., 3] -> float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 127.5 - 1


def to_pixels(video: Tensor) -> np.ndarray:
    """Float [-1, 1] -> uint8, on the CPU."""
    pixels: np.ndarray = ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return pixels
