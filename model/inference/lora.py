"""Low-rank adaptation (Hu et al. 2021) through `peft`: add to a transformer, train, save, merge.

The folder of an adapter to `DiT` is peft's own, with adapter_config.json and adapter_model.safetensors; that
of one to Wan's family is diffusers', see `model.inference.wan_lora`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.extras.config import ExtrasConfig
from model.inference import wan_lora
from model.inference.pretrained import PICKLES, check_header, linear_shapes, read_weights, write_weights
from model.net.config import DiTConfig
from model.net.frozen_linear import BASE_DTYPES, BaseDtype, freeze_base
from model.net.transformer import Transformer
from model.net.wan_config import WanConfig
from shards.errors import ConfigError, EditVerseError, SettingError
from shards.files import write_json
from shards.limits import MAX_RANK, in_range, read_json, shown

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft's, of a model inside a PeftModel
LAYERS = r"blocks\.\d+\.(attention\.(q|k|v|out)|mlp\.(gate|up|down))"  # of DiT
WAN_LAYERS = r"(transformer(_2)?\.)?blocks\.\d+\.attn[12]\.(to_[qkv]|to_out\.0)"  # of both experts
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
        layers: regular expression of the full names of the linear layers that get an adapter; None is the
            family's default: all of the blocks' in DiT, the projections of both attentions in Wan's. With
            the feed-forward layers it is, there, `.*(attn[12]\\.to_([qkv]|out\\.0)|ffn\\.net\\..*)`.
        base: how the weights of the blocks' linear layers, which are not trained, are kept while training:
            `int8` with a scale per row, `nf4` (QLoRA's four bits) with one per 64 weights. What is saved is
            merged into the weights as they were.
    """

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0
    layers: str | None = None
    base: BaseDtype = "float32"

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"lora: rank at least 1, alpha above 0, dropout in [0, 1), got {self.rank}, {self.alpha}, "
                f"{self.dropout}"
            )
        if self.base not in BASE_DTYPES:
            raise SettingError(f"lora.base: {self.base!r} is none of {', '.join(BASE_DTYPES)}")
        in_range("lora.rank", self.rank, 1, MAX_RANK)
        in_range("lora.alpha", self.alpha, 0, 1e6)


def add_adapter(dit: Transformer, config: LoraConfig) -> None:
    """Put adapters beside the linear layers, in place; everything else is frozen, kept as `config.base`.

    The second factor starts at zero, so that nothing changes until it is trained.

    Raises:
        ConfigError: no layer's name fits `config.layers`, or one that published layouts cannot hold does.
    """
    import peft

    chosen = "|".join(re.escape(name) for name in _chosen_layers(dit, config.layers))
    description = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # any number; peft's own hint says int
        lora_dropout=config.dropout,
        target_modules=chosen,
    )
    peft.inject_adapter_in_model(description, dit)
    freeze_base(dit, config.base)


def _chosen_layers(dit: Transformer, layers: str | None) -> list[str]:
    """Full names of the linear layers that a pattern means; ConfigError as `add_adapter`."""
    wan = isinstance(dit.config, WanConfig)
    layers = layers or (WAN_LAYERS if wan else LAYERS)
    linear = [name for name, module in dit.named_modules() if isinstance(module, nn.Linear)]
    try:
        chosen = [name for name in linear if re.fullmatch(layers, name)]
    except re.error as error:
        raise ConfigError(f"lora.layers {layers!r}: {error}") from error
    if not chosen:
        raise ConfigError(f"lora.layers {layers!r}: no linear layer has such a name, as {linear[-1]} is one")
    if wan and any(name.endswith(wan_lora.CONVOLUTION) for name in chosen):
        raise ConfigError(
            f"lora.layers {layers!r}: {wan_lora.CONVOLUTION} is a convolution in diffusers; leave it out"
        )
    first = wan_lora.EXPERTS[0]
    if wan and dit.config.boundary is not None and not any(name.startswith(first) for name in chosen):
        raise ConfigError(f"lora.layers {layers!r}: adapts the second expert alone; take both or the first")
    return chosen


