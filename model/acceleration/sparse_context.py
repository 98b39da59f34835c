"""Sparse in-context attention: source tokens far from the change are dropped or pooled.

What the paper names as future work for long contexts (A.4, "dynamic token selection"); others choose by
learned scores (FullDiT2, He et al. 2025). Here nothing is learned: a token's relevance is its distance to the
change, and the change is the mask that is given, or where the clean target that the first solver steps
predict differs from the source.

Two things matter to a network that was trained on whole contexts (measured on nano, docs/performance.md):
fewer keys shift what attention averages, so each counts as many as it stands for; and what a removed object
hid is found far from it, so half of the tokens are spread over the whole source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from model.sequence.interleave import VISION, Segment, TokenSequence

Beyond = Literal["drop", "pool"]
Grid = tuple[int, int, int]  # frames, rows, columns of tokens

BLOCK = 2  # rows and columns of tokens that are pooled into one
EVEN = 0.5  # of the kept tokens, those that are spread over the whole source
GOLDEN = (math.sqrt(5) - 1) / 2


def kept_tokens(distance: np.ndarray, share: float) -> np.ndarray:
    """As how many each token of a source is to count; 0 are those that are not kept.

    Part of the tokens are the nearest to the change, and count as one each. The others, `EVEN` of all, are
    taken evenly spread over the rest, and stand for it: each counts as many as there are for one of them.
    Multiples of the golden ratio, whose fractions lie evenly on the unit interval, choose these, and between
    tokens as far as each other.

    Args:
        distance: float [tokens], of each to the change.
        share: of the tokens; rounded to whole ones, at least one.

    Returns:
        float32 [tokens], whose sum is the number of tokens.
    """
    count = max(1, round(share * len(distance)))
    even = math.ceil(EVEN * count)
    spread = np.arange(len(distance)) * GOLDEN % 1
    order = np.lexsort((spread, distance))
    near, rest = np.split(order, [count - even])
    weight = np.zeros(len(distance), np.float32)
    weight[near] = 1
    weight[rest[np.argsort(spread[rest])[:even]]] = len(rest) / even
    return weight


def change_distance(changed: np.ndarray) -> np.ndarray:
    """Euclidean distance in tokens, over frames, rows and columns, to the nearest changed token.

    Args:
        changed: bool [frames, rows, columns].

    Returns:
        float64 of that shape; 0 everywhere where nothing changed.
    """
    from scipy.ndimage import distance_transform_edt

    if not changed.any():
        return np.zeros(changed.shape)
    distance: np.ndarray = distance_transform_edt(~changed)
    return distance


def pooled_blocks(size: Grid, block: int = BLOCK) -> Tensor:
    """int64 [tokens]: which block of `block` x `block` tokens of a frame each token of a grid belongs to."""
    frame, row, column = torch.cartesian_prod(*(torch.arange(side) for side in size)).reshape(-1, 3).T
    rows, columns = (-(-side // block) for side in size[1:])
    return (frame * rows + row // block) * columns + column // block


def sparse_sequence(
    sequence: TokenSequence, weights: Mapping[str, Tensor], beyond: Beyond, block: int = BLOCK
) -> TokenSequence:
    """The sequence with fewer tokens of some sources, each of which counts as many keys as it stands for.

    Kept tokens keep their positions. Under `pool` those of a block that are not kept become one token behind
    the kept ones, with their mean latents and mean position, so that positions are no whole numbers; it
    counts as many as they are, and kept ones count as one ("proportional attention", Bolya et al. 2023).

    Args:
        weights: float [tokens] of each source that loses some, by name, see `kept_tokens`.
        beyond: what becomes of the tokens that are not kept.
        block: rows and columns of a pooled block.

    Returns:
        The same object where all is kept. `segments` keep the grids of the whole; text and target are
        untouched.
    """
    chosen = {s.name: weights[s.name] for s in sequence.segments if _is_source(s) and s.name in weights}
    if all(bool(weight.all()) for weight in chosen.values()):
        return sequence
    sequence = replace(sequence, weight=torch.ones(len(sequence)))
    parts, segments, start = [], [], 0
    for segment in sequence.segments:
        part = sequence.part(segment.start, segment.stop)
        if segment.name in chosen and _is_source(segment):
            part = _thinned(part, chosen[segment.name], segment.size, beyond, block)
        parts.append(part)
        segments.append(replace(segment, start=start, stop=start + len(part)))
        start += len(part)
    joined = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("vision", "kind", "positions", "segment", "weight")
    }
    return replace(sequence, segments=tuple(segments), **joined)


def _is_source(segment: Segment) -> bool:
    return segment.kind == "vision" and not (segment.target or segment.first_frame)


def _thinned(part: TokenSequence, weight: Tensor, size: Grid, beyond: Beyond, block: int) -> TokenSequence:
    """One source with its start and end tokens, if it has any."""
    rows = (part.kind == VISION).nonzero().flatten()
    first, last = int(rows[0]), int(rows[-1]) + 1
    kept = weight > 0
    keep = kept.to(part.vision.device)
    vision, places, counts = part.vision[keep], part.positions[first:last][kept], weight[kept]
    if beyond == "pool" and not kept.all():
        _, number = pooled_blocks(size, block)[~kept].unique(return_inverse=True)
        vision = torch.cat([vision, _means(part.vision[~keep], number)])
        places = torch.cat([places.float(), _means(part.positions[first:last][~kept].float(), number)])
        counts = torch.cat([torch.ones_like(counts), torch.bincount(number).to(counts)])
    kind, segment = (
        torch.cat([x[:first], x[first : first + 1].expand(len(vision)), x[last:]])
        for x in (part.kind, part.segment)
    )
    positions = torch.cat([part.positions[:first], places, part.positions[last:]])
    bounds = torch.ones(first), torch.ones(len(part) - last)
    weights = torch.cat([bounds[0], counts, bounds[1]])
    return replace(part, vision=vision, kind=kind, positions=positions, segment=segment, weight=weights)


def _means(rows: Tensor, number: Tensor) -> Tensor:
    """Mean of the rows of each number: [n, D] -> [numbers, D]."""
    count = torch.bincount(number).to(rows)
    sums = rows.new_zeros(len(count), rows.shape[1]).index_add_(0, number.to(rows.device), rows)
    return sums / count[:, None]
