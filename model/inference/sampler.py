"""From noise to the tokens of targets: velocities of the network, guidance, a solver.

Paper section 3.3 and A.1. Under `context: cached` the clean tokens are computed once per edit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.acceleration.config import NO_SHORTCUTS, Shortcuts
from model.acceleration.sequence_parallel import SequenceGroup
from model.acceleration.sparse_sampling import SparseContext
from model.acceleration.step_cache import Evaluations, StepCache
from model.config import InferenceConfig
from model.flow.flow_matching import FlowConfig, shift_of, time_grid, to_velocity, wan_grid
from model.flow.guidance import ProjectedGuidance, chain, rescaled
from model.flow.solvers import SOLVERS, whole_times
from model.net.transformer import Transformer
from model.sequence.interleave import TokenSequence
from model.sequence.packing import pack
from shards.errors import EditVerseError


class NotFiniteError(EditVerseError, ValueError):
    """Values of an edit that are infinite or no numbers; the message says where they arose."""


def check_finite(values: Tensor, what: str, cause: str) -> None:
    """Raise NotFiniteError, saying what holds such values and why it may, unless all are finite."""
    if not torch.isfinite(values).all():
        raise NotFiniteError(f"{what} are not finite: {cause}")


@dataclass(frozen=True)
class Job:
    """What is sampled: the sequences of one target, and its noise.

    Attributes:
        with_text: the sequence; the latents of its target do not matter.
        without_text: the same without its text, the unconditional branch of the guidance.
        noise: float32 [M, D], x at t = 0.
        fewer: the same with fewer sources and without text, from the fewest on, each with the scale of the
            step to the next sequence, of which the last is `without_text`.
        known: clean tokens [K, D] that the target begins with, such as those of frames made before. They
            follow the straight path from their noise, as in RePaint (Lugmayr et al. 2022), so that every
            solver meets them at the noise of its time and ends on them.
        context: leaves out source tokens far from the change; None gives the network all.
    """

    with_text: TokenSequence
    without_text: TokenSequence
    noise: Tensor
    fewer: Sequence[tuple[TokenSequence, float]] = ()
    known: Tensor | None = None
    context: SparseContext | None = None

    def given(self, sequence: TokenSequence) -> TokenSequence:
        """What the network is given of one of its sequences."""
        return sequence if self.context is None else self.context(sequence)

    @property
    def tokens(self) -> int:
        """Of its longest branch."""
        return max(len(s) for s in (self.with_text, self.without_text, *(s for s, _ in self.fewer)))

    def scales(self, config: InferenceConfig) -> list[float]:
        """Of the links of its guidance, see `model.flow.guidance.chain`; none without guidance."""
        guided = self.fewer or config.guidance != 1
        return [*(scale for _, scale in self.fewer), config.guidance] if guided else []

    def key(self, flow: FlowConfig, config: InferenceConfig) -> tuple[float, ...]:
        """What jobs that are sampled side by side have in common: the shift of their times, their scales."""
        return shift_of(flow, len(self.noise)), *self.scales(config)


def _times(config: InferenceConfig, shift: float) -> tuple[list[float], dict[float, float]]:
    """The solver's times, and what the network is told instead of some."""
    if config.solver != "unipc_wan":
        return time_grid(config.steps, shift), {}
    grid = wan_grid(config.steps, shift)
    return grid, whole_times(grid)


def _projection(config: InferenceConfig, sequence: TokenSequence) -> ProjectedGuidance | None:
    if not config.projected:
        return None
    return ProjectedGuidance(sequence.target.size[0], config.eta, config.norm, config.momentum)


def _straight(known: Tensor, noise: Tensor, dit: Transformer) -> Tensor:
    """The velocity of the straight path from noise to known tokens."""
    return known.to(dit.device) - noise[: len(known)].to(dit.device)


