"""From noise to the tokens of a target: velocities of the network, guidance, a solver.

Paper section 3.3 and A.1. Under `context: cached` the clean tokens are computed once per edit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.acceleration.sparse_sampling import SparseContext
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


class Branch:
    """The network on one sequence, as a function of the target's tokens and the time."""

    def __init__(self, dit: Transformer, sequence: TokenSequence, flow: FlowConfig) -> None:
        self.dit, self.flow = dit, flow
        self.batch = pack([sequence]).to(dit.device)
        self.context = dit.prefill_context(self.batch) if dit.caches_context else None

    def velocity(self, x: Tensor, t: float) -> Tensor:
        """float32 [M, D] velocity of the target tokens `x` [M, D] at time t."""
        batch = self.batch
        vision = batch.vision.index_copy(0, batch.target_vision, x.to(batch.vision.dtype))
        timestep = torch.ones(batch.segments, device=x.device)
        timestep[batch.target_segment] = t
        output = self.dit(batch, vision, timestep, self.context)[0].float()
        return to_velocity(output, x, t, self.flow)


def sample(
    dit: Transformer,
    with_text: TokenSequence,
    without_text: TokenSequence,
    noise: Tensor,
    flow: FlowConfig,
    config: InferenceConfig,
    tick: Callable[[], None] = lambda: None,
    fewer: Sequence[tuple[TokenSequence, float]] = (),
    context: SparseContext | None = None,
) -> Tensor:
    """Generate the target of a sequence.

    Args:
        with_text: the sequence; the latents of its target do not matter.
        without_text: the same without its text, the unconditional branch of the guidance.
        noise: float32 [M, D], x at t = 0.
        flow: as in training.
        config: steps, solver, guidance with its interval and rescaling.
        tick: called after every step.
        fewer: the same with fewer sources and without text, from the fewest on, each with the scale of the
            step to the next sequence, of which the last is `without_text`.
        context: leaves out source tokens far from the change; None gives the network all.

    Returns:
        float32 [M, D], clean tokens.

    Raises:
        NotFiniteError: naming the step after which the tokens were no finite numbers.
    """
    x = noise.to(dit.device)
    grid, told = _times(config, shift_of(flow, len(noise)))
    links = [*fewer, (without_text, config.guidance)] if fewer or config.guidance != 1 else []

    def branches() -> list[Branch]:
        sequences = [with_text, *(sequence for sequence, _ in links)]
        return [Branch(dit, s if context is None else context(s), flow) for s in sequences]

    conditional, *others = branches()
    predicted = x  # the clean target that the last velocity heads for
    scales = [scale for _, scale in links]
    projected = _projection(config, with_text)
    first, last = config.interval

    def guided(x: Tensor, t: float) -> Tensor:
        moment = told.get(t, t)
        v = conditional.velocity(x, moment)
        if not others or not first <= t <= last:
            return v
        velocities = [*(branch.velocity(x, moment) for branch in others), v]
        if projected is not None:
            return projected(velocities, scales, x, t)
        return rescaled(chain(velocities, scales), v, config.rescale)

    def velocity(x: Tensor, t: float) -> Tensor:
        nonlocal predicted
        if context is None:
            return guided(x, t)
        v = context.hold(guided(x, t), x, t)
        predicted = x + (1 - t) * v
        return v

    half = dit.dtype == torch.float16
    cause = "float16 overflows, use dtype float32 or bfloat16" if half else "the weights are damaged"
    for step, after in enumerate(SOLVERS[config.solver](velocity, x, grid), 1):
        x = after
        check_finite(x, f"the tokens after step {step} of {config.steps}", cause)
        if context is not None and step < config.steps and context.look(step, predicted):
            conditional, *others = branches()
        tick()
    return x
