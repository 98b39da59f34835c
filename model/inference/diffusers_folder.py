"""Published weights in diffusers' layout: what a pipeline's folder says, and its transformer, read by name.

Wan's folders have `model_index.json`, `transformer/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`;
Bernini-R's the same parts beside a `config.json` of its own. Safetensors alone are read, every tensor once,
each into its place and dtype without a second copy of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.config import InferenceConfig, MediaConfig, ModelConfig
from model.encoders import part
from model.extras.config import ExtrasConfig
from model.flow.flow_matching import FlowConfig
from model.inference.bundled import CONFIG, INDEX
from model.inference.offload import PartSizes, check_memory, encoder_bytes
from model.inference.pretrained import weight_shapes
from model.net.families import build_transformer
from model.net.transformer import Transformer
from model.net.wan_config import WanConfig
from model.net.wan_weights import diffusers_shape, from_diffusers
from model.sequence.interleave import SequenceConfig
from model.sequence.prompts import NEGATIVE
from model.sequence.rope import RopeConfig
from shards.errors import ConfigError, EditVerseError, first_line
from shards.files import inside
from shards.limits import read_json, shown
from shards.serialization import to_dict

BERNINI = "bernini_renderer"  # the `model_type` of its config.json
WEIGHTS = "diffusion_pytorch_model"
WAN_SAMPLING = InferenceConfig(steps=50, guidance=5.0, solver="unipc_wan")
# its `v2v_apg`
BERNINI_SAMPLING = InferenceConfig(
    steps=40, guidance=4.0, solver="unipc_wan", eta=0.5, norm=50.0, negative=NEGATIVE
)
WAN_MEDIA = MediaConfig(min_area=480 * 480 // 4, max_area=480 * 832, frames=81, fps=16.0)
TI2V_MEDIA = MediaConfig(min_area=480 * 480 // 4, max_area=704 * 1280, frames=121, fps=24.0)
FIXED = {  # what `WanTransformer` has built in
    "patch_size": [1, 2, 2],
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "freq_dim": 256,
    "added_kv_proj_dim": None,
    "image_dim": None,
    "pos_embed_seq_len": None,
}


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; is the download complete?") from error
    except EditVerseError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected an object, got {shown(value)}")
    return value


def read_pipeline(folder: Path, dtype: str = "float32") -> ModelConfig:
    """What a pipeline's folder says of its model, as our configuration.

    Args:
        dtype: of the text encoder, float32 or bfloat16.

    Raises:
        ConfigError: a part is missing or of another kind, or says what this family does not do.
    """
    try:
        return _model_config(folder, dtype)
    except ConfigError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:  # a value of another kind, in any of its files
        raise ConfigError(
            f"{folder}: a setting of its parts is of another kind: {first_line(error)}"
        ) from error


def _model_config(folder: Path, dtype: str) -> ModelConfig:
    pipeline = _pipeline(folder)
    network = read_transformer_config(folder / "transformer", pipeline.phases)
    if pipeline.boundary is not None:
        if read_transformer_config(folder / "transformer_2", pipeline.phases) != network:
            raise ConfigError(f"{folder}: transformer and transformer_2 are of different sizes")
        network = replace(network, boundary=float(pipeline.boundary))
    vae = _read(folder / "vae" / "config.json")
    text = _read(folder / "text_encoder" / "config.json")
    if vae.get("_class_name") != "AutoencoderKLWan" or text.get("model_type") != "umt5":
        raise ConfigError(f"{folder}: needs AutoencoderKLWan in vae and a umt5 in text_encoder")
    stages = len(vae["dim_mult"]) - 1 if isinstance(vae.get("dim_mult"), list) else 3
    downs = vae.get("temperal_downsample", [False, True, True])
    return ModelConfig(
        vae=part(
            "model.encoders.wan.WanVAE",
            path=str(folder),
            channels=vae.get("z_dim", 16),
            spatial=2**stages * (vae.get("patch_size") or 1),
            temporal=2 ** sum(downs[:stages]),
        ),
        text_encoder=part(
            "model.encoders.umt5.UMT5", path=str(folder), width=text.get("d_model"), dtype=dtype
        ),
        transformer=part("model.net.wan.WanTransformer", **to_dict(network)),
        sequence=SequenceConfig(
            pixel_positions=False,
            text="cross_attention",
            first_axis="source",
            image_to_video="first_frame" if pipeline.expand else "source",
            system_prompt="bernini" if pipeline.phases else "none",
        ),
        flow=FlowConfig(shift=pipeline.shift),
        media=TI2V_MEDIA if pipeline.expand else WAN_MEDIA,
        inference=BERNINI_SAMPLING if pipeline.phases else WAN_SAMPLING,
        extras=ExtrasConfig(detail_transfer=False),
    )


@dataclass(frozen=True)
class Pipeline:
    """What a pipeline's own file says.

    Attributes:
        shift: of time.
        phases: sources are told apart as in Bernini.
        boundary: noise level where experts change.
        expand: times are given by token, so that a video's first frame can be clean (Wan 2.2 TI2V).
    """

    shift: float
    phases: bool
    boundary: float | None
    expand: bool = False


def _pipeline(folder: Path) -> Pipeline:
    if not (folder / INDEX).is_file():
        own = _read(folder / CONFIG)
        if own.get("model_type") != BERNINI:
            raise ConfigError(f"{folder / CONFIG}: a {shown(own.get('model_type'))}, not {BERNINI}")
        boundary = None if own.get("skip_transformer_2", False) else own.get("switch_dit_boundary", 0.875)
        return Pipeline(float(own.get("shift", 3.0)), bool(own.get("use_src_id_rotary_emb", True)), boundary)
    index = _read(folder / INDEX)
    expand = bool(index.get("expand_timesteps", False))
    kind = index.get("_class_name")
    if kind != "WanPipeline" and not (kind == "WanImageToVideoPipeline" and expand):
        raise ConfigError(f"{folder / INDEX}: a {shown(kind)}, not WanPipeline")
    scheduler = _read(folder / "scheduler" / "scheduler_config.json")
    return Pipeline(float(scheduler.get("flow_shift", 3.0)), False, index.get("boundary_ratio"), expand)


def read_transformer_config(folder: Path, phases: bool = False) -> WanConfig:
    """Sizes of the transformer in a folder; ConfigError for one that `WanTransformer` is not.

    Args:
        phases: sources are told apart by Bernini's phase and share the target's time.
    """
    file = folder / "config.json"
    value = _read(file)
    if value.get("_class_name") != "WanTransformer3DModel":
        raise ConfigError(f"{file}: a {shown(value.get('_class_name'))}, not WanTransformer3DModel")
    for name, wanted in FIXED.items():
        if value.get(name, wanted) != wanted:
            raise ConfigError(f"{file}: {name} is {shown(value[name])}; this family has {wanted}")
    if value.get("out_channels", value.get("in_channels")) != value.get("in_channels"):
        raise ConfigError(f"{file}: in_channels and out_channels differ; sources go into the sequence here")
    try:
        heads, size = value["num_attention_heads"], value["attention_head_dim"]
        return WanConfig(
            text_dim=value["text_dim"],
            vision_dim=4 * value["in_channels"],
            width=heads * size,
            depth=value["num_layers"],
            heads=heads,
            hidden=value["ffn_dim"],
            norm_eps=value.get("eps", 1e-6),
            rope=RopeConfig(source=phases),
            source_time="target" if phases else "clean",
        )
    except KeyError as error:
        raise ConfigError(f"{file}: {error.args[0]} is missing") from error
    except (TypeError, EditVerseError) as error:
        raise ConfigError(f"{file}: {error}") from error


def shards_of(folder: Path) -> dict[str, list[str]]:
    """Names of the tensors in each safetensors file of a folder.

    Raises:
        ConfigError: no safetensors, only a pickle, a file of the index that is missing, or a tensor that is
            not in the file that the index names, or in none.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / f"{WEIGHTS}.safetensors.index.json"
    single = folder / f"{WEIGHTS}.safetensors"
    if index.is_file():
        listed = _read(index).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
            raise ConfigError(f"{index}: weight_map is no list of files by tensor")
        files = {inside(folder, name): name for name in sorted(set(listed.values()))}
    elif single.is_file():
        listed, files = None, {single: single.name}
    else:
        pickles = [p.name for p in folder.glob("*.bin")] if folder.is_dir() else []
        why = f" ({pickles[0]} is a pickle, which can run code)" if pickles else ""
        raise ConfigError(f"{single}: not found{why}; is the download complete?")
    held: dict[str, list[str]] = {}
    for file, name in files.items():
        try:
            with safe_open(file, framework="pt") as opened:
                held[name] = list(opened.keys())
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ConfigError(f"{file}: {error}; is the download complete?") from error
        if listed is not None:
            told = {tensor for tensor, where in listed.items() if where == name}
            if odd := sorted(told ^ set(held[name])):
                raise ConfigError(f"{file}: {index.name} and the file differ in {shown(odd[0])}")
    return held


