"""The families of transformers, by class path."""

from __future__ import annotations

from typing import Any

from model.extras.config import ExtrasConfig
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.net.transformer import Transformer
from model.net.wan import WanExperts, WanTransformer
from model.net.wan_config import WanConfig
from shards.errors import ConfigError
from shards.limits import shown
from shards.serialization import from_dict

CONFIGS: dict[str, Any] = {"model.net.dit.DiT": DiTConfig, "model.net.wan.WanTransformer": WanConfig}


def transformer_config(spec: dict[str, Any], where: str) -> DiTConfig | WanConfig:
    """The sizes that a class path and its arguments describe.

    Raises:
        ConfigError: another class, or sizes that it does not take; begins with `where`.
    """
    path, args = spec.get("class_path"), spec.get("init_args", {})
    if not isinstance(path, str) or path not in CONFIGS or set(spec) - {"class_path", "init_args"}:
        raise ConfigError(f"{where}: class_path {shown(path)} is none of {', '.join(CONFIGS)}")
    sizes: DiTConfig | WanConfig = from_dict(CONFIGS[path], args, f"{where}.init_args")
    return sizes


def build_transformer(config: DiTConfig | WanConfig, extras: ExtrasConfig | None = None) -> Transformer:
    """A transformer with fresh weights; extras are `DiT`'s alone."""
    if isinstance(config, WanConfig):
        return WanTransformer(config) if config.boundary is None else WanExperts(config)
    return DiT(config, extras)