class Branch:
    """The network on sequences side by side, as a function of the targets' tokens and the time.

    Attributes:
        prediction: [M, D] of the last run, None before the first; number: the evaluation that it is of.
    """

    def __init__(
        self,
        dit: Transformer,
        sequences: TokenSequence | Sequence[TokenSequence],
        flow: FlowConfig,
        group: SequenceGroup | None = None,
    ) -> None:
        self.dit, self.flow = dit, flow
        side_by_side = [sequences] if isinstance(sequences, TokenSequence) else sequences
        self.shared = None if group is None else group.share(side_by_side)
        self.batch = (pack(side_by_side) if self.shared is None else self.shared.batch).to(dit.device)
        # a rank of several computes the context at every step: its keys and values are all ranks'
        keeps = dit.caches_context and self.shared is None
        self.context = dit.prefill_context(self.batch) if keeps else None
        self.prediction: Tensor | None = None
        self.number = -1

    def velocity(self, x: Tensor, t: float) -> Tensor:
        """float32 [M, D] velocity of the target tokens `x` [M, D] at time t."""
        batch, shared = self.batch, self.shared
        own = x if shared is None else shared.own(x)
        vision = batch.vision.index_copy(0, batch.target_vision, own.to(batch.vision.dtype))
        timestep = torch.ones(batch.segments, device=x.device)
        timestep[batch.target_segment] = t
        predicted = self.dit(batch, vision, timestep, self.context)[0].float()
        self.prediction = predicted if shared is None else shared.gather(predicted)
        return self.last_velocity(x, t)

    def last_velocity(self, x: Tensor, t: float) -> Tensor:
        """As `velocity`, of the prediction that was made last."""
        assert self.prediction is not None  # the first evaluation is computed
        return to_velocity(self.prediction, x, t, self.flow)


class GuidedVelocity:
    """The velocity of jobs side by side, as a solver calls it: all branches, put together by the guidance.

    Args:
        told: what the network is told instead of some times.
        cache: says when predictions are taken again; None runs the network always.
        group: processes that compute the network together; None is this one alone.
    """

    def __init__(
        self,
        dit: Transformer,
        jobs: Sequence[Job],
        flow: FlowConfig,
        config: InferenceConfig,
        told: dict[float, float],
        cache: StepCache | None,
        evaluations: Evaluations,
        group: SequenceGroup | None = None,
    ) -> None:
        self.dit, self.config, self.told, self.cache, self.group = dit, config, told, cache, group
        self.jobs, self.flow = jobs, flow
        self.evaluations = evaluations
        self.scales = jobs[0].scales(config)
        self.build_branches()
        self.heading = torch.empty(0)  # where the last velocity leads, as clean tokens [M, D]
        self.projections = [_projection(config, job.with_text) for job in jobs]
        self.lengths = [len(job.noise) for job in jobs]
        self.fixed = [None if job.known is None else _straight(job.known, job.noise, dit) for job in jobs]
        self.number = 0

    def build_branches(self) -> None:
        """Give the network what the jobs' contexts give of their sequences now."""
        jobs = self.jobs
        self.conditional = Branch(self.dit, [job.given(job.with_text) for job in jobs], self.flow, self.group)
        links = [
            [job.given(s) for s in (*(s for s, _ in job.fewer), job.without_text)]
            for job in jobs
            if self.scales
        ]
        self.others = [
            Branch(self.dit, sequences, self.flow, self.group) for sequences in zip(*links, strict=True)
        ]

    def look(self, step: int) -> None:
        """After a step: have contexts choose their tokens by where the solver is heading."""
        parts = zip(self.jobs, self.heading.split(self.lengths), strict=True)
        looked = [job.context is not None and job.context.look(step, clean) for job, clean in parts]
        if any(looked):
            self.build_branches()

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """[M, D] of the tokens `x` [M, D] of all jobs, one job after the other, at time t."""
        moment = self.told.get(t, t)
        first, last = self.config.interval
        others = self.others if first <= t <= last else []
        branches = [*others, self.conditional]
        due = True
        if self.cache is not None:
            # predictions of different age are not compared, as where guidance begins
            mixed = len({branch.number for branch in branches}) > 1
            fresh = self.conditional.prediction is None
            due = self.cache.is_due(self.dit.step_input(x, moment), t, mixed or fresh)
        velocities = [b.velocity(x, moment) if due else b.last_velocity(x, moment) for b in branches]
        if due:
            self.evaluations.computed += len(branches)
            for branch in branches:
                branch.number = self.number
        else:
            self.evaluations.reused += len(branches)
        self.number += 1
        parts = [values.split(self.lengths) for values in (x, *velocities)]
        by_job = enumerate(zip(*parts, strict=True))
        v = torch.cat([self._of_job(job, target, vs, t) for job, (target, *vs) in by_job])
        self.heading = x + (1 - t) * v
        return v

    def _of_job(self, job: int, x: Tensor, velocities: list[Tensor], t: float) -> Tensor:
        """Of one job's tokens `x`: guided, and straight on for those that are known."""
        v = velocities[-1] if len(velocities) == 1 else self._guided(job, x, velocities, t)
        context = self.jobs[job].context
        if context is not None:
            v = context.hold(v, x, t)
        fixed = self.fixed[job]
        return v if fixed is None else torch.cat([fixed, v[len(fixed) :]])

    def _guided(self, job: int, x: Tensor, velocities: list[Tensor], t: float) -> Tensor:
        """Of one job, from the least conditioned velocity to the most."""
        projection = self.projections[job]
        if projection is not None:
            return projection(velocities, self.scales, x, t)
        return rescaled(chain(velocities, self.scales), velocities[-1], self.config.rescale)


