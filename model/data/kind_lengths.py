"""Vision tokens by kind of sample, worked out once for each that is met."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.columns import Columns, SampleKind

KEPT = 4096  # lengths that are remembered


class KindLengths:
    """Lengths of the kinds met last.

    Args:
        length: of a kind in a row of the mixture; it may depend on what `of` is given.
    """

    def __init__(self, length: Callable[[str, SampleKind], int]) -> None:
        self._length = length
        self._basis: tuple[Any, ...] = ()
        self._kept = functools.lru_cache(maxsize=KEPT)(self._compute)

    def of(self, *basis: Any) -> None:
        """Say which objects lengths depend on; where others than before, what was remembered is dropped."""
        if len(basis) != len(self._basis) or any(a is not b for a, b in zip(basis, self._basis, strict=True)):
            self._basis = basis
            self._kept.cache_clear()

    def _compute(self, row: str, columns: Columns, kind: int) -> int:
        return self._length(row, columns.kind(kind))

    def __call__(self, row: str, columns: Columns, kind: int) -> int:
        """Vision tokens of a kind of a folder in a row."""
        return self._kept(row, columns, kind)


def extreme_kinds(columns: Columns, kinds: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """int64: all of the kinds, or `most`: those with the most pixels, and one with the fewest."""
    if len(kinds) <= most:
        return kinds
    order = np.argsort(columns.pixels_of_kinds()[kinds], kind="stable")
    return kinds[np.concatenate([order[:1], order[len(order) - most + 1 :]])]
