"""An editor of Wan's family written as a pipeline in diffusers' layout: the inverse of `diffusers_folder`."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

from model.inference.bundled import CONFIG, INDEX, PARTS
from model.inference.diffusers_folder import FIXED, WEIGHTS, experts
from model.inference.editor import Editor
from model.inference.pretrained import find_checkpoint, write_weights
from model.net.wan_config import WanConfig
from model.net.wan_weights import to_diffusers
from shards.errors import ConfigError
from shards.files import is_unused, write_json


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
        ConfigError: the editor is of another family, `out` is in use, or the base's folder, which the
            editor's configuration names, is not there.
    """
    config, out = editor.config.network, Path(out)
    if not isinstance(config, WanConfig):
        raise ConfigError("diffusers has no class for this transformer; export it as editverse")
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
