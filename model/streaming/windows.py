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
        ahead: how many of the last frames are the first ones of the span behind, which fades them over.
    """

    start: int
    stop: int
    overlap: int = 0
    ahead: int = 0

    @property
    def frames(self) -> int:
        """Its length."""
        return self.stop - self.start

    @property
    def final(self) -> int:
        """How many of its frames no later span changes."""
        return self.frames - self.ahead


def plan_windows(length: int, most: int, temporal: int = 1, cuts: Sequence[int] = ()) -> list[Span]:
    """The spans that cover `length` frames, none longer than `most`.

    A clip that fits into one window is one, cuts or not. Else each shares about `OVERLAP` of its frames with
    the one before. Where that is enough for latents to be shared, spans are aligned to them: they have
    1 + temporal k frames, begin a multiple of `temporal` behind the one before and overlap by
    1 + temporal m frames, so that groups of frames that share a latent are the same in both. The last span
    before a cut or the end begins earlier, to be as long as the others (aligned, up to temporal - 1 less).

    Args:
        temporal: frames of a latent after the first, see `model.encoders.Codec`.
        cuts: frames that begin a new shot; the spans before and after share nothing.
    """
    if length <= most:
        return [Span(0, length)]
    grid = temporal if OVERLAP * most > temporal else 1
    full = 1 + (most - 1) // grid * grid
    shared = min(1 + grid * round((OVERLAP * most - 1) / grid), full - grid)
    edges = sorted({0, length, *(cut for cut in cuts if 0 < cut < length)})
    spans: list[Span] = []
    for begin, end in itertools.pairwise(edges):
        last = grid * -(-max(0, end - begin - full) // grid)
        starts = [begin + offset for offset in [*range(0, last, full - shared), last]]
        stops = [min(start + full, end) for start in starts]
        overlaps = [0, *(stop - start for stop, start in zip(stops, starts[1:], strict=False)), 0]
        for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            spans.append(Span(start, stop, overlaps[i], overlaps[i + 1]))
    return spans