def load_pipeline(
    folder: Path, device: str | torch.device, dtype: str | None, offload: bool = False
) -> tuple[Transformer, ModelConfig]:
    """A pipeline's transformer and our configuration of it all; the other parts are read on first use.

    Args:
        dtype: bfloat16 on a GPU and float32 on a CPU when None.
        offload: the transformer is read into the CPU's memory, whatever the device.

    Raises:
        ConfigError: as `read_pipeline` and `check_tensors`, or the weights need more memory than is free;
            all before any of them is read.
    """
    device = torch.device(device)
    dtype = dtype or ("float32" if device.type == "cpu" else "bfloat16")
    config = read_pipeline(folder, "float32" if dtype == "float32" else "bfloat16")
    network = config.network
    assert isinstance(network, WanConfig)  # `read_pipeline` reads no other
    shapes = weight_shapes(network)
    with torch.device("meta"):
        transformer = build_transformer(network)
    parts = {
        subfolder: {n.removeprefix(prefix): shape for n, shape in shapes.items() if n.startswith(prefix)}
        for subfolder, prefix in experts(network).items()
    }
    size = getattr(torch, dtype).itemsize
    sizes = PartSizes(
        encoder_bytes(config.text_encoder),
        encoder_bytes(config.vae),
        tuple(size * sum(shape.numel() for shape in own.values()) for own in parts.values()),
    )
    # before a transformer's file is opened: more than the memory cannot even be mapped
    check_memory(folder, sizes, device, offload)
    home = "cpu" if offload else str(device)
    held = {subfolder: check_tensors(folder / subfolder, own) for subfolder, own in parts.items()}
    for subfolder, prefix in experts(network).items():
        read = read_tensors(folder / subfolder, held[subfolder], network.heads, getattr(torch, dtype), home)
        for name, value in read:
            module, _, last = (prefix + name).rpartition(".")
            weight = nn.Parameter(value, requires_grad=False)
            transformer.get_submodule(module).register_parameter(last, weight)
    return transformer, config


