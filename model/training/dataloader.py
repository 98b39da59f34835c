"""The steps of a run as a data set: item i is what this rank does of optimizer step `first + i`.

Planned by every rank from the lengths alone (`model.planner.step_plan`), then read, encoded and packed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from torch.utils.data import Dataset

from model.data.batch import DataConfig, Example, MicroBatch, StepBatch, collate
from model.data.dataset import EditDataset
from model.data.mixture import MixtureSampler, Visit
from model.planner.balance import Budget, Cluster
from model.planner.cost import CostModel, by_formula
from model.planner.step_plan import Planner, StepPlan
from model.sequence.layout import Layout, SequenceShard, SharedSequence, SPPlan, lay_out
from shards.errors import EditVerseError

log = logging.getLogger(__name__)

EMPTY = 2  # padding tokens of a rank that has nothing to do


class SampleError(EditVerseError, ValueError):
    """A sample that cannot be read or encoded; the message names it."""


def unreadable(where: str, error: Exception) -> SampleError:
    """What to say of a sample that stops a run."""
    return SampleError(f"{where}: {error}; repair it, or set data.on_error to replace")


class PlannedSteps(Dataset[StepBatch]):
    """What rank `rank` of a cluster does of the steps first to last - 1.

    Args:
        cost: what a sequence costs, by which the steps are planned; operations when not given.
        fixed: pad every micro-batch to the token budget, so that all have one shape.

    Raises:
        ConfigError: a sample that exceeds a budget, or a cluster that does not fit.
    """

    def __init__(
        self,
        pairs: EditDataset,
        config: DataConfig,
        seed: int,
        first: int,
        last: int,
        cluster: Cluster = Cluster(),  # noqa: B008 (frozen)
        rank: int = 0,
        cost: CostModel | None = None,
        fixed: bool = False,
    ) -> None:
        self.pairs, self.config, self.seed, self.first, self.last = pairs, config, seed, first, last
        self.cluster, self.rank, self.fixed = cluster, rank, fixed
        ratios = [row.ratio for row in pairs.rows.values()]
        flops = float("inf") if config.flop_budget is None else config.flop_budget
        self.operations = by_formula(pairs.model.network)
        cost = cost or self.operations
        budget = Budget(config.token_budget, flops)
        order = MixtureSampler(pairs.sizes, ratios, seed)
        self.planner = Planner(pairs.lengths, order, config.batch_size, cost, cluster, budget, pairs.name)

    def plan(self, step: int) -> StepPlan:
        """The plan of a step, the same on all ranks."""
        return self.planner(step)

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __getitem__(self, i: int) -> StepBatch:
        if not 0 <= i < len(self):
            raise IndexError(i)
        plan = self.plan(self.first + i)
        made: dict[int, Example] = {}
        micro = []
        for number, pieces in enumerate(plan.micro[self.rank]):
            for piece in pieces:
                if piece.sample not in made:
                    made[piece.sample] = self._example(plan, piece.sample)
            shared = number < plan.shared[self.rank]
            micro.append(self._micro(plan, pieces, made, shared))
        numbers = {
            "flops": float(self.operations.of(plan.lengths).sum()),
            "imbalance": plan.balanced.imbalance,
            "split": plan.split_tokens,
            "padding": plan.padding(self.config.token_budget),
        }
        return StepBatch(plan.step, tuple(micro), len(plan.draws), numbers)

    def _micro(
        self, plan: StepPlan, pieces: list[SequenceShard], made: dict[int, Example], shared: bool
    ) -> MicroBatch:
        """Pack a micro-batch: parts of shared sequences first."""
        split = sorted((p for p in pieces if len(plan.balanced.pieces[p.sample]) > 1), key=lambda p: p.sample)
        whole = [p for p in pieces if len(plan.balanced.pieces[p.sample]) == 1]
        parts, splits = [], []
        for piece in split:
            example = made[piece.sample]
            parts.append(example.part(piece.start, piece.stop))
            # a dropped text makes a sequence shorter than was planned
            most = len(example.sequence)
            all_pieces = plan.balanced.pieces[piece.sample]
            held = [replace(p, start=min(p.start, most), stop=min(p.stop, most)) for p in all_pieces]
            splits.append(SharedSequence(tuple(held), _layout(example)))
        sp_plan = None
        if shared:
            first = self.rank // self.cluster.size * self.cluster.size
            sp_plan = SPPlan(self.rank, tuple(range(first, first + self.cluster.size)), tuple(splits))
        examples = parts + [made[p.sample] for p in whole]
        tokens = sum(len(e.sequence) for e in examples)
        pad_to = EMPTY if not tokens else None
        if self.fixed:
            # one more than the budget, so that there always is padding; see `prepare_blocks`
            pad_to = self.config.token_budget + EMPTY
        has_prompt = self.pairs.model.sequence.has_prompt
        return collate(examples, pad_to, sp_plan, self.pairs.token_size, has_prompt, self.pairs.groups)

    def _example(self, plan: StepPlan, sample: int) -> Example:
        """A visit; of another sample, by policy, where it cannot be made."""
        draw, config = plan.draws[sample], self.config
        for index in self._candidates(draw):
            try:
                example = self.pairs.example(index, draw.epoch, plan.step, self.seed, config)
                row = self.planner.order.row_of(index)
                return replace(example, dataset=list(self.pairs.rows)[row])
            except (ValueError, OSError) as error:
                if config.on_error == "stop":
                    raise unreadable(f"step {plan.step}: {self.pairs.name(index)}", error) from error
                log.warning("step %d: %s is replaced: %s", plan.step, self.pairs.name(index), error)
        raise SampleError(
            f"step {plan.step}: {self.pairs.name(draw.index)}: nothing in its row can replace it"
        )

    def _candidates(self, draw: Visit) -> Iterator[int]:
        """A sample, and all of its row that could stand in for it, the nearest ones after it first."""
        order, lengths = self.planner.order, self.planner.lengths
        row = order.row_of(draw.index)
        first, last = int(order.offsets[row]), int(order.offsets[row + 1])
        yield draw.index
        for others in (range(draw.index + 1, last), range(first, draw.index)):
            yield from (i for i in others if lengths[i] <= lengths[draw.index])


def _layout(example: Example) -> Layout:
    """Of a sequence as a whole."""
    sequence = example.sequence
    noisy = sequence.segment == sequence.segments.index(sequence.target)
    return Layout(**lay_out([len(sequence)], noisy, sequence.kind))
