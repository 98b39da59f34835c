"""Decoded media that are kept in memory."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np


class PixelCache:
    """The arrays used last, up to `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self.full = False  # has let go of something
        self._arrays: OrderedDict[str, np.ndarray] = OrderedDict()

    def get(self, name: str) -> np.ndarray | None:
        """An array that was put, if it is still here."""
        if name in self._arrays:
            self._arrays.move_to_end(name)
        return self._arrays.get(name)

    def put(self, name: str, array: np.ndarray) -> None:
        """Keep an array, and let go of those that were used longest ago."""
        self._arrays[name] = array
        self.bytes += array.nbytes
        while self.bytes > self.most and self._arrays:
            self.full = True
            self.bytes -= self._arrays.popitem(last=False)[1].nbytes