def experts(network: WanConfig) -> dict[str, str]:
    """The folders of a pipeline's transformers, each with what the names of our weights begin with."""
    if network.boundary is None:
        return {"transformer": ""}
    return {part: f"{part}." for part in ("transformer", "transformer_2")}


def check_tensors(folder: Path, shapes: dict[str, torch.Size]) -> dict[str, list[str]]:
    """Names of the tensors in each file of a transformer's folder, by the files' headers alone.

    Args:
        shapes: of our weights; all of them must be there, and nothing else.

    Raises:
        ConfigError: a tensor is missing, unknown, there twice or of another shape; it is named.
    """
    from safetensors import safe_open

    held = shards_of(folder)
    names = [name for tensors in held.values() for name in tensors]
    for name in sorted(set(names) ^ set(shapes)):
        raise ConfigError(f"{folder}: weight {shown(name)} is {'unknown' if name in names else 'missing'}")
    if len(names) != len(set(names)):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{folder}: weight {shown(twice)} is in two files")
    for file, tensors in held.items():
        with safe_open(folder / file, framework="pt") as opened:
            for name in tensors:
                found = list(opened.get_slice(name).get_shape())
                wanted = list(diffusers_shape(name, shapes[name]))
                if found != wanted:
                    raise ConfigError(f"{folder / file}: weight {name!r} is {found}, not {wanted}")
    return held


def read_tensors(
    folder: Path, held: dict[str, list[str]], heads: int, dtype: torch.dtype | None, device: str
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a transformer's folder in our layout, one at a time, in `dtype` on `device`.

    Args:
        held: as `check_tensors` gives it.
        dtype: the files' own when None.

    Raises:
        ConfigError: a tensor is not finite, or not any more in `dtype`; it is named.
    """
    from safetensors import safe_open

    for file, tensors in held.items():
        with safe_open(folder / file, framework="pt", device=device) as opened:
            for name in tensors:
                value = opened.get_tensor(name)
                if not torch.isfinite(value).all():
                    raise ConfigError(f"{folder / file}: weight {name!r} holds values that are not finite")
                if dtype is not None and dtype != value.dtype:
                    value = value.to(dtype)
                    if not torch.isfinite(value).all():
                        raise ConfigError(
                            f"{folder / file}: weight {name!r} overflows in "
                            f"{str(dtype).removeprefix('torch.')}; use bfloat16"
                        )
                yield name, from_diffusers(name, value, heads)
