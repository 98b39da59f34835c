"""Where the windows of a long clip lie: overlapping, on the latent grid, and never across a cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

OVERLAP = 0.25  # of a window's frames that it shares with the one before, before rounding to latents


@dataclass(frozen=True)
class Span:
    """Frames start:stop of a clip, edited at once.

    Attributes:
        overlap: how many of the first frames are the last ones of the span before; 0 at a beginning.
    """

    start: int
    stop: int
    overlap: int = 0

    @property
    def frames(self) -> int:
        """Its length."""
        return self.stop - self.start


def plan_windows(length: int, most: int, temporal: int = 1, cuts: Sequence[int] = ()) -> list[Span]:
    """The spans that cover `length` frames, none longer than `most`.

    A clip that fits into one window is one, cuts or not. Else each has 1 + temporal k frames, but for the
    last one before a cut or the end, which may have up to temporal - 1 less. A span begins a multiple of
    `temporal` behind the one before, so that groups of frames that share a latent are the same in both, and
    overlaps it by 1 + temporal m frames, about `OVERLAP` of a window; the last one by more, so that it is as
    long as the others.

    Args:
        temporal: frames of a latent after the first, see `model.encoders.Codec`.
        cuts: frames that begin a new shot; the spans before and after share nothing.
    """
    if length <= most:
        return [Span(0, length)]
    groups = (most - 1) // temporal  # latents of a window beside its first
    shared = max(0, min(groups - 1, round((OVERLAP * most - 1) / temporal)))
    full, step = 1 + temporal * groups, temporal * (groups - shared)
    if not groups:  # too short for the grid, and to share anything
        full = step = temporal = most
    edges = sorted({0, length, *(cut for cut in cuts if 0 < cut < length)})
    spans: list[Span] = []
    for begin, end in itertools.pairwise(edges):
        last = temporal * -(-max(0, end - begin - full) // temporal)
        before = begin
        for offset in [*range(0, last, step), last]:
            start = begin + offset
            stop = min(start + full, end)
            spans.append(Span(start, stop, before - start))
            before = stop
    return spans
