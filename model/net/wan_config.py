"""Sizes of Wan's transformer (Wan 2.1 and 2.2, and Bernini-R, which was trained from them).

Apart from the network itself, so that plans and reports need no layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from model.net.attention import Backend
from model.sequence.rope import AXES, RopeConfig
from shards.errors import SettingError
from shards.limits import MAX_DEPTH, MAX_HEADS, MAX_WIDTH, in_range


@dataclass(frozen=True)
class WanConfig:
    """Sizes of `model.net.wan.WanTransformer`; the defaults are those of Wan 2.1 T2V 1.3B.

    Attributes:
        text_dim: numbers per text token (UMT5-XXL has 4096); vision_dim: numbers per vision token, latent
            channels x 2 x 2. 0 in a training configuration takes what the encoders give.
        width, depth, heads: of the blocks; hidden: inner width of their feed-forward part.
        text_tokens: to how many tokens a prompt is filled up with zeros, which are keys too; the published
            models were trained with 512.
        rope: channels of a head per axis, see `wan_dims`; `source` adds Bernini's phase of the source.
        source_time: the time step of what is not generated. `clean` is t = 1 (Wan 2.2 TI2V's first frame);
            `target` is the target's own (Bernini).
        words: the text is among the tokens too (`SequenceConfig.text: both`). Every token attends to its
            sequence's vision tokens, as without words, and apart from these to its text, start and end
            tokens, whose part is gated per head. Gates begin at zero, where vision is what it is without
            words (LLaMA-Adapter, Zhang et al. 2023, section 3.2).
        boundary: with two experts, the noise level 1 - t from which on the first one is asked (Wan 2.2 A14B:
            0.875); None is a single transformer.
        norm_eps: of all norms.
        attention, deterministic: see `model.net.attention`.
    """

    text_dim: int = 4096
    vision_dim: int = 64
    width: int = 1536
    depth: int = 30
    heads: int = 12
    hidden: int = 8960
    text_tokens: int = 512
    rope: RopeConfig = field(default_factory=RopeConfig)
    source_time: Literal["clean", "target"] = "clean"
    words: bool = False
    boundary: float | None = None
    norm_eps: float = 1e-6
    attention: Backend = "auto"
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (
            ("text_dim", 0, MAX_WIDTH),
            ("vision_dim", 0, MAX_WIDTH),
            ("width", 1, MAX_WIDTH),
            ("depth", 1, MAX_DEPTH),
            ("heads", 1, MAX_HEADS),
            ("hidden", 1, 8 * MAX_WIDTH),
            ("text_tokens", 1, 1 << 16),
            ("norm_eps", 0, 1),
        ):
            in_range(f"dit.{name}", getattr(self, name), least, most)
        if self.boundary is not None:
            in_range("dit.boundary", self.boundary, 0, 1)
        if self.width % self.heads:
            raise SettingError(f"dit.width {self.width} does not divide into {self.heads} heads")
        if not self.rope.dims:
            object.__setattr__(self, "rope", replace(self.rope, dims=wan_dims(self.width // self.heads)))
        if len(self.rope.dims) != len(AXES) or sum(self.rope.dims) != self.width // self.heads:
            raise SettingError(
                f"dit.rope.dims {self.rope.dims}: one number each for {', '.join(AXES)}, "
                f"which add up to the {self.width // self.heads} channels of a head"
            )


def wan_dims(head_dim: int) -> tuple[int, int, int, int]:
    """Channels of a head for (source, time, height, width): (0, 44, 42, 42) of 128.

    The source has no channels of its own; see `RopeConfig.source`. Raises SettingError for an odd head size
    or one below 6.
    """
    if head_dim % 2 or head_dim < 6:
        raise SettingError(f"head size {head_dim}: needs an even number, at least 6")
    space = 2 * (head_dim // 6)
    return 0, head_dim - 2 * space, space, space
