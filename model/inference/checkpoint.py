"""A checkpoint of ours, written and read: configuration, and transformer in the dtype and place asked for."""

from __future__ import annotations

from pathlib import Path

import torch

from model.config import ModelConfig, load_config
from model.inference.bundled import CONFIG, is_pipeline
from model.inference.diffusers_folder import read_pipeline
from model.inference.offload import PartSizes, check_memory, encoder_bytes, experts_of
from model.inference.pretrained import WEIGHTS, read_weights, weight_shapes, write_weights
from model.net.families import build_transformer
from model.net.transformer import Transformer
from shards.errors import ConfigError
from shards.files import sweep_temporaries_of, write_json
from shards.serialization import to_dict


def save_checkpoint(transformer: Transformer, config: ModelConfig, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`, each whole or not at all; the weights come last."""
    write_json(folder / CONFIG, to_dict(config))
    sweep_temporaries_of(folder / WEIGHTS)  # a killed process's, as large as the weights
    write_weights(folder / WEIGHTS, transformer.state_dict())


def describe_checkpoint(folder: Path, dtype: str = "float32") -> ModelConfig:
    """What a folder says of its model, one of ours or a published pipeline's; no weights are read.

    Args:
        dtype: of a pipeline's text encoder, float32 or bfloat16.

    Raises:
        ConfigError: see `load_config` and `read_pipeline`.
    """
    return read_pipeline(folder, dtype) if is_pipeline(folder) else load_config(folder / CONFIG)


def load_checkpoint(
    folder: Path, device: torch.device, dtype: str | None, offload: bool = False
) -> tuple[Transformer, ModelConfig]:
    """The transformer of a folder with `config.json` and `model.safetensors`, and its configuration.

    Args:
        dtype: the file's when None, except that float16 becomes float32 on a CPU.
        offload: it is read into the CPU's memory, whatever the device.

    Raises:
        ConfigError: see `Editor.from_pretrained`.
    """
    config = load_config(folder / CONFIG)
    shapes = weight_shapes(config.network, config.extras)
    home = torch.device("cpu") if offload else device
    state = read_weights(
        folder / WEIGHTS, shapes, str(folder / CONFIG), home
    )  # before the transformer is built: a configuration that asks for too much does not fit its weights
    with torch.device("meta"):
        transformer = build_transformer(config.network, config.extras)
    transformer.load_state_dict(state, assign=True)
    if dtype is None and transformer.dtype == torch.float16 and device.type == "cpu":
        dtype = "float32"
    if dtype is not None:
        transformer.to(getattr(torch, dtype))
        for name, weight in transformer.named_parameters():
            if not torch.isfinite(weight).all():
                raise ConfigError(
                    f"{folder / WEIGHTS}: weight {name!r} overflows in {dtype}; use float32 or bfloat16"
                )
    if offload:
        sizes = tuple(sum(w.numel() * w.itemsize for w in e.parameters()) for e in experts_of(transformer))
        encoders = encoder_bytes(config.text_encoder), encoder_bytes(config.vae)
        check_memory(folder, PartSizes(*encoders, sizes), device, offload)
    return transformer, config
