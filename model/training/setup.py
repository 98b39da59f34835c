"""What a run is made of before it trains: its data, encoders and starting weights."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from model.config import ModelConfig, build_part, load_config
from model.data.batch import rows_of
from model.data.dataset import EditDataset
from model.data.latent_cache import known_codec
from model.distillation.objective import Distillation
from model.distillation.teacher import check_teacher, load_teacher
from model.encoders import Codec, TextEncoder, part
from model.encoders.transform import TransformCodec
from model.inference.checkpoint import describe_checkpoint
from model.inference.editor import Editor
from model.inference.pretrained import find_checkpoint
from model.net.transformer import Transformer
from model.net.wan import with_words
from model.net.wan_config import WanConfig
from model.sequence.pixels import to_float
from model.training.config import FitConfig, TrainConfig
from model.training.dataloader import unreadable
from shards.errors import ConfigError
from shards.files import write_json
from shards.location import ShardError
from shards.serialization import from_dict, to_dict

T = TypeVar("T")

log = logging.getLogger(__name__)


def slow_bfloat16(config: FitConfig, capabilities: Mapping[str, Any]) -> str | None:
    """What to say of settings that compute in bfloat16 on a processor without units for it; None for nothing.

    Args:
        capabilities: `torch.cpu.get_capabilities()` of the processor that trains.
    """
    if capabilities.get("architecture") != "x86_64":  # of others torch does not tell
        return None
    if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
        return None
    asked = []
    if config.train.precision == "bf16-mixed":
        asked.append("train.precision bf16-mixed (choose 32-true)")
    if config.optim.method == "muon":  # torch's iterations are in bfloat16 whatever the precision
        asked.append("optim.method muon (choose adamw)")
    if not asked:
        return None
    name = capabilities.get("cpu_name") or "this processor"
    return f"{name} emulates bfloat16, ten times slower or more: {' and '.join(asked)}"


def warn_of_slow_bfloat16(config: FitConfig, device: torch.device) -> None:
    """Log what `slow_bfloat16` says of a run on the processor; older torch cannot tell."""
    known = device.type == "cpu" and hasattr(torch.cpu, "get_capabilities")
    if known and (told := slow_bfloat16(config, torch.cpu.get_capabilities())):
        log.warning(told)


def load_init_weights(config: FitConfig) -> Transformer | None:
    """The transformer that training starts from, if any, in float32; ConfigError as `init_model`.

    Weights for words among the tokens, where the run asks for them and the checkpoint has none, are new.
    """
    wanted = init_model(config).network
    if config.train.init_from is None:
        return None
    network = Editor.from_pretrained(config.train.init_from, dtype="float32").dit
    if isinstance(wanted, WanConfig):
        if wanted.words and not network.config.words:
            network = with_words(network, wanted, config.train.seed)
        network.config = wanted  # a phase of the sources that the run asks for has no weights
    return network.requires_grad_(True).train()


def init_model(config: FitConfig) -> ModelConfig:
    """The model that is trained: the configuration's, or that of `train.init_from`; no weights are read.

    Raises:
        ConfigError: settings that contradict it, or a base that can edit but not be trained.
    """
    if config.train.init_from is None:
        if config.lora is not None:
            raise ConfigError("lora: an adapter needs weights to adapt; name a checkpoint in train.init_from")
        model = config.model
    elif config.model != ModelConfig():
        raise ConfigError("model: with train.init_from the model is the checkpoint's; leave this section out")
    else:
        base = _config_of(config.train.init_from, config.train.accelerator)
        model = _changed(base, config.train)
        if config.lora is not None and model.sequence.text != base.sequence.text:
            raise ConfigError(
                "train.text: an adapter leaves the new weights for words untrained; train without lora first"
            )
    if isinstance(model.network, WanConfig) and model.network.boundary is not None:
        raise ConfigError(
            "train.init_from: two experts can edit but not be trained here; start from Wan 2.1 1.3B, Wan 2.2 "
            "TI2V 5B or Bernini-R 1.3B"
        )
    if config.distill is not None:
        check_teacher(config.distill, config.train.init_from, model)
        model = dataclasses.replace(model, inference=config.distill.inference(model.inference))
    return model


def distillation_of(config: FitConfig, model: ModelConfig, device: torch.device) -> Distillation | None:
    """What a distillation's student learns, with its teacher read to `device`; None of other runs."""
    if config.distill is None or config.train.init_from is None:
        return None
    teacher = load_teacher(config.distill, config.train.init_from, device, config.train.precision, model)
    return Distillation(config.distill, model, teacher)


def _changed(model: ModelConfig, train: TrainConfig) -> ModelConfig:
    """A checkpoint's configuration with what the run says otherwise."""
    if train.media is not None:
        model = dataclasses.replace(model, media=train.media)
    if train.flow is not None:
        flow = _with_fields(model.flow, train.flow, "train.flow", ("prediction",))
        model = dataclasses.replace(model, flow=flow)
    if train.rope is not None:
        rope = _with_fields(model.network.rope, train.rope, "train.rope", ("dims", "source"))
        model = model.with_network(dataclasses.replace(model.network, rope=rope))
    if train.source_phase is not None:
        network = model.network
        if not isinstance(network, WanConfig):
            raise ConfigError("train.source_phase: only Wan's family has it; leave it out")
        network = dataclasses.replace(
            network, rope=dataclasses.replace(network.rope, source=train.source_phase)
        )
        model = model.with_network(network)
    if train.text is not None:
        network = model.network
        if not isinstance(network, WanConfig) or model.transformer is None:
            raise ConfigError("train.text: only Wan's family has it; leave it out")
        network = dataclasses.replace(network, words=True)
        model = dataclasses.replace(
            model,
            transformer=part(model.transformer["class_path"], **to_dict(network)),
            sequence=dataclasses.replace(model.sequence, text=train.text),
        )
    return model


