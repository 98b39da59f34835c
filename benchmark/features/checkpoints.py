"""Published checkpoint files: .safetensors, or torch's pickles read as bare tensors: nothing in them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import pickle  # whose error torch raises for files of other kinds

from benchmark.core.item import RunStopped
from shards.errors import first_line


def read_checkpoint(path: Path, origin: str) -> dict[str, Tensor]:
    """Tensors by name, also from under "model". RunStopped names the file, and where to get it."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunStopped(f"{path}: not found; it is published as {origin}") from None
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise RunStopped(f"{path}: cannot be read as a checkpoint: {first_line(error)}") from error
    state: dict[str, Tensor] = held["model"] if isinstance(held, dict) and "model" in held else held
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RunStopped(f"{path}: holds no tensors by name; it is published as {origin}")
    return state
