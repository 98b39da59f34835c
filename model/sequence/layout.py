"""Where packed sequences lie: what attention needs to know of a pack, also of one that ranks share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from model.sequence.interleave import PAD, VISION

T = TypeVar("T")


def map_tensors(value: T, change: Callable[[Tensor], Tensor]) -> T:
    """The same dataclass or tuple, however nested, with every tensor in it changed."""
    done: Any = value
    if isinstance(value, Tensor):
        done = change(value)
    elif isinstance(value, tuple):
        done = tuple(map_tensors(part, change) for part in value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        done = replace(value, **{name: map_tensors(part, change) for name, part in parts.items()})
    return done


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
        key_bias: float32 [N], added to the scores of each token as a key: the logarithm of as how many it
            counts; None where all are one.
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
    key_bias: Tensor | None = field(default=None, kw_only=True)

    def to(self, device: torch.device | str) -> Self:
        """Copy every tensor to a device."""
        return map_tensors(self, lambda tensor: tensor.to(device))


def lay_out(lengths: Sequence[int], is_noisy: Tensor, kind: Tensor) -> Layout:
    """The layout of sequences side by side.

    Args:
        is_noisy: bool [tokens]; kind: int64 [tokens], see `model.sequence.interleave`.
    """
    ends = np.cumsum(lengths).tolist()
    bounds = torch.tensor([0, *ends], dtype=torch.int32)
    values: dict[str, Any] = {"cu_seqlens": bounds, "lengths": {"seqlens": tuple(lengths)}}
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
        values["lengths"][name] = tuple(cu.diff().tolist())
        if name in ("noisy", "context", "words", "visible"):
            values[f"cu_{name}"] = cu
        if name != "target":
            values[name] = chosen.nonzero().flatten()
    return Layout(**values)


@dataclass(frozen=True)
class SPPlan:
    """Who shares a pack of N tokens: rank `ranks[i]` holds the i-th of as many even runs of its tokens.

    Attributes:
        rank: this one; ranks: those of the group, ascending.
        tokens: N.
    """

    rank: int
    ranks: tuple[int, ...]
    tokens: int

    @property
    def index(self) -> int:
        """The place of this rank in the group."""
        return self.ranks.index(self.rank)

    @property
    def runs(self) -> list[tuple[int, int]]:
        """First token, and the one after the last, of each rank's run; they differ in length by at most 1."""
        size = len(self.ranks)
        ends = [self.tokens * i // size for i in range(size + 1)]
        return list(itertools.pairwise(ends))

    def parts(self, lengths: Sequence[int]) -> list[tuple[int, int, int]]:
        """This rank's run by sequence: number, first token of it, and the one after the last.

        Args:
            lengths: tokens of every sequence of the pack, N in all.
        """
        first, last = self.runs[self.index]
        result, place = [], 0
        for number, length in enumerate(lengths):
            start, stop = max(first - place, 0), min(last - place, length)
            if start < stop:
                result.append((number, start, stop))
            place += length
        return result
