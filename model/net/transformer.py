"""What every family of transformers has in common, for those who train, sample and store one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model.sequence.packing import PackedBatch


class Transformer(nn.Module):
    """Packed tokens in, predictions at the target tokens out.

    Attributes:
        config: `DiTConfig` or `WanConfig`.
        blocks: what is compiled, recomputed and shared out one by one.
    """

    config: Any
    blocks: nn.ModuleList

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype, which is that of the residual stream."""
        return next(self.parameters()).dtype

    @property
    def caches_context(self) -> bool:
        """Whether `prefill_context` gives something that serves at every step."""
        return False

    def prefill_context(self, batch: PackedBatch) -> Any:
        """Run the clean tokens once, for `forward`'s `context`; ValueError where they see the noisy ones."""
        raise ValueError(f"{type(self).__name__}: clean tokens see the noisy ones, so nothing can be kept")

    def step_input(self, x: Tensor, t: float) -> Tensor:
        """[M, width]: what the first block makes by the timestep of the target's tokens `x` [M, vision_dim].

        It is the input of its attention, of which positions and other tokens are no part: cheap, and a sign
        of how much the prediction changes from one time t to the next (TeaCache).
        """
        raise NotImplementedError

    def forward(
        self, batch: PackedBatch, vision: Tensor, timestep: Tensor, context: Any = None
    ) -> tuple[Tensor, ...]:
        """Predict at the target tokens, see `DiT.forward`."""
        raise NotImplementedError
