"""Published checkpoint files: .safetensors, or torch's pickles read as bare tensors: nothing in them runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import pickle  # whose error torch raises for files of other kinds

from benchmark.core.item import RunStopped
from shards.errors import first_line
from shards.limits import MAX_HEADS, read_json


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


def read_numbers(path: Path, names: Sequence[str]) -> dict[str, int]:
    """Those of these settings that a checkpoint says: whole numbers from 1 on, by name.

    In a `config.json` beside it, else in the metadata of a .safetensors, or under `config` beside `model` in
    torch's pickle. RunStopped for what is no such number; a file that cannot be read says nothing here.
    """
    beside = path.parent / "config.json"
    held: Any = {}
    try:
        if beside.is_file():
            held = read_json(beside)
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                held = file.metadata() or {}
        elif path.is_file():
            held = torch.load(path, map_location="meta", weights_only=True)
            held = held.get("config", {}) if isinstance(held, dict) else {}
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError):
        return {}  # `read_checkpoint` says why
    found = {}
    for name in names:
        value = held.get(name) if isinstance(held, dict) else None
        if value is not None:
            if not str(value).isdecimal() or isinstance(value, bool) or not 0 < int(value) <= MAX_HEADS:
                raise RunStopped(f"{path}: {name} is {str(value)[:40]!r}, not a number from 1 to {MAX_HEADS}")
            found[name] = int(value)
    return found
