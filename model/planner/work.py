"""What formulas of operations are about: the shape of a sequence, and the products of one pass over it.

Matrix products only, two operations per multiply-add, as `torch.utils.flop_counter` counts them.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from model.sequence.interleave import TokenSequence

SINUSOIDS = 256  # of a timestep, in both families


@dataclass(frozen=True)
class Shape:
    """What a sequence's work depends on, in tokens.

    Attributes:
        text: tokens of the text, among the others or apart as a prompt; vision: vision tokens of all
            elements.
        noisy: tokens of the target's segment, start and end of vision included; target: its vision tokens.
        total: all tokens of the sequence, a prompt apart left out; segments: texts and vision elements.
        inline: tokens of the text among the others, where there is a prompt apart as well.
    """

    text: int
    vision: int
    noisy: int
    target: int
    total: int
    segments: int
    inline: int = 0


def shape_of(sequence: TokenSequence) -> Shape:
    """The shape of a sequence."""
    target = sequence.target
    return Shape(
        text=len(sequence.text) if sequence.prompt is None else len(sequence.prompt),
        vision=len(sequence.vision),
        noisy=target.stop - target.start,
        target=math.prod(target.size),
        total=len(sequence),
        segments=len(sequence.segments),
        inline=0 if sequence.prompt is None else len(sequence.text),
    )


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one pass, apart by what their backward pass is.

    Attributes:
        linear: gradients of weights and inputs, twice the forward.
        frozen: of one factor only, since the other is data: once the forward.
        fixed: of neither.
        attention: scores and their products with the values: twice, or 2.5 times when scores are recomputed.
        prompts: the same of the attention to prompts, whose kernels always recompute: 2.5 times.
    """

    linear: int = 0
    frozen: int = 0
    fixed: int = 0
    attention: int = 0
    prompts: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def flops(self) -> int:
        """Operations of the pass itself."""
        return 2 * sum(astuple(self))

    def backward_flops(self, fused: bool) -> int:
        """Operations of the backward pass; `fused`: attention computes its scores again."""
        attention = (5 if fused else 4) * self.attention + 5 * self.prompts
        return 4 * self.linear + 2 * self.frozen + attention
