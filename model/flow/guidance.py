"""Guidance along a chain of conditions: nothing, sources, sources and instruction.

Each step of the chain has its own scale. With two links it is classifier-free guidance (Ho and Salimans
2022); with more it is what InstructPix2Pix (Brooks et al. 2023, eq. 3) and Bernini (`rv2v`) do.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def chain(velocities: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """v_0 + sum of scale_i (v_i - v_{i-1}), [M, D].

    Args:
        velocities: of one target, from the least conditioned to the most; one more than `scales`.
    """
    guided = velocities[0]
    for scale, (less, more) in zip(scales, itertools.pairwise(velocities), strict=True):
        guided = guided + scale * (more - less)
    return guided


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Guided velocities brought back to the spread of the conditional ones (Lin et al. 2023, section 3.4).

    Args:
        share: how far, 0 not at all, 1 wholly; large scales oversaturate otherwise.
    """
    if not share:
        return guided
    return guided * (1 - share + share * conditional.std() / guided.std().clamp_min(1e-12))


class ProjectedGuidance:
    """Adaptive projected guidance (Sadat et al. 2024) of clean predictions, as in Bernini's `*_apg`.

    What a condition changes is split, frame by frame, into a part along the conditioned prediction, which
    saturates colours and is weighted by `eta`, and one across it. It keeps the running averages of one
    sampling run.

    Args:
        frames: latent frames of the target.
        eta: 1 is plain guidance.
        norm: largest Euclidean norm of a frame's change; 0 is no limit.
        momentum: share of the step before that is added; negative pushes away from it.
    """

    def __init__(self, frames: int, eta: float = 1.0, norm: float = 0.0, momentum: float = 0.0) -> None:
        self.frames, self.eta, self.norm, self.momentum = frames, eta, norm, momentum
        self._averages: dict[int, Tensor] = {}

    def __call__(self, velocities: Sequence[Tensor], scales: Sequence[float], x: Tensor, t: float) -> Tensor:
        """As `chain`, of the targets [M, D] `x` at time t."""
        clean = [x + (1 - t) * v for v in velocities]
        guided = clean[0]
        for link, (scale, (less, more)) in enumerate(zip(scales, itertools.pairwise(clean), strict=True)):
            guided = guided + scale * self._projected(more - less, more, link)
        return (guided - x) / (1 - t)

    def _projected(self, change: Tensor, towards: Tensor, link: int) -> Tensor:
        change = change + self.momentum * self._averages.get(link, torch.zeros_like(change))
        self._averages[link] = change
        by_frame = change.reshape(self.frames, -1)
        if self.norm:
            length = by_frame.norm(dim=1, keepdim=True).clamp_min(torch.finfo(by_frame.dtype).tiny)
            by_frame = by_frame * (self.norm / length).clamp(max=1)
        direction = torch.nn.functional.normalize(towards.reshape(self.frames, -1).double(), dim=1)
        along = (by_frame.double() * direction).sum(1, keepdim=True) * direction
        across = by_frame.double() - along
        return (across + self.eta * along).to(change.dtype).reshape(change.shape)
