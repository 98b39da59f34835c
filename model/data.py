"""Shards to training steps: which samples, which frames, which noise, packed under a token budget.

All randomness is keyed by (seed, step, sample), so a step is the same however it is packed or resumed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from model.config import ConfigError, ModelConfig
from model.encoders import Codec, TextEncoder
from model.flow import draw_time
from model.media_in import fitted_size
from model.packing import Draw, PackedBatch, pack, plan_step
from model.sequence import Sequence, build_sequence, interleave, patchify, vision_tokens

if TYPE_CHECKING:
    from shards.reader import Record, ShardSet


@dataclass(frozen=True)
class DataConfig:
    """What is trained on, and how a sample is varied.

    Attributes:
        shards: folders of shards; their `train` split is used, `heldout` only for samples while training.
        batch_size: samples per optimizer step.
        token_budget: most tokens of a micro-batch; a step runs as many micro-batches as it needs.
        text_dropout: chance that a sample loses its text (for guidance).
        flip: chance of a left-right mirror of all media; "left" and "right" change places in the text.
        change_weight: extra weight of target tokens that differ from the source at the same place, relative
            to the others; weights average 1 per sample. It uses the training pair alone, no mask. 0 is the
            paper's loss.
    """

    shards: tuple[str, ...] = ("data/shards/object_removal",)
    batch_size: int = 16
    token_budget: int = 16_384
    text_dropout: float = 0.1
    flip: float = 0.0
    change_weight: float = 0.0


def keyed(*parts: object) -> torch.Generator:
    """A generator that depends on `parts` alone."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def mirrored(text: str) -> str:
    """The text with "left" and "right" exchanged, case kept."""
    swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub(r"\b([Ll]eft|[Rr]ight)\b", lambda m: swap[m[0]], text)


