"""The steps of a run as a data set: item i is what this rank does of optimizer step `first + i`.

Planned by every rank from the lengths alone (`model.planner.step_plan`), then read, encoded and packed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import Dataset

from model.data.batch import DataConfig, Example, MicroBatch, StepBatch, collate
from model.data.dataset import EditDataset
from model.data.mixture import MixtureSampler, Visit
from model.planner.balance import Budget, Cluster, PackPlan
from model.planner.cost import CostModel, by_formula
from model.planner.step_plan import Planner, StepPlan
from model.sequence.layout import SPPlan
from model.sequence.packing import pack_layout
from shards.errors import EditVerseError

log = logging.getLogger(__name__)

EMPTY = 2  # padding tokens of a rank that has nothing to do


class SampleError(EditVerseError, ValueError):
    """A sample that cannot be read or encoded; the message names it."""


def unreadable(where: str, error: Exception) -> SampleError:
    """What to say of a sample that stops a run."""
    return SampleError(f"{where}: {error}; repair it, or set data.on_error to replace")


@dataclass(frozen=True)
class ReadStep:
    """What was read of a step: its examples, by their numbers in the plan."""

    plan: StepPlan
    examples: dict[int, Example]


def owner_of(pack: PackPlan, place: int) -> int:
    """The rank that reads the sequence at a place of a pack for all ranks that share it: each in turn."""
    return pack.ranks[place % pack.size]


class PlannedSteps(Dataset[StepBatch]):
    """What rank `rank` of a cluster does of the steps first to last - 1.

    Args:
        cost: what a sequence costs, by which the steps are planned; operations when not given.
        fixed: pad every micro-batch to the token budget, so that all have one shape.
        equal: give every rank as many micro-batches as the one with most of them, the last ones empty.

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
        equal: bool = False,
    ) -> None:
        self.pairs, self.config, self.seed, self.first, self.last = pairs, config, seed, first, last
        self.cluster, self.rank, self.fixed, self.equal = cluster, rank, fixed, equal
        ratios = [row.ratio for row in pairs.rows.values()]
        flops = float("inf") if config.flop_budget is None else config.flop_budget
        self.operations = by_formula(pairs.model.network)
        cost = cost or self.operations
        budget = Budget(config.token_budget, flops)
        limits = [row.max_visits for row in pairs.rows.values()]
        order = MixtureSampler(pairs.sizes, ratios, seed, max_visits=limits)
        order.check(last * config.batch_size)
        longest = pairs.vision_bounds()[1], pairs.name_of_longest
        self.planner = Planner(
            pairs.lengths_of, order, config.batch_size, cost, cluster, budget, pairs.name, longest
        )

    def plan(self, step: int) -> StepPlan:
        """The plan of a step, the same on all ranks."""
        return self.planner(step)

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __getitem__(self, i: int) -> StepBatch:
        return self.packed(self.read(i))

    def shared_samples(self, plan: StepPlan) -> set[int]:
        """Numbers of the sequences that ranks of this one's block share; the same on all ranks of it."""
        block = self.rank // self.cluster.degree
        packs = (p for p in plan.balanced.packs if p.size > 1 and p.first // self.cluster.degree == block)
        return {sample for pack in packs for sample in pack.samples}

    def read(self, i: int, owned: bool = False) -> ReadStep:
        """Read and encode what this rank works on in step `first + i`.

        Args:
            owned: of the sequences that it shares with other ranks, only those that it owns (`owner_of`).

        Raises:
            SampleError: a sample that cannot be read, by policy.
        """
        if not 0 <= i < len(self):
            raise IndexError(i)
        plan = self.plan(self.first + i)
        chosen = (
            sample
            for pack in plan.micro[self.rank]
            for place, sample in enumerate(pack.samples)
            if not owned or owner_of(pack, place) == self.rank
        )
        return ReadStep(plan, {sample: self._example(plan, sample) for sample in chosen})

    def packed(self, step: ReadStep) -> StepBatch:
        """This rank's part of a step of which it has all examples that it works on."""
        plan = step.plan
        planned = list(plan.micro[self.rank])
        # weights are gathered, and gradients summed, by all ranks together: none has nothing to do
        least = max(map(len, plan.micro)) if self.equal else 1
        planned += [PackPlan((), self.rank, 1)] * (least - len(planned))
        micro = [self._micro([step.examples[sample] for sample in pack.samples], pack) for pack in planned]
        numbers = {
            "flops": float(self.operations.of(plan.lengths).sum()),
            "imbalance": plan.balanced.imbalance,
            "split": plan.split_tokens,
            "padding": plan.padding(self.config.token_budget),
        }
        if self.pairs.groups.datasets:
            visits = self.planner.order.visits_before((plan.step + 1) * self.config.batch_size).tolist()
            numbers |= {f"visits/{name}": float(n) for name, n in zip(self.pairs.rows, visits, strict=True)}
        return StepBatch(plan.step, tuple(micro), len(plan.draws), numbers)

    def _micro(self, examples: list[Example], pack: PackPlan) -> MicroBatch:
        """Pack a micro-batch, or this rank's run of one that is shared."""
        shared = None
        if pack.size > 1:
            sequences = [e.sequence for e in examples]
            # by the lengths that they have: a dropped text makes a sequence shorter than was planned
            lengths = [len(s) for s in sequences]
            sp_plan = SPPlan(self.rank, tuple(pack.ranks), sum(lengths))
            shared = sp_plan, pack_layout(sequences)
            examples = [examples[i].part(start, stop) for i, start, stop in sp_plan.parts(lengths)]
        pad_to = None if any(len(e.sequence) for e in examples) else EMPTY
        if self.fixed:
            # one more than the budget, so that there always is padding; see `prepare_blocks`
            pad_to = self.config.token_budget + EMPTY
        has_prompt = self.pairs.model.sequence.has_prompt
        return collate(examples, pad_to, shared, self.pairs.token_size, has_prompt, self.pairs.groups)

    def _example(self, plan: StepPlan, sample: int) -> Example:
        """A visit; of another sample, by policy, where it cannot be made."""
        draw, config = plan.draws[sample], self.config
        for index in self._candidates(draw):
            try:
                return self.pairs.example(index, draw.epoch, plan.step, self.seed, config)
            except (ValueError, OSError) as error:
                if config.on_error == "stop":
                    raise unreadable(f"step {plan.step}: {self.pairs.name(index)}", error) from error
                log.warning("step %d: %s is replaced: %s", plan.step, self.pairs.name(index), error)
        raise SampleError(
            f"step {plan.step}: {self.pairs.name(draw.index)}: nothing in its row can replace it"
        )

    def _candidates(self, draw: Visit) -> Iterator[int]:
        """A sample, and all of its row that could stand in for it, the nearest ones after it first."""
        order, lengths_of = self.planner.order, self.planner.lengths_of
        row = order.row_of(draw.index)
        first, last = int(order.offsets[row]), int(order.offsets[row + 1])
        yield draw.index
        (most,) = lengths_of([draw.index])
        for others in (range(draw.index + 1, last), range(first, draw.index)):
            yield from (i for i in others if lengths_of([i])[0] <= most)
