"""Where packed sequences lie: what attention needs to know of a pack, or of one sequence that ranks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from model.sequence.interleave import PAD, VISION


@dataclass(frozen=True)
class Layout:
    """Where sequences lie among tokens, and which of them are noisy: all that attention needs to know.

    Attributes:
        cu_seqlens: int32 [S + 1].
        noisy, context: int64, places of the target segments' tokens (start and end of vision included), and
            of all others, both ascending.
        words, visible: int64, places of the text, start and end tokens, and of the vision tokens, both
            ascending; padding is in both, so that its queries never are without keys.
        sources: int64, places of the vision tokens that are not noisy, ascending.
        cu_noisy, cu_context, cu_words, cu_visible: int32 [S + 1], how these are shared out among the
            sequences.
        lengths: the same on the host, where reading it does not wait for the device: by kind (`seqlens`,
            `noisy`, `context`, `words`, `visible`, `sources`, `target`) the number of each sequence's tokens.
    """

    cu_seqlens: Tensor
    noisy: Tensor
    context: Tensor
    words: Tensor
    visible: Tensor
    sources: Tensor
    cu_noisy: Tensor
    cu_context: Tensor
    cu_words: Tensor
    cu_visible: Tensor
    lengths: dict[str, tuple[int, ...]]

    def to(self, device: torch.device | str) -> Self:
        """Copy every tensor to a device."""
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if hasattr(value, "to"):
                moved[f.name] = value.to(device)
        return replace(self, **moved)


def lay_out(lengths: Sequence[int], is_noisy: Tensor, kind: Tensor) -> dict[str, Any]:
    """The fields of a `Layout` for sequences side by side.

    Args:
        is_noisy: bool [tokens]; kind: int64 [tokens], see `model.sequence.interleave`.
    """
    ends = np.cumsum(lengths).tolist()
    bounds = torch.tensor([0, *ends], dtype=torch.int32)
    fields: dict[str, Any] = {"cu_seqlens": bounds, "lengths": {"seqlens": tuple(lengths)}}
    is_vision = kind == VISION
    for name, chosen in (
        ("noisy", is_noisy),
        ("context", ~is_noisy),
        ("words", ~is_vision),
        ("visible", is_vision | (kind == PAD)),
        ("sources", is_vision & ~is_noisy),
        ("target", is_vision & is_noisy),
    ):
        counted = chosen.cumsum(0, dtype=torch.int32)
        cu = torch.cat([counted.new_zeros(1), counted])[bounds.long()]
        fields["lengths"][name] = tuple(cu.diff().tolist())
        if name in ("noisy", "context", "words", "visible"):
            fields[f"cu_{name}"] = cu
        if name != "target":
            fields[name] = chosen.nonzero().flatten()
    return fields


@dataclass(frozen=True)
class SequenceShard:
    """What a rank does of a sequence: holds its tokens start:stop, attends with its heads first:last.

    `sample` is its number in the step. A whole sequence is one piece with all of both.
    """

    sample: int
    rank: int
    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class SharedSequence:
    """A sequence that ranks share: their pieces, by ascending rank and token, and its layout as a whole."""

    pieces: tuple[SequenceShard, ...]
    layout: Layout

    def of(self, rank: int) -> SequenceShard | None:
        """The piece of a rank, if it has one."""
        return next((p for p in self.pieces if p.rank == rank), None)

    def to(self, device: torch.device | str) -> SharedSequence:
        """Copy to a device."""
        return replace(self, layout=self.layout.to(device))


@dataclass(frozen=True)
class SPPlan:
    """What a rank knows of the shared sequences of a micro-batch.

    Attributes:
        rank: this one; ranks: of its node. All of them run the micro-batch together.
        splits: those in which this rank has a piece, in one order on all ranks; a rank's pack begins with its
            tokens of each.
    """

    rank: int
    ranks: tuple[int, ...]
    splits: tuple[SharedSequence, ...] = ()

    @property
    def tokens(self) -> int:
        """How many tokens of shared sequences this rank holds."""
        return sum(p.stop - p.start for split in self.splits for p in split.pieces if p.rank == self.rank)

    def to(self, device: torch.device | str) -> SPPlan:
        """Copy to a device."""
        return replace(self, splits=tuple(split.to(device) for split in self.splits))
