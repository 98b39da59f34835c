"""Encode the samples of a training run beforehand: latents and token states, shard by shard.

`python -m model precompute --config my.yaml` fills `data.latent_cache` of the configuration that is trained
with.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from model.config import build_part
from model.data.batch import rows_of
from model.data.dataset import EditDataset
from model.data.latent_cache import (
    DESCRIPTION,
    check,
    digest_of,
    encoding_of,
    latent_name,
    read_encoding,
    states_name,
)
from model.data.text_counts import count_texts
from model.data.variants import mirrored
from model.encoders import TextEncoder
from model.training.config import FitConfig
from model.training.setup import build_datasets, init_model
from shards.encoded import encoded_name, read_encoded_index, write_encoded
from shards.errors import ConfigError
from shards.files import LOCK, exclusive, sweep_temporaries_of, write_json
from shards.reader import ShardSet
from shards.sample import tags_of

log = logging.getLogger(__name__)

TEXTS = 64  # pieces of text that are encoded together


@dataclass
class Encoding:
    """What a call did."""

    shards: int = 0
    there: int = 0  # shards encoded before
    samples: int = 0
    failed: int = 0
    bytes: int = 0


def precompute(
    config: FitConfig,
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16"] = "float32",
    part: int = 0,
    parts: int = 1,
) -> Encoding:
    """Encode the training samples of every shard that is not encoded yet.

    A tar and its index appear whole, so that a call that was ended goes on where it was.

    Args:
        config: `data.latent_cache` is the folder to fill; `data.crops` and `data.flip_prob` say what of a
            sample. A sample that cannot be encoded stops the call or is left out, by `data.on_error`.
        device: of the encoders.
        dtype: that is stored; training computes with float32 of it.
        part: every `parts`-th shard is encoded, from number `part` on, so that calls can share the work.

    Raises:
        ConfigError: a setting that cannot be used, or a folder that holds another encoding.
        shards.location.ShardError, shards.media.MediaError: a sample that cannot be read.
    """
    if config.data.latent_cache is None:
        raise ConfigError("data.latent_cache: name the folder to encode into")
    if "://" in config.data.latent_cache:
        raise ConfigError(
            f"data.latent_cache: {config.data.latent_cache} is a URL; encode into a folder, then copy it"
        )
    if not 0 <= part < parts:
        raise ConfigError(f"part {part} of {parts}: parts are numbered from 0")
    folder = Path(config.data.latent_cache)
    # calls that share the shards share the folder; none of them runs twice at once
    with exclusive(folder, "data.latent_cache", LOCK if parts == 1 else f"{LOCK}-{part}-of-{parts}"):
        return _encode(config, folder, device, dtype, part, parts)


def precompute_text_counts(config: FitConfig) -> Iterator[tuple[str, bool]]:
    """Count the texts of every folder with the model's tokenizer: (folder, whether it is the first time)."""
    text = build_part(init_model(config).text_encoder, TextEncoder, "model.text_encoder")
    for folder in dict.fromkeys(folder for row in rows_of(config.data).values() for folder in row.shards):
        yield folder, count_texts(folder, text)


def _encode(config: FitConfig, folder: Path, device: str, dtype: str, part: int, parts: int) -> Encoding:
    pairs, _, model = build_datasets(config, None)
    encoding = encoding_of(model, config.data)
    if read_encoding(str(folder)) is None:
        write_json(folder / DESCRIPTION, encoding)
    check(str(folder), encoding)
    pairs.vae, pairs.text_encoder = pairs.vae.to(device), pairs.text_encoder.to(device)
    done, digest = Encoding(), digest_of(encoding)
    jobs = [(shards, number) for shards in pairs.shards for number in range(len(shards.rows))]
    for shards, number in jobs[part::parts]:
        row = shards.rows[number]
        if read_encoded_index(folder, row, digest) is not None:
            done.there += 1
            continue
        samples = _samples(pairs, shards, number, config, getattr(torch, dtype), done)
        sweep_temporaries_of(folder / encoded_name(row))  # a killed call's, which are as large as the shard
        index = write_encoded(folder, row, digest, samples)
        done.shards += 1
        done.bytes += (folder / index.shard).stat().st_size
        log.info("%s: %d of %d samples", folder / index.shard, len(index.samples), row.samples)
    return done


def _samples(
    pairs: EditDataset, shards: ShardSet, number: int, config: FitConfig, dtype: torch.dtype, done: Encoding
) -> Iterator[tuple[str, bytes, list[int]]]:
    """(key, safetensors file, tokens of each piece of text) of the samples of one shard."""
    from safetensors.torch import save

    counts = shards.counts()
    first = sum(counts[:number])
    places = range(first, first + counts[number])
    flips = (False, True) if config.data.flip_prob > 0 else (False,)
    pieces = {place: pairs.texts_of(shards.entry(place)) for place in places}
    texts = {mirrored(p) if flip else p for part in pieces.values() for p in part for flip in flips}
    states = _states(pairs, sorted(texts), dtype)
    for place in places:
        try:
            tensors = _latents(pairs, shards, place, config, flips, dtype)
        except (ValueError, OSError) as error:
            if config.data.on_error == "stop":
                raise ConfigError(
                    f"{shards.location}: {shards.entry(place).key}: {error}; repair it, or set data.on_error "
                    "to replace"
                ) from error
            log.warning("%s: %s is left out: %s", shards.location, shards.entry(place).key, error)
            done.failed += 1
            continue
        for i, piece in enumerate(pieces[place]):
            tensors[states_name(i, False)] = states[piece]
            if True in flips and mirrored(piece) != piece:
                tensors[states_name(i, True)] = states[mirrored(piece)]
        done.samples += 1
        # shared storage is refused: two pieces of a text may be equal
        data = save({name: tensor.clone().contiguous() for name, tensor in sorted(tensors.items())})
        yield shards.entry(place).key, data, [len(states[piece]) for piece in pieces[place]]


def _states(pairs: EditDataset, texts: list[str], dtype: torch.dtype) -> dict[str, Tensor]:
    states: dict[str, Tensor] = {}
    for first in range(0, len(texts), TEXTS):
        some = texts[first : first + TEXTS]
        states |= {t: s.cpu().to(dtype) for t, s in zip(some, pairs.text_encoder.encode(some), strict=True)}
    return states


def _latents(
    pairs: EditDataset,
    shards: ShardSet,
    place: int,
    config: FitConfig,
    flips: tuple[bool, ...],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Latents of all windows of the elements that a sample's text names."""
    entry, record = shards.entry(place), shards[place]
    tensors: dict[str, Tensor] = {}
    windows = (w for target in entry.targets for w in pairs.windows(entry, target, config.data.crops))
    for window in windows:
        for name in tags_of(entry.text):
            for flip in flips:
                named = latent_name(name, window[name][0], flip)
                if named not in tensors:
                    tensors[named] = pairs.latents(record, name, window[name], flip).to(dtype)
    return tensors
