"""Clean plate of a standing camera: the temporal median of the clip, with each pixel's noise and agreement.

What moves disappears from a median when it covers a pixel in fewer than half of the frames.
"""

from __future__ import annotations

import numpy as np

from curation.core.interfaces import Plate
from curation.vlm.interface import Backend
from shards.frames import evenly_spaced


class MedianPlate:
    """Median of at most `samples` frames spread over the clip."""

    license = "this project"

    def __init__(self, samples: int = 72, tolerance: int = 16) -> None:
        self.samples, self.tolerance = samples, tolerance

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        return Backend("median-plate", "", "1", {"samples": self.samples, "tolerance": self.tolerance})

    def plate(self, frames: np.ndarray) -> Plate:
        """See `curation.core.interfaces.Plate`; `noise` is the 75th percentile in time of the largest
        difference.
        """
        count = min(self.samples, len(frames)) - (
            1 - min(self.samples, len(frames)) % 2
        )  # odd: a real median
        chosen = frames[evenly_spaced(len(frames), max(1, count))]
        height = frames.shape[1]
        image = np.empty(frames.shape[1:], np.uint8)
        noise = np.empty(frames.shape[1:3], np.float32)
        agreement = np.empty(frames.shape[1:3], np.float32)
        for top in range(0, height, 60):  # bands keep the working set in the cache
            band = np.ascontiguousarray(chosen[:, top : top + 60])
            middle = np.partition(band, len(band) // 2, axis=0)[len(band) // 2]
            image[top : top + 60] = middle
            apart = np.maximum(band, middle) - np.minimum(band, middle)
            worst = apart.max(-1)
            rank = int(0.75 * (len(worst) - 1))
            noise[top : top + 60] = np.partition(worst, rank, axis=0)[rank]
            agreement[top : top + 60] = (worst <= self.tolerance).mean(0)
        return Plate(image, noise, agreement)
