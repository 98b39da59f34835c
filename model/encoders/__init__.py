"""What turns pixels into latents and text into token states: offline or learned, behind one face.

An encoder is named in YAML and in `config.json` by its class path and arguments.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn


class Codec(Protocol):
    """Pixels to latents and back; the interface of a learned video VAE.

    Attributes:
        channels: numbers per latent position.
        spatial: pixels per latent position along height and width.
        temporal: frames per latent frame after the first, which stands alone: 1 + temporal k frames.
    """

    channels: int
    spatial: int
    temporal: int

    def encode(self, video: Tensor) -> Tensor:
        """float [T, H, W, 3] in [-1, 1] -> float latents [t, h, w, channels] of about unit scale."""

    def decode(self, latents: Tensor, size: tuple[int, int, int] | None = None) -> Tensor:
        """Latents -> float [T, H, W, 3], not clipped; `size` (T, H, W) crops the padding away."""

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(t, h, w) of the latents of a video."""


class TextEncoder(Protocol):
    """Text to token states; `width` numbers per token."""

    width: int

    def encode(self, texts: list[str]) -> list[Tensor]:
        """One float32 [tokens, width] per text, of its real tokens only; an empty text has no tokens."""


@dataclass(frozen=True)
class Part:
    """A class by path and its arguments, as YAML and `config.json` hold it."""

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        """Make the object. Only classes of `model.encoders` are taken: a checkpoint is data, not code.

        Raises ValueError naming the class path when it is not one of ours.
        """
        module, _, name = self.class_path.rpartition(".")
        if not module.startswith("model.encoders."):
            raise ValueError(f"class_path {self.class_path!r}: only classes under model.encoders are allowed")
        try:
            cls = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"class_path {self.class_path!r}: {error}") from error
        try:
            return cls(**self.init_args)
        except TypeError as error:
            raise ValueError(f"class_path {self.class_path!r}: {error}") from error


def count_parameters(module: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in module.parameters())