def adapter_state(dit: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under the names of their layers: `blocks.0.attn1.to_q.lora_A.weight`."""
    import peft

    state: dict[str, Tensor] = peft.get_peft_model_state_dict(dit)
    return state


def save_adapter(dit: Any, folder: Path, base: str | None = None) -> Path:
    """Write the adapter of a transformer in the layout of its family, weights last.

    Args:
        base: the checkpoint that it was trained from, for readers of the file; of an absolute path the name
            alone is written, since adapters are passed on.
    """
    base = Path(base).name if base and Path(base).is_absolute() else base
    if isinstance(dit.config, WanConfig):
        wan_lora.write_adapter(dit, adapter_state(dit), folder, base)
        return folder
    description = dit.peft_config["default"].to_dict()
    # peft leaves some fields as sets and enumerations, whose order and form are not JSON's
    plain = {k: sorted(v) if isinstance(v, set) else getattr(v, "value", v) for k, v in description.items()}
    # Names, not the expression that chose them: no reader has to run an expression from a file.
    fixed = {"inference_mode": True, "target_modules": adapted_layers(dit), "base_model_name_or_path": base}
    write_json(folder / CONFIG, json.loads(json.dumps(plain, default=str)) | fixed)
    state = {PREFIX + name: value for name, value in adapter_state(dit).items()}
    write_weights(folder / WEIGHTS, state)
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
        base: what it was trained from, "" where that is not said.
    """

    rank: int
    alpha: float
    rslora: bool
    layers: tuple[str, ...]
    base: str = ""


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
    base = value.get("base_model_name_or_path")
    return SavedAdapter(rank, float(alpha), rslora, layers, base if isinstance(base, str) else "")


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


@dataclass(frozen=True)
class AdapterPlan:
    """An adapter whose files were compared with a model by their headers; nothing of it is read yet.

    Attributes:
        saved, shapes: of `DiT`'s, the tensors by their names in the file.
        factors: of Wan's family, by layer.
    """

    path: Path
    owner: str
    saved: SavedAdapter | None = None
    shapes: dict[str, torch.Size] | None = None
    factors: dict[str, wan_lora.Factors] | None = None


def check_adapter(
    path: Path, config: DiTConfig | WanConfig, extras: ExtrasConfig | None = None, base: str = "this model"
) -> AdapterPlan:
    """Compare an adapter with a model by names and shapes alone, before anything heavy is done.

    Args:
        path: a run's folder, an adapter's, or a safetensors file of one to Wan's family.
        base: what the model is called, for messages.

    Raises:
        ConfigError: a file is missing, a pickle, damaged or of another model, or its configuration asks for
            what is not supported; of another model's adapter it names what differs, and both models.
    """
    if not (path / CONFIG).is_file() and (path / "adapter").is_dir():
        path = path / "adapter"  # of a run
    linear = linear_shapes(config, extras)
    owner = f"{base} (width {config.width}, depth {config.depth})"
    if isinstance(config, WanConfig):
        scaling = None
        if (path / CONFIG).is_file() and not (path / wan_lora.FIRST).is_file():
            saved = read_adapter(path / CONFIG, linear)
            scaling = wan_lora.Scaling(saved.alpha, saved.rslora, base=saved.base)
        files = wan_lora.adapter_files(path)
        factors = wan_lora.read_factors(files, linear, config, owner, scaling)
        return AdapterPlan(path, owner, factors=factors)
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            pickles = sorted(p.name for p in path.glob("*") if p.suffix in PICKLES)
            why = f"; {pickles[0]} is a pickle, which can run code: convert it" if pickles else ""
            raise ConfigError(
                f"{path / name}: not found; an adapter's folder holds {CONFIG} and {WEIGHTS}{why}"
            )
    saved = read_adapter(path / CONFIG, linear)
    owner += f" (trained from {shown(saved.base)})" if saved.base else " (its own base is not named)"
    shapes: dict[str, torch.Size] = {}
    for name in saved.layers:
        outputs, inputs = linear[name]
        shapes[f"{PREFIX}{name}.lora_A.weight"] = torch.Size([saved.rank, inputs])
        shapes[f"{PREFIX}{name}.lora_B.weight"] = torch.Size([outputs, saved.rank])
    check_header(path / WEIGHTS, shapes, owner)
    return AdapterPlan(path, owner, saved, shapes)


def load_adapter(dit: Transformer, path: Path | AdapterPlan) -> None:
    """Add a saved adapter to a transformer, in place.

    Its configuration and its tensors' names, shapes and values are checked before the model is changed.

    Raises:
        ConfigError: as `check_adapter`, or values that are not finite.
    """
    import peft

    plan = (
        path
        if isinstance(path, AdapterPlan)
        else check_adapter(path, dit.config, getattr(dit, "extras", None))
    )
    settings: dict[str, Any]
    if plan.factors is not None:
        state = wan_lora.read_state(plan.factors, dit.config.heads, dit.device)
        # the scales are in the factors; alpha is each layer's rank
        rank = Counter(f.rank for f in plan.factors.values()).most_common()[0][0]
        others = {re.escape(name): f.rank for name, f in plan.factors.items() if f.rank != rank}
        settings = {"r": rank, "lora_alpha": rank, "rank_pattern": others, "alpha_pattern": others}
        settings["target_modules"] = list(plan.factors)
    else:
        assert plan.saved is not None
        assert plan.shapes is not None
        named = read_weights(plan.path / WEIGHTS, plan.shapes, plan.owner, dit.device)
        state = {name.removeprefix(PREFIX): value for name, value in named.items()}
        saved = plan.saved
        settings = {"r": saved.rank, "lora_alpha": saved.alpha, "use_rslora": saved.rslora}
        settings["target_modules"] = list(saved.layers)
    peft.inject_adapter_in_model(peft.LoraConfig(**settings, inference_mode=True), dit)
    peft.set_peft_model_state_dict(dit, state)


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


def merge_adapter(dit: Transformer, path: Path | AdapterPlan) -> None:
    """Load an adapter and fold it in."""
    load_adapter(dit, path)
    merge(dit)