def to_float(pixels: np.ndarray) -> Tensor:
    """uint8 [..., 3] -> float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 127.5 - 1


@dataclass(frozen=True)
class Example:
    """One visit of a sample, ready to be packed.

    Attributes:
        sequence: clean tokens; noise: float [target tokens, token size]; time: scalar in (0, 1).
        weight: float [target tokens], mean 1.
    """

    key: str
    task: str
    sequence: Sequence
    noise: Tensor
    time: Tensor
    weight: Tensor


@dataclass(frozen=True)
class MicroBatch:
    """Examples packed together; noise and weight are [M, ...] in the order of `batch.target`, time is [S]."""

    batch: PackedBatch
    noise: Tensor
    time: Tensor
    weight: Tensor
    keys: tuple[str, ...]
    tasks: tuple[str, ...]

    def to(self, device: torch.device | str) -> MicroBatch:
        """Copy to a device."""
        noise, time, weight = (x.to(device) for x in (self.noise, self.time, self.weight))
        return MicroBatch(self.batch.to(device), noise, time, weight, self.keys, self.tasks)


@dataclass(frozen=True)
class StepBatch:
    """All of one optimizer step."""

    step: int
    micro: tuple[MicroBatch, ...]

    def to(self, device: torch.device | str) -> StepBatch:
        """Copy to a device."""
        return StepBatch(self.step, tuple(m.to(device) for m in self.micro))


def collate(examples: list[Example], pad_to: int | None = None) -> MicroBatch:
    """Pack examples side by side."""
    return MicroBatch(
        pack([e.sequence for e in examples], pad_to),
        torch.cat([e.noise for e in examples]),
        torch.stack([e.time for e in examples]),
        torch.cat([e.weight for e in examples]),
        tuple(e.key for e in examples),
        tuple(e.task for e in examples),
    )


class Pairs:
    """The samples of one split of some shard folders, at the model's size.

    Decoded and resized media are kept in memory by the hash of their file (samples of one pair share them):
    about 1 MB per second of video at nano size, which suits sets of some hundred clips.

    Raises:
        ConfigError: a target or medium that the model cannot take; shards.index.ShardError: no such shards.
    """

    def __init__(
        self, folders: tuple[str, ...], split: str, model: ModelConfig, codec: Codec, text: TextEncoder
    ) -> None:
        from shards.reader import ShardSet

        self.model, self.codec, self.text = model, codec, text
        self._places: list[tuple[ShardSet, int]] = []
        for folder in folders:
            shards = ShardSet(folder, split)
            self._places += [(shards, i) for i in range(len(shards))]
        self._pixels: dict[str, np.ndarray] = {}
        self._states = self._encode_texts()
        self.lengths = [self._length(i) for i in range(len(self))]

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int) -> Record:
        """The sample as it lies in the shard."""
        shards, place = self._places[index]
        return shards[place]

    def states(self, text: str) -> Tensor:
        """Token states of a piece of text; each distinct text is encoded once."""
        if text not in self._states:
            self._states[text] = self.text.encode([text])[0].cpu()
        return self._states[text]

    def _encode_texts(self) -> dict[str, Tensor]:
        """Token states of every distinct piece of text of the samples, encoded together."""
        from shards.sample import split_text

        texts = (shards.entry(place).text for shards, place in self._places)
        parts = dict.fromkeys(part for text in texts for kind, part in split_text(text) if kind == "text")
        return {part: x.cpu() for part, x in zip(parts, self.text.encode(list(parts)), strict=True)}

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at which the model sees a medium."""
        multiple = self.codec.spatial * self.model.sequence.patch
        return fitted_size(height, width, self.model.media, multiple)

    def _length(self, index: int) -> int:
        """Tokens of a sample's sequence with its text, from the shard's index alone."""
        from shards.sample import split_text

        shards, place = self._places[index]
        entry, total = shards.entry(place), 0
        for kind, part in split_text(entry.text):
            if kind == "text":
                total += len(self.states(part))
            else:
                _, frames, height, width = entry.media[part]
                size = self.frame_size(height, width)
                frames = min(frames, self.model.media.frames)
                total += vision_tokens(self.codec.latent_size(frames, *size), self.model.sequence.patch)
        return total

    def pixels(self, record: Record, name: str) -> np.ndarray:
        """All frames of an element at the model's size, uint8 [T, h, w, 3]; an image has one frame."""
        from shards.media import resize

        media = record.sample.media[name]
        hashed = media.sha256 or f"{record.key}/{name}"
        if hashed not in self._pixels:
            size = self.frame_size(media.height, media.width)
            self._pixels[hashed] = resize(record.pixels(name), size)
        return self._pixels[hashed]

    def window(self, record: Record, generator: torch.Generator | None) -> dict[str, tuple[int, int]]:
        """Frames (start, stop) of every element: at most `media.frames`.

        Elements as long as the target share its window; others give their first frames. Without a generator
        every window starts at 0.
        """
        most, sample = self.model.media.frames, record.sample
        length = sample.media[sample.targets[0]].frames
        start = 0
        if generator is not None and length > most:
            start = int(torch.randint(0, length - most + 1, (), generator=generator))
        return {
            name: (start, min(start + most, length)) if m.frames == length else (0, min(most, m.frames))
            for name, m in sample.media.items()
        }

    def example(self, index: int, epoch: int, step: int, seed: int, config: DataConfig) -> Example:
        """One visit: target, window, flip, dropout, timestep and noise, keyed by (seed, step, sample)."""
        record = self.record(index)
        sample = record.sample

        def random(purpose: str) -> torch.Generator:
            return keyed(seed, step, epoch, sample.key, purpose)

        def chance(purpose: str) -> float:
            return float(torch.rand((), generator=random(purpose)))

        which = int(torch.randint(0, len(sample.targets), (), generator=random("target")))
        target = sample.targets[which]
        window = self.window(record, random("window"))
        flip = chance("flip") < config.flip
        text = mirrored(sample.text) if flip else sample.text
        latents: dict[str, Tensor] = {}
        for name in sample.media:
            if f"<{name}>" in text:
                frames = self.pixels(record, name)[slice(*window[name])]
                latents[name] = self.codec.encode(to_float(frames[:, :, ::-1] if flip else frames)).cpu()
        drop = chance("text") < config.text_dropout
        elements = interleave(text, latents, target, self.states, drop_text=drop)
        sequence = build_sequence(elements, self.model.sequence, self.codec.spatial)
        tokens = patchify(latents[target], self.model.sequence.patch)
        return Example(
            key=sample.key,
            task=sample.task,
            sequence=sequence,
            noise=torch.randn(tokens.shape, generator=random("noise")),
            time=draw_time(self.model.flow, random("time"), len(tokens)),
            weight=self._weights(sample, latents, target, config.change_weight),
        )

    def _weights(self, sample: Any, latents: dict[str, Tensor], target: str, extra: float) -> Tensor:
        """Loss weight per target token, mean 1; see `DataConfig.change_weight`."""
        patch = self.model.sequence.patch
        tokens = patchify(latents[target], patch)
        same = [
            name
            for name, value in latents.items()
            if name != target and sample.media[name].kind != "mask" and value.shape == latents[target].shape
        ]
        if not extra or not same:
            return torch.ones(len(tokens))
        change = (tokens - patchify(latents[same[0]], patch)).square().mean(1).sqrt()
        weight = 1 + extra * (change / 0.5).clamp(max=1)
        return weight / weight.mean()


class Steps(Dataset[StepBatch]):
    """Item i is everything of optimizer step `first + i`, planned from the lengths alone."""

    def __init__(self, pairs: Pairs, config: DataConfig, seed: int, first: int, last: int) -> None:
        self.pairs, self.config, self.seed, self.first, self.last = pairs, config, seed, first, last
        self.plan(first)  # a budget that cannot hold the longest sample fails here, not at some later step

    def plan(self, step: int) -> list[list[Draw]]:
        """Micro-batches of a step."""
        config = self.config
        try:
            return plan_step(
                self.pairs.lengths,
                step,
                seed=self.seed,
                batch_size=config.batch_size,
                token_budget=config.token_budget,
            )
        except ValueError as error:
            raise ConfigError(f"data: {error}") from error

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __getitem__(self, i: int) -> StepBatch:
        if not 0 <= i < len(self):
            raise IndexError(i)
        step = self.first + i
        micro = [
            collate([self.pairs.example(d.index, d.epoch, step, self.seed, self.config) for d in draws])
            for draws in self.plan(step)
        ]
        return StepBatch(step, tuple(micro))


def distinct_videos(pairs: Pairs, most: int) -> Iterator[Tensor]:
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


def data_fingerprint(folders: tuple[str, ...]) -> str:
    """One sha256 over the manifests: equal for equal data, wherever the folders lie."""
    from shards.index import read_manifest

    digest = hashlib.sha256()
    for folder in folders:
        for row in read_manifest(Path(folder)):
            digest.update(f"{row.shard} {row.sha256}\n".encode())
    return digest.hexdigest()
