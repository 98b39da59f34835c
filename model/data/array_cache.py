"""Arrays that are kept in memory: decoded media, token states."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


class ArrayCache(Generic[Array]):
    """The arrays used last, up to `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self.full = False  # has let go of something
        self._arrays: OrderedDict[str, Array] = OrderedDict()

    def get(self, name: str) -> Array | None:
        """An array that was put, if it is still here."""
        if name in self._arrays:
            self._arrays.move_to_end(name)
        return self._arrays.get(name)

    def put(self, name: str, array: Array) -> None:
        """Keep an array, and let go of those that were used longest ago."""
        self._arrays[name] = array
        self.bytes += array.nbytes
        while self.bytes > self.most and self._arrays:
            self.full = True
            self.bytes -= self._arrays.popitem(last=False)[1].nbytes
