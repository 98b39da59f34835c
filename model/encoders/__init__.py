"""What turns pixels into latents and text into token states: offline or learned, behind one face.

An encoder is named in YAML and in `config.json` by its class path and arguments.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from shards.errors import SettingError


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

    def to(self, device: torch.device | str) -> Self:
        """Compute on a device; returns itself."""


class TextEncoder(Protocol):
    """Text to token states; `width` numbers per token.

    A `light` one is run when a sample is visited, by whoever loads it; others encode all texts beforehand.
    """

    width: int
    light: bool

    def encode(self, texts: list[str]) -> list[Tensor]:
        """One float32 [tokens, width] per text, of its real tokens only; an empty text has no tokens."""

    def count(self, texts: list[str]) -> list[int]:
        """Tokens that `encode` gives for each text, without encoding it."""

    def to(self, device: torch.device | str) -> Self:
        """Compute on a device; returns itself."""


def part(class_path: str, **init_args: Any) -> dict[str, Any]:
    """A class by path and its arguments, as YAML and `config.json` hold it."""
    return {"class_path": class_path, "init_args": init_args}


def build(spec: dict[str, Any]) -> Any:
    """Make the object that `part` describes.

    Only classes of `model.encoders` are taken: a checkpoint is data, not code. Raises ValueError naming what
    is wrong with the description.
    """
    path, args = spec.get("class_path"), spec.get("init_args", {})
    if not isinstance(path, str) or not isinstance(args, dict) or set(spec) - {"class_path", "init_args"}:
        raise SettingError(f"an encoder is given by class_path and init_args, got {spec}")
    module, _, name = path.rpartition(".")
    if not module.startswith("model.encoders."):
        raise SettingError(f"class_path {path!r}: only classes under model.encoders are allowed")
    try:
        return getattr(importlib.import_module(module), name)(**args)
    except (ImportError, AttributeError, TypeError) as error:
        raise SettingError(f"class_path {path!r}: {error}") from error


def count_parameters(module: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in module.parameters())
