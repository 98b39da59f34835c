"""A pointer from every target token to the context's tokens, whose clean latents it may copy.

Ours, optional, not in the paper; the idea is that of pointer networks (See et al. 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.sequence.packing import PackedBatch
from model.sequence.rope import RopeConfig, rotate


class CopyHead(nn.Module):
    """gate * softmax(q k) v + (1 - gate) * generated, v the clean latents of the other vision tokens.

    An edit leaves most of a video as it was. A transformer must learn to carry those numbers through its
    width, which takes more samples than a short run sees; here they are carried as they are, and the network
    learns where not to copy and what to put there. Queries and keys begin with constant biases under the
    rotary embedding, so that every token points at its own place in the other elements.

    Args:
        width: of the hidden states; rope: as in the transformer, its sum is the head's size.
        prior: initial bias of queries and keys per axis (sequence, time, height, width).
    """

    def __init__(self, width: int, rope: RopeConfig, prior: tuple[float, ...]) -> None:
        super().__init__()
        self.rope, self.prior = rope, prior
        size = sum(rope.dims)
        self.q = nn.Linear(width, size)
        self.k = nn.Linear(width, size)
        self.gate = nn.Linear(width, 1)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Point at the own place and copy more than is generated, whatever the content."""
        half = sum(self.rope.dims) // 2
        bias = torch.zeros(2 * half)
        start = 0
        for dim, value in zip(self.rope.dims, self.prior, strict=True):
            bias[start : start + dim // 2] = value
            start += dim // 2
        for layer in (self.q, self.k):
            layer.weight.mul_(0.1)
            layer.bias.copy_(bias)
        self.gate.weight.zero_()
        self.gate.bias.fill_(1.0)

    def keys(self, x: Tensor, batch: PackedBatch, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Where can be copied from: (rows among the N tokens, their rotated keys [rows, head_dim]), float32.

        Args:
            x: [N, width], normalised hidden states, of which only the clean vision tokens' are used.
            cos, sin: rotation of all N tokens.
        """
        rows = batch.sources
        with torch.autocast(x.device.type, enabled=False):
            k = self.k(x[rows].to(self.k.weight.dtype))
            return rows, rotate(k[:, None], cos[rows], sin[rows])[:, 0]

    def forward(
        self,
        generated: Tensor,
        x: Tensor,
        keys: tuple[Tensor, Tensor],
        batch: PackedBatch,
        cos: Tensor,
        sin: Tensor,
    ) -> Tensor:
        """Mix what is generated with what is copied.

        Args:
            generated: [M, D], the transformer's own prediction at the target tokens.
            x: [M, width], normalised hidden states of the target tokens.
            keys: of `keys`.
            cos, sin: rotation of all N tokens.

        Returns:
            float32 [M, D]; `generated` for sequences without other vision tokens.
        """
        rows, k = keys
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.q.weight.dtype)
            q = rotate(self.q(x)[:, None], cos[batch.target], sin[batch.target])[:, 0]
            q = q * self.q.out_features**-0.5
            gate = torch.sigmoid(self.gate(x))
            values = batch.vision[batch.gather[rows] - len(batch.text)].to(x.dtype)
            parts = []
            pieces, sources = (generated.to(x.dtype), q, gate), list(batch.lengths["sources"])
            for (own, asks, share), (has, gives) in zip(
                zip(*(p.split(list(batch.lengths["target"])) for p in pieces), strict=True),
                zip(k.split(sources), values.split(sources), strict=True),
                strict=True,
            ):
                if len(own) and len(has):
                    own = torch.lerp(own, torch.softmax(asks @ has.T, dim=-1) @ gives, share)
                parts.append(own)
            # also without anything to copy, so that every weight has a gradient
            unused = (q.sum() + k.sum() + gate.sum()) * 0
            return torch.cat([*parts, generated.to(x.dtype)[:0]]) + unused
