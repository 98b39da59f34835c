"""A card that does not hold all weights: encoders and transformers come to it one at a time.

What an editor's parts take is known from the headers of their files, so it is said before any is read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from model.encoders import Codec, TextEncoder
from model.net.transformer import Transformer
from model.net.wan import WanExperts
from shards.errors import ConfigError

log = logging.getLogger(__name__)
GIB = 2**30


@runtime_checkable
class Releasable(Protocol):
    """An encoder that can drop its weights and read them again when it is next used."""

    def release(self) -> None:
        """Drop the weights."""


Part = Codec | TextEncoder | nn.Module


class Offload:
    """Has the weights of one part at a time on a device.

    A part that makes room drops its weights where it can read them again, as encoders do; a transformer's
    wait in the memory of the CPU.

    Attributes:
        device: where parts work.
        resident: the part that is there; None before the first.
        stays: the transformer is there and stays, as one that is trained; the encoders alone come and go.
    """

    def __init__(self, device: torch.device, transformer: Transformer, stays: bool = False) -> None:
        self.device, self.stays = device, stays
        self.resident: Part | None = None
        if len(experts := experts_of(transformer)) > 1:
            for expert in experts:  # each comes when it is asked, in the middle of a sampling
                expert.register_forward_pre_hook(lambda module, _: self.use(module))

    @torch.inference_mode(False)  # weights moved in a caller's inference mode could not be moved again
    @torch.no_grad()
    def use(self, part: Part) -> None:
        """Bring a part to the device, after the part that was there has left; of two experts, the first."""
        if isinstance(part, Transformer) and self.stays:
            return
        if isinstance(part, Transformer):
            part = experts_of(part)[0]
        if part is self.resident:
            return
        if self.resident is not None:
            self._leave(self.resident)
        part.to(self.device)
        self.resident = part

    def _leave(self, part: Part) -> None:
        if isinstance(part, Releasable):
            part.release()
        else:
            part.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def let_go(*encoders: Codec | TextEncoder) -> None:
    """Have encoders leave a device; those that can be read again drop their weights."""
    for encoder in encoders:
        if isinstance(encoder, Releasable):
            encoder.release()
        encoder.to("cpu")


def experts_of(transformer: Transformer) -> list[Transformer]:
    """A transformer, or the two that it is made of, in the order of their work."""
    if isinstance(transformer, WanExperts):
        return [transformer.transformer, transformer.transformer_2]
    return [transformer]


@dataclass(frozen=True)
class PartSizes:
    """Bytes of the weights of an editor's parts, as they are computed with; an unknown part has 0."""

    text_encoder: int
    vae: int
    transformers: tuple[int, ...]

    def peak(self, device: str, offload: bool) -> int:
        """Most bytes of weights on a device ("cpu" or "cuda") at a time."""
        encoders, transformers = (self.text_encoder, self.vae), sum(self.transformers)
        if not offload:
            return transformers + sum(encoders)
        if device == "cpu":  # where transformers wait
            return transformers + max(encoders)
        return max(*encoders, *self.transformers)

    def describe(self, device: str, offload: bool) -> str:
        """What each part takes and the peaks with and without offloading, in GiB, on one line."""
        numbers = [""] if len(self.transformers) == 1 else [" 1", " 2"]
        parts = {"text encoder": self.text_encoder}
        parts |= {f"transformer{n}": size for n, size in zip(numbers, self.transformers, strict=True)}
        parts["autoencoder"] = self.vae
        each = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
        with_, without = (self.peak(device, on) / GIB for on in (True, False))
        chosen = "one part at a time" if offload else "all at once"
        return (
            f"weights in GiB: {each}; on {device} at most {with_:.2f} with --offload, {without:.2f} without "
            f"(now: {chosen})"
        )


def encoder_bytes(spec: dict[str, Any]) -> int:
    """Bytes of an encoder's weights in its own dtype; 0 for one without files in a folder here."""
    args = spec.get("init_args", {})
    path = args.get("path")
    if not isinstance(path, str) or not Path(path).is_dir():
        return 0
    is_text = "width" in args
    subfolder = args.get("subfolder", "text_encoder" if is_text else "vae")
    folder = Path(path, subfolder) if subfolder and Path(path, subfolder).is_dir() else Path(path)
    dtype = args.get("dtype", "bfloat16" if is_text else "float32")
    return stored_numbers(folder) * getattr(torch, dtype, torch.float32).itemsize


def stored_numbers(folder: Path) -> int:
    """Numbers in a folder's safetensors, by their headers; ConfigError for a file that is cut off."""
    from safetensors import SafetensorError, safe_open

    total = 0  # of hidden files nothing: a killed process may have left half of one
    for file in sorted(folder.glob("[!.]*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                names = list(opened.keys())
                total += sum(torch.Size(opened.get_slice(name).get_shape()).numel() for name in names)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ConfigError(f"{file}: {error}; is the download complete?") from error
    return total


def check_memory(folder: Path, sizes: PartSizes, device: torch.device, offload: bool) -> None:
    """Log what the parts take, and raise ConfigError where the weights alone do not fit."""
    import psutil

    log.info("%s: %s", folder.name, sizes.describe(device.type, offload))
    memory = psutil.virtual_memory().available
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory
    need, least = (sizes.peak(device.type, on) for on in (offload, True))
    if need > free:
        hints = ["--dtype bfloat16"]
        if least < need:
            hints.append(f"--offload (at most {least / GIB:.1f} GiB at a time)")
        raise ConfigError(
            f"{folder}: its weights take {need / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free on "
            f"{device}: choose {', '.join(hints)}, or smaller weights (python -m model bases)"
        )
    waiting = sum(sizes.transformers)
    if offload and device.type != "cpu" and waiting > memory:
        raise ConfigError(
            f"{folder}: with --offload its transformers wait in {waiting / GIB:.1f} GiB of the CPU's memory, "
            f"and {memory / GIB:.1f} GiB are free there: choose smaller weights (python -m model bases)"
        )
