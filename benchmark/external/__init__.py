"""Benchmarks whose scores come from their own programs: we make what they read, and read what they write.

GenEval needs mmdet and a detector, VBench sixteen networks; both are run as published, outside of this
project. `python -m benchmark generate` fills the folder that they expect, `python -m benchmark collect` reads
their results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.core.item import BenchmarkError
from benchmark.statistics.intervals import Mean


@dataclass(frozen=True)
class GenerationRequest:
    """A sample to be made: its words, where it goes, the seed of its noise, and whether it is a picture."""

    text: str
    place: str
    seed: int
    still: bool


@dataclass(frozen=True)
class Collected:
    """What a program's results amount to.

    Attributes:
        parts: the published means by task or dimension, in percent.
        totals: what the paper prints of them, in its order.
        remarks: what is missing, so that nothing counts as zero unseen.
    """

    parts: dict[str, Mean]
    totals: dict[str, float | None]
    remarks: list[str]


def produce(
    wanted: list[GenerationRequest], out: Path, editor: Any, tell: Callable[[str], None], **options: Any
) -> tuple[int, int]:
    """Make what is not there yet; files appear whole. (made, found there)."""
    made = 0
    for sample in wanted:
        place = out / sample.place
        if place.is_file():
            continue
        tell(sample.place)
        tag = "<image1>" if sample.still else "<video1>"
        try:
            editor(f"{sample.text} {tag}", seed=sample.seed, **options).save(place)
        except ValueError as error:
            raise BenchmarkError(f"{sample.text!r}: {error}") from error
        made += 1
    return made, len(wanted) - made
