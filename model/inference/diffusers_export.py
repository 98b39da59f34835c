"""An editor of Wan's family written as a pipeline in diffusers' layout: the inverse of `diffusers_folder`.

Or an adapter alone, whose files have that layout from the start.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.inference.bundled import CONFIG, INDEX, PARTS
from model.inference.diffusers_folder import FIXED, WEIGHTS, experts
from model.inference.pretrained import find_checkpoint, write_weights
from model.inference.wan_lora import adapter_files
from model.net.wan_config import WanConfig
from model.net.wan_weights import to_diffusers
from shards.errors import ConfigError
from shards.files import is_unused, write_json

if TYPE_CHECKING:
    from model.inference.editor import Editor  # which has a method that exports


def transformer_json(config: WanConfig) -> dict[str, Any]:
    """The `config.json` of diffusers' `WanTransformer3DModel` with these sizes."""
    channels = config.vision_dim // 4
    return {
        "_class_name": "WanTransformer3DModel",
        **FIXED,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "in_channels": channels,
        "out_channels": channels,
        "text_dim": config.text_dim,
        "ffn_dim": config.hidden,
        "num_layers": config.depth,
        "eps": config.norm_eps,
        "rope_max_seq_len": 1024,
    }


def export_diffusers(editor: Editor, out: str | Path) -> Path:
    """Write the transformer beside copies of the base's other parts, all or nothing.

    The tensors are those of the editor, to the bit, in its dtype and diffusers' layout.

    Args:
        out: a folder that is not there or empty.

    Raises:
        ConfigError: the editor is of another family or has text among its tokens, `out` is in use, or the
            base's folder, which the editor's configuration names, is not there.
    """
    config, out = editor.config.network, Path(out)
    if not isinstance(config, WanConfig):
        raise ConfigError("diffusers has no class for this transformer; export it as editverse")
    if config.words:
        raise ConfigError(
            "diffusers' class has no place for text among the tokens (sequence.text: both); export it as "
            "editverse"
        )
    if not is_unused(out):
        raise ConfigError(f"{out}: is there already; choose another folder")
    base = find_checkpoint(editor.config.vae["init_args"]["path"])
    state = editor.dit.state_dict()
    folder = out.with_name(f".{out.name[:80]}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        for part in PARTS:
            if not part.startswith("transformer") and (base / part).is_dir():
                shutil.copytree(base / part, folder / part)
        for name in (INDEX, CONFIG):
            if (base / name).is_file():
                shutil.copyfile(base / name, folder / name)
        for part, prefix in experts(config).items():
            own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
            theirs = {name: to_diffusers(name, value, config.heads) for name, value in own.items()}
            write_json(folder / part / CONFIG, transformer_json(config))
            write_weights(folder / part / f"{WEIGHTS}.safetensors", theirs)
        shutil.rmtree(out, ignore_errors=True)  # empty, but for the lock of a run
        folder.replace(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return out


def export_adapter(path: Path, out: Path, dtype: torch.dtype) -> list[Path]:
    """Copy an adapter's files in another dtype; returns the copies.

    Args:
        path: a folder that `model.inference.lora.save_adapter` wrote.
        out: a folder that is not there or empty.

    Raises:
        ConfigError: `out` is in use, a file is damaged, or values overflow in `dtype`.
    """
    from safetensors import SafetensorError, safe_open

    if not is_unused(out):
        raise ConfigError(f"{out}: is there already; choose another folder")
    copies: dict[Path, tuple[dict[str, Tensor], dict[str, str]]] = {}
    for file in reversed(adapter_files(path)):
        try:
            with safe_open(file, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name).to(dtype) for name in opened.keys()}  # noqa: SIM118
                metadata = opened.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{file}: {error}; is the file complete?") from error
        for name, value in tensors.items():
            if not torch.isfinite(value).all():
                raise ConfigError(f"{file}: weight {name!r} overflows in {dtype}; use another --dtype")
        copies[out / file.name] = tensors, metadata
    for copy, (tensors, metadata) in copies.items():
        write_weights(copy, tensors, metadata)
    return list(reversed(copies))
