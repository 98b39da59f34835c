"""When sampling under a sparse context learns where the change is, and what it then gives the network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.acceleration.config import Shortcuts
from model.acceleration.sparse_context import Grid, change_distance, kept_tokens, sparse_sequence
from model.sequence.interleave import SequenceError, TokenSequence

PROBE = 10  # the first of so many solver steps see the whole context, where no mask is given
UNCHANGED = 0.1  # a token that is predicted so near to the source's, as a share of its RMS, stays as it was


def check_context(shortcuts: Shortcuts, edits: bool, masked: bool, steps: int) -> None:
    """Raise SequenceError where a result cannot be made with a sparse context.

    Args:
        edits: it is an edit of one medium; masked: a mask is given; steps: of the solver.
    """
    if shortcuts.context_tokens == 1:
        return
    if not edits:
        raise SequenceError(
            "shortcuts.context_tokens: leaves out parts of what is edited, and here nothing is; use 1"
        )
    if steps < 2 and not masked:
        raise SequenceError(
            "shortcuts.context_tokens: without a mask the first step looks for the change; use 2 or more"
        )


class SparseContext:
    """The context of one window: whole until it is known where the change is, then sparse.

    With a mask that is from the beginning. Else the first steps (one in `PROBE`, at least one) are computed
    with the whole context, and what they predict is compared with the source.

    Sources with the token grid of the one that is edited lose tokens: that one, other videos, masks. Media
    elsewhere in space (a reference picture, a video of another size) have no distance to the change, and are
    whole.

    A target token whose own source token is left out and that does not change is not left to the network,
    which no longer sees what it should be: it goes straight to the source's latents. A copy head copies from
    the tokens that are given alone, and so needs no others for what stays as it was.
    """

    def __init__(
        self,
        shortcuts: Shortcuts,
        sequence: TokenSequence,
        source: str,
        steps: int,
        mask: np.ndarray | None = None,
    ) -> None:
        """Begin a window.

        Args:
            sequence: that of the window, whole.
            source: name of the medium that is edited.
            steps: of the solver.
            mask: uint8 [T, H, W, 3], white where the change is to be, of any size; None if not known.
        """
        self.shortcuts, self.probe = shortcuts, max(1, steps // PROBE)
        segment = next(s for s in sequence.segments if s.name == source)
        self.grid, self.target = segment.size, sequence.target.size
        self.source = sequence.part(segment.start, segment.stop).vision
        self.thinned = [
            s.name
            for s in sequence.segments
            if s.size == self.grid and not s.target and (s.name == source or not s.name.startswith("image"))
        ]
        self.weights: dict[str, Tensor] = {}
        self.held: Tensor | None = None
        if mask is not None:
            changed = _on_grid(torch.from_numpy(mask.mean(-1) > 127.5).float(), self.grid)
            self._choose(changed, ~changed)

    def __call__(self, sequence: TokenSequence) -> TokenSequence:
        """What the network is given of a sequence, as far as is known now."""
        return sparse_sequence(sequence, self.weights, self.shortcuts.beyond)

    def look(self, step: int, predicted: Tensor) -> bool:
        """Choose by what the solver is heading for, if this is the time to.

        Args:
            step: how many have been made; predicted: [M, D], the clean target as the last one had it.

        Returns:
            True where sequences are now to be given anew.
        """
        if step != self.probe or self.weights:
            return False
        source = self._at_target()
        apart = (predicted.float() - source).square().mean(1).sqrt().cpu().numpy().reshape(self.target)
        same = apart <= UNCHANGED * float(source.square().mean().sqrt())
        changed = apart > _two_classes(apart)
        self._choose(_on_grid(torch.from_numpy(changed & ~same).float(), self.grid), same)
        return True

    def hold(self, velocity: Tensor, x: Tensor, t: float) -> Tensor:
        """The velocity [M, D] at x [M, D] and t < 1, straight to the source where nothing changes."""
        if self.held is None:
            return velocity
        straight = (self.source.to(x) - x) / (1 - t)
        return torch.where(self.held.to(x.device)[:, None], straight, velocity)

    def _choose(self, changed: np.ndarray, same: np.ndarray) -> None:
        """Keep tokens by the change, bool on the source's grid; `same` is on the target's."""
        distance = change_distance(changed).flatten()
        weight = torch.from_numpy(kept_tokens(distance, self.shortcuts.context_tokens))
        self.weights = dict.fromkeys(self.thinned, weight)
        if self.grid == self.target:
            self.held = (weight == 0) & torch.from_numpy(same.flatten())

    def _at_target(self) -> Tensor:
        """float32 [M, D]: the source's tokens, interpolated where the target's grid is another."""
        source = self.source.float()
        if self.grid == self.target:
            return source
        volume = source.T.reshape(1, -1, *self.grid)
        return F.interpolate(volume, self.target, mode="trilinear").flatten(2)[0].T


def _on_grid(marked: Tensor, grid: Grid) -> np.ndarray:
    """bool on a grid: which of its cells hold anything that is marked, float [T, H, W] of any size."""
    found: np.ndarray = F.adaptive_max_pool3d(marked[None], grid)[0].numpy() > 0
    return found


def _two_classes(apart: np.ndarray) -> float:
    """Otsu's threshold of distances, found on their square roots, since few are large."""
    import cv2

    roots = np.sqrt(apart)
    most = max(float(roots.max()), 1e-12)
    threshold, _ = cv2.threshold(np.uint8(255 * roots / most).reshape(1, -1), 0, 255, cv2.THRESH_OTSU)
    return float(((threshold + 1) / 255 * most) ** 2)
