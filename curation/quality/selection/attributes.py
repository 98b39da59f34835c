"""What the columns of a folder say of every sample: task, split and medium."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.reader import ShardSet


@dataclass(frozen=True)
class Attributes:
    """str [samples] each; `media` is that of the first target: image or video."""

    tasks: NDArray[np.str_]
    splits: NDArray[np.str_]
    media: NDArray[np.str_]

    @staticmethod
    def of(samples: ShardSet) -> Attributes:
        """Those of an opened folder."""
        columns = samples.columns
        numbers = np.concatenate([columns.kinds(shard) for shard in samples.shards.tolist()])
        kinds, inverse = np.unique(numbers, return_inverse=True)
        known = [columns.kind(int(number)) for number in kinds]
        media = [next(e.kind for e in kind.elements if e.name == kind.targets[0]) for kind in known]
        return Attributes(
            np.array([kind.label.task for kind in known])[inverse],
            np.array([kind.label.split for kind in known])[inverse],
            np.array(media)[inverse],
        )
