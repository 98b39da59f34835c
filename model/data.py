"""Shards to training examples: which frames, which text, which noise.

All randomness is keyed by (seed, step, sample), so a visit is the same however it is packed or resumed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from model.config import ConfigError, ModelConfig
from model.encoders import Codec, TextEncoder
from model.flow import draw_time
from model.media_in import fitted_size
from model.mixture import Row
from model.packing import PackedBatch, pack
from model.sequence import VISION, Sequence, build_sequence, interleave, patchify, vision_tokens
from model.ulysses import Route

if TYPE_CHECKING:
    from shards.reader import Record, ShardSet


@dataclass(frozen=True)
class DataConfig:
    """What is trained on, and how a sample is varied.

    Attributes:
        shards: folders of shards; their `train` split is used, `heldout` only for samples while training.
        mixture: file that names data sets and their ratios (`model.mixture`), in place of `shards`.
        batch_size: samples per optimizer step, over all ranks.
        token_budget: most tokens of a micro-batch on a rank; a step runs as many micro-batches as it needs.
        flop_budget: most operations of one (forward and backward), None for no bound.
        workers: processes per rank that read and encode ahead of the training, 0 does it between steps;
            prefetch: steps that each prepares ahead.
        on_error: a sample that cannot be read or encoded stops the run, or is replaced by the next one of its
            row that is no longer; both name it.
        text_dropout: chance that a sample loses its text (for guidance).
        flip: chance of a left-right mirror of all media; "left" and "right" change places in the text.
        change_weight: extra weight of target tokens that differ from the source at the same place, relative
            to the others; weights average 1 per sample. It uses the training pair alone, no mask. 0 is the
            paper's loss.
    """

    shards: tuple[str, ...] = ("data/shards/object_removal",)
    mixture: str | None = None
    batch_size: int = 16
    token_budget: int = 16_384
    flop_budget: float | None = None
    workers: int = 0
    prefetch: int = 2
    on_error: Literal["stop", "replace"] = "stop"
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
    """One visit of a sample, or a rank's part of it, ready to be packed.

    Attributes:
        sequence: clean tokens; noise: float [target tokens, token size]; time: scalar in (0, 1).
        weight: float [target tokens], mean 1 over the whole sample.
        size: target tokens of the whole sample.
    """

    key: str
    task: str
    sequence: Sequence
    noise: Tensor
    time: Tensor
    weight: Tensor
    size: int

    def part(self, start: int, stop: int) -> Example:
        """Tokens start:stop and what belongs to them; beyond the end there are none."""
        target = self.sequence.target
        segment = self.sequence.segment == self.sequence.segments.index(target)
        counted = (segment & (self.sequence.kind == VISION)).cumsum(0)
        start, stop = (min(place, len(self.sequence)) for place in (start, stop))
        first, last = (int(counted[place - 1]) if place else 0 for place in (start, stop))
        return replace(
            self,
            sequence=self.sequence.part(start, stop),
            noise=self.noise[first:last],
            weight=self.weight[first:last],
        )


@dataclass(frozen=True)
class MicroBatch:
    """Examples packed together.

    Attributes:
        noise, weight: [M, ...] in the order of `batch.target`.
        time, size: [S], timestep and target tokens of each sequence as a whole.
        tokens: without padding.
    """

    batch: PackedBatch
    noise: Tensor
    time: Tensor
    weight: Tensor
    size: Tensor
    keys: tuple[str, ...]
    tasks: tuple[str, ...]
    tokens: int

    def to(self, device: torch.device | str) -> MicroBatch:
        """Copy to a device."""
        moved = {n: getattr(self, n).to(device) for n in ("batch", "noise", "time", "weight", "size")}
        return replace(self, **moved)


@dataclass(frozen=True)
class StepBatch:
    """What one rank does of an optimizer step.

    Attributes:
        samples: of all ranks.
        plan: numbers that describe the step's plan: `flops` of the blocks, forward and backward, on all
            ranks; `imbalance`, `split` and `padding`, see `model.planning.StepPlan`.
    """

    step: int
    micro: tuple[MicroBatch, ...]
    samples: int
    plan: dict[str, float] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> StepBatch:
        """Copy to a device."""
        return replace(self, micro=tuple(m.to(device) for m in self.micro))


def collate(
    examples: list[Example],
    pad_to: int | None = None,
    route: Route | None = None,
    bounds: int | None = None,
    width: int = 0,
) -> MicroBatch:
    """Pack examples side by side, see `pack`; `width` is the token size where there is no example."""
    return MicroBatch(
        pack([e.sequence for e in examples], pad_to, route, bounds, width),
        torch.cat([e.noise for e in examples]) if examples else torch.zeros(0, width),
        torch.stack([e.time for e in examples]) if examples else torch.zeros(0),
        torch.cat([e.weight for e in examples]) if examples else torch.zeros(0),
        torch.tensor([e.size for e in examples]),
        tuple(e.key for e in examples),
        tuple(e.task for e in examples),
        sum(len(e.sequence) for e in examples),
    )


def rows_of(config: DataConfig) -> dict[str, Row]:
    """The data sets to train on, by name; raises ConfigError for a mixture that has none here."""
    from model.mixture import read_mixture

    if config.mixture is None:
        return {"shards": Row(shards=config.shards)}
    rows = read_mixture(config.mixture).rows
    for name, row in rows.items():
        if not row.shards:
            raise ConfigError(
                f"{config.mixture}: rows.{name}.shards: names no folder to train on (source: "
                f"{row.source or 'unknown'}); add it, or drop the row in an overlay"
            )
    return rows


class Pairs:
    """The samples of one split of a mixture's rows, at the model's size; they are numbered row by row.

    Decoded and resized media are kept in memory by the hash of their file (samples of one pair share them):
    about 1 MB per second of video at nano size, which suits sets of some hundred clips.

    Raises:
        ConfigError: a target or medium that the model cannot take; shards.index.ShardError: no such shards.
    """

    def __init__(
        self, rows: Mapping[str, Row], split: str, model: ModelConfig, codec: Codec, text: TextEncoder
    ) -> None:
        from shards.index import ShardError

        self.model, self.codec, self.text, self.rows = model, codec, text, dict(rows)
        self._places: list[tuple[ShardSet, int]] = []
        self.sizes: list[list[int]] = []  # by row and shard
        opened: dict[str, ShardSet | None] = {}
        for name, row in rows.items():
            sizes = []
            for folder in row.shards:
                if folder not in opened:
                    opened[folder] = self._open(folder, split)
                shards, first = opened[folder], 0
                for count in shards.counts() if shards else ():
                    chosen = [
                        (shards, i)
                        for i in range(first, first + count)
                        if shards and (not row.tasks or shards.entry(i).task in row.tasks)
                    ]
                    first += count
                    self._places += [(s, i) for s, i in chosen if s]
                    sizes += [len(chosen)] if chosen else []
            if not sizes and split == "train":
                tasks = f" of the tasks {', '.join(row.tasks)}" if row.tasks else ""
                raise ConfigError(f"data: row {name}: {', '.join(row.shards)}: no {split} samples{tasks}")
            self.sizes.append(sizes)
        if not self._places:
            folders = ", ".join(f for row in rows.values() for f in row.shards)
            raise ShardError(f"{folders}: no {split} shards")
        self._pixels: dict[str, np.ndarray] = {}
        self._states = self._encode_texts()
        self.lengths = [self._length(i) for i in range(len(self))]

    @staticmethod
    def _open(folder: str, split: str) -> ShardSet | None:
        """A folder's samples of a split; a folder need not have any that are held out."""
        from shards.index import read_manifest
        from shards.reader import ShardSet

        if split == "heldout" and not any(r.shard.startswith("heldout-") for r in read_manifest(folder)):
            return None
        return ShardSet(folder, split)

    def __len__(self) -> int:
        return len(self._places)

    def name(self, index: int) -> str:
        """Where a sample lies and its key."""
        shards, place = self._places[index]
        return f"{shards.location}: {shards.entry(place).key}"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of all samples, sorted."""
        return tuple(sorted({shards.entry(place).task for shards, place in self._places}))

    @property
    def token_size(self) -> int:
        """Numbers per vision token."""
        return self.codec.channels * self.model.sequence.patch**2

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
            size=len(tokens),
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


def data_fingerprint(rows: Mapping[str, Row]) -> dict[str, Any]:
    """What the mixture is made of, row by row: equal for equal data, wherever the folders lie."""
    from shards.index import read_manifest

    result = {}
    for name, row in rows.items():
        digest = hashlib.sha256()
        for folder in row.shards:
            for shard in read_manifest(folder):
                digest.update(f"{shard.shard} {shard.sha256}\n".encode())
        result[name] = {"ratio": row.ratio, "tasks": list(row.tasks), "shards": digest.hexdigest()}
    return result