def _with_fields(held: T, changes: dict[str, Any], where: str, fixed: tuple[str, ...]) -> T:
    """A part of a checkpoint's configuration with some fields changed; `fixed` ones are the weights' own.

    Raises:
        ConfigError: begins with `where` and names the field.
    """
    values = to_dict(held)
    for name in fixed:
        if name in changes and changes[name] != values[name]:
            raise ConfigError(f"{where}.{name}: the weights were trained with {values[name]}; leave it out")
    changed: T = from_dict(type(held), values | changes, where)
    return changed


def _config_of(path: str, accelerator: str) -> ModelConfig:
    """What a checkpoint's or a published pipeline's folder says of its model."""
    on_gpu = accelerator in ("cuda", "gpu") or (accelerator == "auto" and torch.cuda.is_available())
    return describe_checkpoint(find_checkpoint(path), "bfloat16" if on_gpu else "float32")


def build_datasets(
    config: FitConfig, run: Path | None
) -> tuple[EditDataset, EditDataset | None, ModelConfig]:
    """Training pairs, held-out pairs (None when the shards have none), and the model's full configuration.

    The codec's statistics are measured on the training pairs once and kept in `model.json` of the run, if
    there is one; they and all else are those of `train.init_from`, where training starts from that, and the
    statistics those of `data.latent_cache`, where that is filled.
    """
    model = init_model(config)
    if run is not None and (run / "model.json").is_file():
        model = load_config(run / "model.json")
    elif config.data.latent_cache is not None:
        model = dataclasses.replace(model, vae=known_codec(config.data.latent_cache, model.vae))
    text = build_part(model.text_encoder, TextEncoder, "model.text_encoder")
    codec = build_part(model.vae, Codec, "model.vae")
    rows = rows_of(config.data)
    train = EditDataset(rows, "train", model, codec, text, config.data.cache_gib)
    refuse_mixed_generators(train)
    if isinstance(codec, TransformCodec) and "scale" not in model.vae.get("init_args", {}):
        codec = codec.fitted(distinct_videos(train, 64, config.data.on_error))
        model = dataclasses.replace(model, vae=part(model.vae["class_path"], **codec.init_args))
    model = model.with_widths(codec.channels * model.sequence.patch**2, text.width)
    if run is not None:
        write_json(run / "model.json", to_dict(model))
    train.vae, train.model = codec, model
    train.for_teacher = config.distill is not None
    try:
        heldout = EditDataset(rows, "heldout", model, codec, text, config.data.cache_gib)
    except ShardError as error:
        log.info("no held-out pairs are rendered: %s", error)
        heldout = None
    if heldout is not None:
        heldout.for_teacher = train.for_teacher
    return train, heldout, model


def refuse_mixed_generators(pairs: EditDataset) -> None:
    """Raise ConfigError naming two folders whose scenes were rendered by different versions of the generator.

    What a version changes in its scenes would be learned as if it belonged to a task. The first sample of a
    folder speaks for it: a folder is written by one run.
    """
    seen: dict[tuple[str, str], str] = {}
    for shards in pairs.shards:
        for step in shards[0].sample.provenance.steps:
            if step.stage == "render":
                seen.setdefault((step.model, step.revision), str(shards.location))
    if len(seen) > 1:
        (one, first), (two, second) = [*seen.items()][:2]
        raise ConfigError(
            f"data: {first} and {second} were rendered by different generators ({' '.join(one)}; "
            f"{' '.join(two)}); make both anew with `make nano-data`"
        )


def distinct_videos(
    pairs: EditDataset, most: int, on_error: Literal["stop", "replace"] = "stop"
) -> Iterator[Tensor]:
    """Float videos of up to `most` distinct elements, spread over the samples, for codec statistics.

    Masks are left out: their two values are no picture.

    Args:
        on_error: what cannot be read stops the run, or is left out; both name it.

    Raises:
        SampleError: an element that cannot be read.
    """
    seen: set[str] = set()
    for index in range(0, len(pairs), max(1, len(pairs) // most)):
        record = pairs.record(index)
        for name, media in record.sample.media.items():
            hashed = media.sha256 or f"{record.key}/{name}"
            if media.kind != "mask" and hashed not in seen and len(seen) < most:
                seen.add(hashed)
                try:
                    frames = pairs.pixels(record, name)
                except (ValueError, OSError) as error:
                    if on_error == "stop":
                        raise unreadable(pairs.name(index), error) from error
                    log.warning("%s, %s: is left out of the codec's statistics: %s", record.key, name, error)
                    continue
                yield to_float(frames[: pairs.model.media.frames])
