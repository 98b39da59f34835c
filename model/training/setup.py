"""What a run is made of before it trains: its data, encoders and starting weights."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from model.config import ModelConfig, build_part, load_config
from model.data.batch import rows_of
from model.data.dataset import EditDataset
from model.data.latent_cache import known_codec
from model.encoders import Codec, TextEncoder, part
from model.encoders.transform import TransformCodec
from model.inference.editor import Editor
from model.net.wan_config import WanConfig
from model.sequence.pixels import to_float
from model.training.config import FitConfig
from shards.errors import ConfigError
from shards.files import write_json
from shards.location import ShardError
from shards.serialization import to_dict

log = logging.getLogger(__name__)


def load_init_checkpoint(config: FitConfig) -> Editor | None:
    """The editor whose weights training starts from, if any; ConfigError for settings that contradict it."""
    if config.train.init_from is None:
        if config.lora is not None:
            raise ConfigError("lora: an adapter needs weights to adapt; name a checkpoint in train.init_from")
        return None
    if config.model != ModelConfig():
        raise ConfigError("model: with train.init_from the model is the checkpoint's; leave this section out")
    editor = Editor.from_pretrained(config.train.init_from, dtype="float32")
    editor.dit.requires_grad_(True).train()
    return editor


def build_datasets(
    config: FitConfig, run: Path | None, base: Editor | None = None
) -> tuple[EditDataset, EditDataset | None, ModelConfig]:
    """Training pairs, held-out pairs (None when the shards have none), and the model's full configuration.

    The codec's statistics are measured on the training pairs once and kept in `model.json` of the run, if
    there is one; they and all else are those of `base`, where training starts from one, and the statistics
    those of `data.latent_cache`, where that is filled.
    """
    model = base.config if base else config.model
    text = base.text_encoder if base else build_part(model.text_encoder, TextEncoder, "model.text_encoder")
    if run is not None and (run / "model.json").is_file():
        model = load_config(run / "model.json")
    elif config.data.latent_cache is not None:
        model = dataclasses.replace(model, vae=known_codec(config.data.latent_cache, model.vae))
    if isinstance(model.network, WanConfig):
        raise ConfigError("model.transformer: only DiT can be trained yet, Wan's family edits alone")
    codec = build_part(model.vae, Codec, "model.vae")
    rows = rows_of(config.data)
    train = EditDataset(rows, "train", model, codec, text, config.data.cache_gib)
    refuse_mixed_generators(train)
    if isinstance(codec, TransformCodec) and "scale" not in model.vae.get("init_args", {}):
        codec = codec.fitted(distinct_videos(train, 64))
        model = dataclasses.replace(model, vae=part(model.vae["class_path"], **codec.init_args))
    width = codec.channels * model.sequence.patch**2
    for name, given, is_width in (
        ("vision_dim", model.dit.vision_dim, width),
        ("text_dim", model.dit.text_dim, text.width),
    ):
        if given not in (0, is_width):
            raise ConfigError(
                f"model.dit.{name} is {given}; the encoders give {is_width} (0 takes what they give)"
            )
    model = dataclasses.replace(
        model, dit=dataclasses.replace(model.dit, vision_dim=width, text_dim=text.width)
    )
    if run is not None:
        write_json(run / "model.json", to_dict(model))
    train.vae, train.model = codec, model
    try:
        heldout = EditDataset(rows, "heldout", model, codec, text, config.data.cache_gib)
    except ShardError as error:
        log.info("no held-out pairs are rendered: %s", error)
        heldout = None
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


def distinct_videos(pairs: EditDataset, most: int) -> Iterator[Tensor]:
    """Float videos of up to `most` distinct elements, spread over the samples, for codec statistics.

    Masks are left out: their two values are no picture.
    """
    seen: set[str] = set()
    for index in range(0, len(pairs), max(1, len(pairs) // most)):
        record = pairs.record(index)
        for name, media in record.sample.media.items():
            hashed = media.sha256 or f"{record.key}/{name}"
            if media.kind != "mask" and hashed not in seen and len(seen) < most:
                seen.add(hashed)
                yield to_float(pairs.pixels(record, name)[: pairs.model.media.frames])
