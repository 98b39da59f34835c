"""A run's resumable state: weights, their average, AdamW's moments and the step, without pickle.

Safetensors and JSON in a folder that appears whole: Lightning's own .ckpt is a pickle, which we never write.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch
from torch import Tensor

from model.config import ConfigError
from model.lit import EditModule

STATE = re.compile(r"^step-(\d{8})$")


def save_state(folder: Path, module: EditModule, optimizer: torch.optim.Optimizer, keep: int = 1) -> Path:
    """Write `folder/step-XXXXXXXX` and remove all but the newest `keep`.

    Everything is written and synced in a folder of another name, which is then renamed: a killed run leaves
    the state before or the state after, never half of one.
    """
    from safetensors.torch import save

    from shards.files import write_bytes, write_json

    target = folder / f"step-{module.done:08d}"
    if target.is_dir():
        return target
    temporary = folder / f".{target.name}.tmp"
    if temporary.is_dir():
        shutil.rmtree(temporary)
    tensors: dict[str, Tensor] = {f"dit.{n}": p for n, p in module.dit.named_parameters()}
    tensors |= {f"ema.{n}": p for n, p in module.ema.named_parameters()}
    for name, parameter in module.dit.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"adamw.{key}.{name}"] = torch.as_tensor(value)
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_bytes(temporary / "state.safetensors", save(state))
    write_json(temporary / "step.json", {"step": module.done})
    temporary.rename(target)
    for old in states(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def states(folder: Path) -> list[Path]:
    """Complete states, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if STATE.match(p.name))


def load_state(path: Path, module: EditModule, optimizer: torch.optim.Optimizer) -> None:
    """Continue from a state; raises ConfigError naming the file when it is damaged or of another model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / "state.safetensors"
    try:
        tensors = load_file(file)
        step = json.loads((path / "step.json").read_text())["step"]
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{file}: {error}; delete {path} to go back to an older state") from error

    def take(name: str, like: Tensor) -> Tensor:
        if name not in tensors or tensors[name].shape != like.shape:
            raise ConfigError(f"{file}: {name} does not fit this model")
        return tensors[name]

    with torch.no_grad():
        for (name, ours), average in zip(module.dit.named_parameters(), module.ema.parameters(), strict=True):
            ours.copy_(take(f"dit.{name}", ours))
            average.copy_(take(f"ema.{name}", average))
            if step and ours.requires_grad:
                optimizer.state[ours] = {
                    "step": take(f"adamw.step.{name}", torch.zeros(())),
                    "exp_avg": take(f"adamw.exp_avg.{name}", ours).to(ours.device),
                    "exp_avg_sq": take(f"adamw.exp_avg_sq.{name}", ours).to(ours.device),
                }
    module.done = step
