"""Low-rank adaptation (Hu et al. 2021) through `peft`: add to a transformer, train, save, merge.

An adapter's folder is peft's own: adapter_config.json and adapter_model.safetensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.inference.pretrained import PICKLES, read_weights, write_weights
from shards.errors import ConfigError, EditVerseError, first_line
from shards.files import write_json
from shards.limits import MAX_RANK, in_range, read_json, shown

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft's, of a model inside a PeftModel
LAYERS = r"blocks\.\d+\.(attention\.(q|k|v|out)|mlp\.(gate|up|down))"
ALL_LINEAR = "all-linear"  # peft's word for every linear layer
USED = {"peft_type", "r", "lora_alpha", "target_modules", "use_rslora"}
# Of adapter_config.json: what describes the training or the file, and changes nothing of the weights.
IGNORED = {
    "alora_invocation_tokens",
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
}


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
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"lora: rank at least 1, alpha above 0, dropout in [0, 1), got {self.rank}, {self.alpha}, "
                f"{self.dropout}"
            )
        in_range("lora.rank", self.rank, 1, MAX_RANK)
        in_range("lora.alpha", self.alpha, 0, 1e6)


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
        raise ConfigError(f"lora.layers {config.layers!r}: {first_line(error)}") from error


def adapter_state(dit: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under peft's names."""
    import peft

    return {PREFIX + name: value for name, value in peft.get_peft_model_state_dict(dit).items()}


def save_adapter(dit: Any, folder: Path) -> Path:
    """Write the adapter of a transformer in peft's format, weights last."""
    description = dit.peft_config["default"].to_dict()
    # peft leaves some fields as sets and enumerations, whose order and form are not JSON's
    plain = {k: sorted(v) if isinstance(v, set) else getattr(v, "value", v) for k, v in description.items()}
    # Names, not the expression that chose them: no reader has to run an expression from a file.
    fixed = {"inference_mode": True, "target_modules": adapted_layers(dit)}
    write_json(folder / CONFIG, json.loads(json.dumps(plain, default=str)) | fixed)
    write_weights(folder / WEIGHTS, adapter_state(dit))
    return folder


def adapted_layers(dit: nn.Module) -> list[str]:
    """Names of the layers that have an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [name for name, module in dit.named_modules() if isinstance(module, BaseTunerLayer)]


@dataclass(frozen=True)
class SavedAdapter:
    """What `adapter_config.json` says of the weights beside it.

    Attributes:
        rank, alpha: as in `LoraConfig`; rslora: the product is scaled by alpha / sqrt(rank) instead.
        layers: full names of the adapted layers.
    """

    rank: int
    alpha: float
    rslora: bool
    layers: tuple[str, ...]


def read_adapter(path: Path, linear: Collection[str]) -> SavedAdapter:
    """Read `adapter_config.json`, which may come from anywhere.

    Args:
        linear: names of the model's linear layers.

    Raises:
        ConfigError: naming the field that is wrong, or that asks for what is not supported.
    """
    try:
        value = read_json(path)
    except EditVerseError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected an object, got {shown(value)}")
    if value.get("peft_type") != "LORA":
        raise ConfigError(f"{path}: peft_type: only LORA is taken, got {shown(value.get('peft_type'))}")
    rank, alpha, rslora = value.get("r"), value.get("lora_alpha", 8), value.get("use_rslora", False)
    if type(rank) is not int:
        raise ConfigError(f"{path}: r: a whole number, got {shown(rank)}")
    try:
        in_range("r", rank, 1, MAX_RANK)
        in_range("lora_alpha", alpha, 0, 1e6)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if type(rslora) is not bool:
        raise ConfigError(f"{path}: use_rslora: true or false, got {shown(rslora)}")
    if value.get("bias", "none") != "none":
        raise ConfigError(f"{path}: bias: only 'none' is taken, got {shown(value['bias'])}")
    for name, setting in value.items():
        if name not in USED | IGNORED | {"bias"} and setting not in (None, False, [], {}, ""):
            raise ConfigError(f"{path}: {shown(name)}: {shown(setting)} is not supported")
    layers = _named_layers(path, value.get("target_modules"), linear)
    return SavedAdapter(rank, float(alpha), rslora, layers)


def _named_layers(path: Path, names: Any, linear: Collection[str]) -> tuple[str, ...]:
    """The linear layers that `target_modules` means."""
    if names == ALL_LINEAR:
        return tuple(linear)
    if names == LAYERS:  # as adapters of this project had it
        return tuple(name for name in linear if re.fullmatch(LAYERS, name))
    if isinstance(names, str):
        raise ConfigError(
            f"{path}: target_modules: {shown(names)} is a regular expression, which is not run; write a list "
            f'of the names of layers, as in ["attention.q", "mlp.up"], or "{ALL_LINEAR}"'
        )
    if not isinstance(names, list) or not all(
        isinstance(n, str) and re.fullmatch(r"[\w.]+", n) for n in names
    ):
        raise ConfigError(f"{path}: target_modules: a list of names of layers, got {shown(names)}")
    wanted = set(names)
    ends = {name: [name.split(".", n)[-1] for n in range(name.count(".") + 1)] for name in linear}
    chosen = tuple(name for name, suffixes in ends.items() if wanted.intersection(suffixes))
    unmatched = wanted.difference(*([suffix] for name in chosen for suffix in ends[name]))
    if unmatched or not chosen:
        missing = min(unmatched, default="")
        raise ConfigError(f"{path}: target_modules: the model has no linear layer {shown(missing)}")
    return chosen


def load_adapter(dit: nn.Module, folder: Path) -> None:
    """Add a saved adapter to a transformer, in place.

    Its configuration and its tensors' names, shapes and values are checked before the model is changed.

    Raises:
        ConfigError: a file is missing, a pickle, damaged or of another model, or its configuration asks for
            what is not supported.
    """
    import peft

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            pickles = sorted(p.name for p in folder.glob("*") if p.suffix in PICKLES)
            why = f"; {pickles[0]} is a pickle, which can run code: convert it" if pickles else ""
            raise ConfigError(
                f"{folder / name}: not found; an adapter's folder holds {CONFIG} and {WEIGHTS}{why}"
            )
    linear = {name: module for name, module in dit.named_modules() if isinstance(module, nn.Linear)}
    saved = read_adapter(folder / CONFIG, linear)
    shapes: dict[str, torch.Size] = {}
    for name in saved.layers:
        shapes[f"{PREFIX}{name}.lora_A.weight"] = torch.Size([saved.rank, linear[name].in_features])
        shapes[f"{PREFIX}{name}.lora_B.weight"] = torch.Size([linear[name].out_features, saved.rank])
    state = read_weights(folder / WEIGHTS, shapes, "this model's adapter", next(dit.parameters()).device)
    description = peft.LoraConfig(
        r=saved.rank,
        lora_alpha=saved.alpha,  # type: ignore[arg-type]  # any number; peft's own hint says int
        use_rslora=saved.rslora,
        target_modules=list(saved.layers),
        inference_mode=True,
    )
    peft.inject_adapter_in_model(description, dit)
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
