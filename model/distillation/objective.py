"""What a student learns: over each of its few steps, the teacher's guided path in one straight line.

The time from noise to data is cut into as many windows as the student has steps. In a window the teacher goes
from a noised sample, step by small step, to where its guided velocities lead; the student learns the chord
of that path. It is piecewise rectified flow (PeRFlow, Yan et al. 2024), which needs neither an adversary nor
whole trajectories from noise, with guidance folded in as in Meng et al. 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import ModelConfig
from model.data.batch import MicroBatch
from model.distillation.config import DistillConfig
from model.distillation.teacher import Teacher
from model.flow.flow_matching import interpolate, shift_of, time_grid, to_velocity, token_loss
from model.net.transformer import Transformer


@dataclass(frozen=True)
class Distillation:
    """The loss of a student.

    Of a micro-batch, `time` is not a noise level here but a place on the student's grid: (j + f) / steps is
    the share f of window j.
    """

    config: DistillConfig
    model: ModelConfig
    teacher: Teacher

    @property
    def loss_times(self) -> tuple[float, ...]:
        """Places at which the held-out loss is computed: the middle of every window."""
        return tuple((window + 0.5) / self.config.steps for window in range(self.config.steps))

    def windows(self, micro: MicroBatch) -> Tensor:
        """The teacher's times over each sequence's window.

        float64 [S, teacher_steps / steps + 1], on the CPU. They are those of the solver for a target of that
        many tokens, shift included.
        """
        steps, total = self.config.steps, self.config.teacher_steps
        small = total // steps
        grids = []
        for place, tokens in zip(micro.time.tolist(), micro.size.tolist(), strict=True):
            window = min(int(place * steps), steps - 1)
            grid = time_grid(total, shift_of(self.model.flow, tokens))
            grids.append(grid[window * small : (window + 1) * small + 1])
        return torch.tensor(grids, dtype=torch.float64).view(-1, small + 1)

    def token_losses(self, network: Transformer, micro: MicroBatch) -> Tensor:
        """Weighted squared error of the student's velocity per target token, float32 [M].

        It is divided by as in training where the output is clean data (`FlowConfig.min_remaining`), and a
        mean over both outputs with a copy head, see `model.training.module.micro_loss`.
        """
        batch, flow = micro.batch, self.model.flow
        sequence = batch.target_sequence
        grid = self.windows(micro)
        first, last = (grid[:, end].to(micro.noise)[sequence, None] for end in (0, -1))
        start = interpolate(micro.noise, batch.vision[batch.target_vision], first)
        chord = (self.teacher.integrate(micro, start, grid) - start) / (last - first)
        within = torch.zeros_like(micro.time)
        if self.config.times == "within":
            within = (micro.time * self.config.steps).frac()
        moment = torch.lerp(grid[:, 0].to(within), grid[:, -1].to(within), within)
        t = moment[sequence, None]
        x = start + (t - first) * chord
        timestep = torch.ones(batch.segments, device=t.device)
        timestep[batch.target_segment] = moment
        if flow.prediction == "x1":  # the data that the chord leads to, divided as the output is
            chord = to_velocity(x + (1 - t) * chord, x, t, flow, flow.min_remaining)
        losses = [
            token_loss(to_velocity(output.float(), x, t, flow, flow.min_remaining), chord)
            for output in network(batch, batch.vision.index_copy(0, batch.target_vision, x), timestep)
        ]
        return micro.weight * torch.stack(losses).mean(0)
