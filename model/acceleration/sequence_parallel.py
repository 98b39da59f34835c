"""One edit sampled by several processes: each computes a run of the tokens, see `model.net.ulysses`.

All take the same steps from the same noise, so that only the network's predictions are exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.net.distributed import World
from model.net.transformer import Transformer
from model.net.ulysses import group_of
from model.sequence.interleave import TokenSequence
from model.sequence.layout import SPPlan
from model.sequence.packing import PackedBatch, pack, pack_layout
from shards.errors import SettingError


@dataclass(frozen=True)
class SharedPack:
    """This rank's run of a pack.

    Attributes:
        batch: its tokens.
        ranks: those that share the pack.
        counts: target tokens in the run of each.
        index: place of this rank among them.
    """

    batch: PackedBatch
    ranks: tuple[int, ...]
    counts: tuple[int, ...]
    index: int

    def own(self, x: Tensor) -> Tensor:
        """Rows of this rank's target tokens of all [M, D]."""
        return x.split(self.counts)[self.index]

    def gather(self, own: Tensor) -> Tensor:
        """Rows of all ranks' target tokens [M, D]; all ranks call it together."""
        padded = own.new_zeros(max(self.counts), own.shape[1])
        padded[: len(own)] = own
        everyone = [torch.empty_like(padded) for _ in self.counts]
        dist.all_gather(everyone, padded, group_of(self.ranks))
        return torch.cat([rows[:count] for rows, count in zip(everyone, self.counts, strict=True)])


@dataclass(frozen=True)
class SequenceGroup:
    """Processes that sample every edit together.

    Attributes:
        rank: this one; ranks: all of them.
    """

    rank: int
    ranks: tuple[int, ...]

    def share(self, sequences: Sequence[TokenSequence]) -> SharedPack:
        """This rank's run of sequences side by side."""
        lengths = [len(sequence) for sequence in sequences]
        sp_plan = SPPlan(self.rank, self.ranks, sum(lengths))
        whole = pack(sequences)
        starts = torch.tensor([start for start, _ in sp_plan.runs])
        owner = torch.searchsorted(starts, whole.target, right=True) - 1
        parts = [sequences[i].part(start, stop) for i, start, stop in sp_plan.parts(lengths)]
        batch = pack(
            parts,
            shared=(sp_plan, pack_layout(sequences)),
            token_size=whole.vision.shape[1],
            has_prompt=whole.prompt is not None,
        )
        counts = torch.bincount(owner, minlength=len(self.ranks)).tolist()
        return SharedPack(batch, self.ranks, tuple(counts), sp_plan.index)

    def from_first(self, value: Any) -> Any:
        """What the first rank gives; all ranks call it together."""
        box = [value]
        dist.broadcast_object_list(box, self.ranks[0], group_of(self.ranks))
        return box[0]


def group_of_world(world: World, dit: Transformer, copies: bool) -> SequenceGroup | None:
    """All processes as one group, or None where there is one process.

    Args:
        copies: the network has a copy head.

    Raises:
        SettingError: they, or the network, cannot share sequences.
    """
    size = world.world_size
    if size == 1:
        return None
    if size != world.local_world_size or size & (size - 1):
        raise SettingError(
            f"sequence parallel: {size} processes on {size // world.local_world_size} nodes cannot share an "
            "edit; start 2, 4, 8 ... on one"
        )
    if copies:
        raise SettingError(
            "sequence parallel: a copy head (model.extras.copy_bias) compares all of a sequence's tokens, so "
            "that no processes can share one; start one process"
        )
    if dit.config.heads % size:
        raise SettingError(
            f"sequence parallel: {size} processes do not divide the network's {dit.config.heads} heads"
        )
    return SequenceGroup(world.rank, tuple(range(size)))
