"""What turns pixels into latents and text into token states: offline or learned, with one interface.

An encoder is named in YAML and in `config.json` by its class path and arguments.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from shards.aliases import current
from shards.errors import SettingError, first_line
from shards.hashing import digest
from shards.limits import shown


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

    It is run when a sample is visited, by whoever loads it. One that is not `light` would take as long as the
    training there: encode the data beforehand (`python -m model precompute`).
    """

    width: int
    light: bool

    def encode(self, texts: list[str]) -> list[Tensor]:
        """One float32 [tokens, width] per text, of its real tokens only; an empty text has no tokens."""

    def count(self, texts: list[str]) -> list[int]:
        """Tokens that `encode` gives for each text, by the tokenizer alone."""

    def tokenizer_hash(self) -> str:
        """Hexadecimal sha256 of what `count` depends on: equal for equal counts, wherever it lies."""

    def to(self, device: torch.device | str) -> Self:
        """Compute on a device; returns itself."""


def part(class_path: str, **init_args: Any) -> dict[str, Any]:
    """A class by path and its arguments, as YAML and `config.json` hold it."""
    return {"class_path": class_path, "init_args": init_args}


def build(spec: dict[str, Any], port: type | None = None) -> Any:
    """Make the object that `part` describes.

    Only codecs and text encoders that are defined in a module of `model.encoders` are taken, not what such a
    module imports: a checkpoint is data, not code. That is checked before anything is called.

    Args:
        port: `Codec` or `TextEncoder`, which it must be one of; None takes either.

    Raises:
        ValueError: naming what is wrong with the description.
    """
    path, args = spec.get("class_path"), spec.get("init_args", {})
    if not isinstance(path, str) or not isinstance(args, dict) or set(spec) - {"class_path", "init_args"}:
        raise SettingError(f"an encoder is given by class_path and init_args, got {shown(spec)}")
    module, _, name = current(path).rpartition(".")
    if module not in {f"{__name__}.{m.name}" for m in pkgutil.iter_modules(__path__)}:
        raise SettingError(f"class_path {shown(path)}: only classes under model.encoders are allowed")
    kind = getattr(importlib.import_module(module), name, None)
    ports = [port] if port else [Codec, TextEncoder]
    if not inspect.isclass(kind) or kind.__module__ != module or not any(_fits(kind, p) for p in ports):
        wanted = " or ".join({"Codec": "codec", "TextEncoder": "text encoder"}[p.__name__] for p in ports)
        raise SettingError(f"class_path {shown(path)}: is no {wanted} of model.encoders")
    try:
        return kind(**args)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise SettingError(f"class_path {path!r}: {first_line(error)}") from error


def hash_of_tokenizer(tokenizer: Any, *settings: Any) -> str:
    """sha256 of a tokenizer of tokenizers or transformers, and of what else a count depends on."""
    described = json.loads(getattr(tokenizer, "backend_tokenizer", tokenizer).to_str())
    for call in ("padding", "truncation"):  # of the last call, not of the tokenizer
        described.pop(call, None)
    return digest([described, *settings])


def _fits(kind: type, port: type) -> bool:
    """Whether a class has every method of a protocol."""
    methods = [name for name, value in vars(port).items() if inspect.isfunction(value) and name[0] != "_"]
    return all(callable(getattr(kind, name, None)) for name in methods)