def sample_many(
    dit: Transformer,
    jobs: Sequence[Job],
    flow: FlowConfig,
    config: InferenceConfig,
    tick: Callable[[], None] = lambda: None,
    shortcuts: Shortcuts = NO_SHORTCUTS,
    evaluations: Evaluations | None = None,
    preview: Callable[[Tensor], None] | None = None,
    group: SequenceGroup | None = None,
) -> list[Tensor]:
    """Generate the targets of several edits side by side, in one pack per branch of the guidance.

    Without a step cache each result is, but for rounding, what it is alone; with one, the network is run for
    all when the mean of all has moved.

    Args:
        jobs: at least one; those of a pack have the same times and scales, see `packs`.
        flow: as in training.
        config: steps, solver, guidance with its interval and rescaling.
        tick: called after every step.
        shortcuts: of which the step cache is taken here.
        evaluations: counts how often the network was run.
        preview: called after every step with the clean tokens [M, D] of all jobs, as they were predicted.
        group: processes that all call this with the same, and compute the network together.

    Returns:
        float32 [M, D] of each, clean tokens.

    Raises:
        NotFiniteError: naming the step after which the tokens were no finite numbers.
        ValueError: the jobs differ in times or scales.
    """
    if len({job.key(flow, config) for job in jobs}) != 1:
        raise ValueError("sample_many: the jobs differ in the times or the scales of their guidance")
    x = torch.cat([job.noise for job in jobs]).to(dit.device)
    grid, told = _times(config, shift_of(flow, len(jobs[0].noise)))
    cache = None
    if shortcuts.step_cache:
        # the first step and the last are computed, however often a solver evaluates them
        cache = StepCache(shortcuts.step_cache, grid[1], grid[-2], shortcuts.step_cache_polynomial)
    counts = Evaluations() if evaluations is None else evaluations
    velocity = GuidedVelocity(dit, jobs, flow, config, told, cache, counts, group)
    half = dit.dtype == torch.float16
    cause = "float16 overflows, use dtype float32 or bfloat16" if half else "the weights are damaged"
    for step, after in enumerate(SOLVERS[config.solver](velocity, x, grid), 1):
        x = after
        check_finite(x, f"the tokens after step {step} of {config.steps}", cause)
        if preview is not None:
            preview(velocity.heading)
        if step < config.steps:
            velocity.look(step)
        tick()
    return list(x.split(velocity.lengths))


def sample(
    dit: Transformer,
    with_text: TokenSequence,
    without_text: TokenSequence,
    noise: Tensor,
    flow: FlowConfig,
    config: InferenceConfig,
    tick: Callable[[], None] = lambda: None,
    fewer: Sequence[tuple[TokenSequence, float]] = (),
    known: Tensor | None = None,
    shortcuts: Shortcuts = NO_SHORTCUTS,
    evaluations: Evaluations | None = None,
    context: SparseContext | None = None,
    preview: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Generate the target of one edit, float32 [M, D]; see `Job` and `sample_many`."""
    job = Job(with_text, without_text, noise, tuple(fewer), known, context)
    return sample_many(dit, [job], flow, config, tick, shortcuts, evaluations, preview)[0]


def packs(
    jobs: Sequence[Job], flow: FlowConfig, config: InferenceConfig, token_budget: int
) -> list[list[int]]:
    """Numbers of the jobs that are sampled side by side: alike in times and scales, within a budget.

    Args:
        token_budget: the most tokens of a pack; a job with more is alone.
    """
    groups: dict[object, list[int]] = {}
    full: list[list[int]] = []
    for number, job in enumerate(jobs):
        group = groups.setdefault(job.key(flow, config), [])
        if group and sum(jobs[i].tokens for i in group) + job.tokens > token_budget:
            full.append(group.copy())
            group.clear()
        group.append(number)
    return sorted([*full, *(group for group in groups.values() if group)])
