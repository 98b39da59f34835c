"""Low-rank adaptation (Hu et al. 2021) through `peft`: add to a transformer, train, save, merge.

An adapter's folder is peft's own: adapter_config.json and adapter_model.safetensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.config import ConfigError
from model.weights import PICKLES, read_weights, write_weights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft's, of a model inside a PeftModel
LAYERS = r"blocks\.\d+\.(attention\.(q|k|v|out)|mlp\.(gate|up|down))"


@dataclass(frozen=True)
class LoraConfig:
    """What is trained instead of the weights.

    Attributes:
        rank: of the two factors; alpha: their product is scaled by alpha / rank.
        dropout: on the adapter's input.
        layers: regular expression of the linear layers that get an adapter; all of the blocks' by default.
    """

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0
    layers: str = LAYERS

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"lora: rank at least 1, alpha above 0, dropout in [0, 1), got {self.rank}, {self.alpha}, "
                f"{self.dropout}"
            )


def add_adapter(dit: nn.Module, config: LoraConfig) -> None:
    """Put adapters beside the linear layers, in place; everything else is frozen.

    The second factor starts at zero, so that nothing changes until it is trained.

    Raises:
        ConfigError: no layer's name fits `config.layers`.
    """
    import peft

    description = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # any number; peft's own hint says int
        lora_dropout=config.dropout,
        target_modules=config.layers,
    )
    try:
        peft.inject_adapter_in_model(description, dit)
    except ValueError as error:
        raise ConfigError(f"lora.layers {config.layers!r}: {error}") from error


def adapter_state(dit: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under peft's names."""
    import peft

    return {PREFIX + name: value for name, value in peft.get_peft_model_state_dict(dit).items()}


def save_adapter(dit: Any, folder: Path) -> Path:
    """Write the adapter of a transformer in peft's format, weights last."""
    from shards.files import write_json

    description = dit.peft_config["default"].to_dict()
    # peft leaves some fields as sets and enumerations, whose order and form are not JSON's
    plain = {k: sorted(v) if isinstance(v, set) else getattr(v, "value", v) for k, v in description.items()}
    write_json(folder / CONFIG, json.loads(json.dumps(plain, default=str)) | {"inference_mode": True})
    write_weights(folder / WEIGHTS, adapter_state(dit))
    return folder


def load_adapter(dit: nn.Module, folder: Path) -> None:
    """Add a saved adapter to a transformer, in place.

    Raises:
        ConfigError: a file is missing, a pickle, damaged or of another model.
    """
    import peft

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            pickles = sorted(p.name for p in folder.glob("*") if p.suffix in PICKLES)
            why = f"; {pickles[0]} is a pickle, which can run code: convert it" if pickles else ""
            raise ConfigError(
                f"{folder / name}: not found; an adapter's folder holds {CONFIG} and {WEIGHTS}{why}"
            )
    try:
        description = peft.LoraConfig.from_pretrained(str(folder))
        peft.inject_adapter_in_model(description, dit)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from error
    ours = adapter_state(dit)
    shapes = {name: value.shape for name, value in ours.items()}
    state = read_weights(folder / WEIGHTS, shapes, "this model's adapter", next(dit.parameters()).device)
    peft.set_peft_model_state_dict(dit, {n.removeprefix(PREFIX): v for n, v in state.items()})


@torch.no_grad()
def merge(dit: nn.Module) -> nn.Module:
    """Fold the adapters into the weights, in place; the result has plain layers again. Returns `dit`.

    Raises:
        ConfigError: the merged weights would not be finite.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in [(n, m) for n, m in dit.named_modules() if isinstance(m, BaseTunerLayer)]:
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise ConfigError(f"lora: {name}: {error}") from error
        parent, _, child = name.rpartition(".")
        setattr(dit.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(dit, "peft_config"):
        del dit.peft_config
    return dit


def merge_adapter(dit: nn.Module, folder: Path) -> None:
    """Load an adapter and fold it in."""
    load_adapter(dit, folder)
    merge(dit)
