"""What a signal is, and what measures signals: a grader, chosen by class_path like every annotator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from curation.quality.pairs import Pair
from curation.vlm.interface import Annotator

Better = Literal["higher", "lower", "neither"]
Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Signal:
    """A number that is measured of every sample.

    Attributes:
        name: of its column of scores.
        better: which values are those of better pairs.
        unit: "" for a pure number.
        what: what is measured, in one sentence.
        needs: what a sample must have, "" for nothing; elsewhere it is null.
        blind: what it does not see.
    """

    name: str
    better: Better
    unit: str
    what: str
    needs: str = ""
    blind: str = ""


class Grader(Annotator, Protocol):
    """Measures signals of one pair after the other.

    Attributes:
        name: of its stage; signals: all that it measures.
    """

    name: str
    signals: tuple[Signal, ...]

    def measure(self, pair: Pair) -> Values:
        """Signal -> value, None where it cannot be measured. Raises AnnotatorError when a model fails."""
        ...


class Comparer(Grader, Protocol):
    """A grader that also compares each sample with all others of a folder, when every one was looked at."""

    def marks(self, pair: Pair) -> list[str]:
        """What is kept of a pair for the comparison; empty where it cannot be compared."""
        ...

    def compare(self, marks: Sequence[list[str]], kinds: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Signal -> values [N] of all samples in order, NaN for null; `kinds` are compared within."""
        ...
