"""A pointer from every target token to the context's tokens, whose clean latents it may copy.

Ours, optional, not in the paper; the idea is that of pointer networks (See et al. 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.packing import PackedBatch
from model.rope import RopeConfig, rotate


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
    def reset(self) -> None:
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

    def forward(
        self, generated: Tensor, x: Tensor, vision: Tensor, batch: PackedBatch, cos: Tensor, sin: Tensor
    ) -> Tensor:
        """Mix what is generated with what is copied.

        Args:
            generated: [M, D], the transformer's own prediction at the target tokens.
            x: [N, width], normalised hidden states of all tokens.
            vision: [vision tokens, D], clean where they are context.
            cos, sin: rotation of all N tokens.

        Returns:
            float32 [M, D]; `generated` for sequences without other vision tokens.
        """
        with torch.autocast(x.device.type, enabled=False):
            x, vision = x.to(self.q.weight.dtype), vision.to(self.q.weight.dtype)
            q = rotate(self.q(x)[:, None], cos, sin)[:, 0] * self.q.out_features**-0.5
            k = rotate(self.k(x)[:, None], cos, sin)[:, 0]
            first = len(batch.text)
            is_vision = (batch.gather >= first) & (batch.gather < first + len(vision))
            is_vision[batch.target] = False
            bounds = batch.cu_seqlens.tolist()
            parts, done = [], 0
            targets = batch.target.split(torch.bincount(batch.target_sequence).tolist())
            for start, stop, target in zip(bounds, bounds[1:], targets, strict=False):
                context = start + is_vision[start:stop].nonzero().flatten()
                own = generated[done : done + len(target)].to(vision.dtype)
                done += len(target)
                if len(context):
                    weights = torch.softmax(q[target] @ k[context].T, dim=-1)
                    copied = weights @ vision[batch.gather[context] - first]
                    own = torch.lerp(own, copied, torch.sigmoid(self.gate(x[target])))
                parts.append(own)
            return torch.cat(parts)
