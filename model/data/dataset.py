"""The samples of shards, and what a visit to one is: which frames, which text, which noise.

All randomness is keyed by (seed, step, sample): a visit is the same however it is packed or resumed.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from model.config import MediaConfig, ModelConfig, fitted_size
from model.data.batch import DataConfig, Example, Groups
from model.data.clips import ClipConfig, Windows, frame_indices, num_frames
from model.data.latent_cache import LatentCache, encoding_of
from model.data.mixture import DatasetConfig
from model.data.pixel_cache import PixelCache
from model.data.variants import form_of, mirrored, token_weights, without_sources
from model.encoders import Codec, TextEncoder
from model.flow.flow_matching import draw_time
from model.rng import keyed
from model.sequence.interleave import build_sequence, interleave, patchify, texts_of, vision_tokens
from model.sequence.pixels import to_float
from model.sequence.prompts import prompt_of
from shards.errors import ConfigError, SettingError
from shards.index import IndexEntry
from shards.location import ShardError
from shards.manifest import read_manifest
from shards.media import resize
from shards.reader import Record, ShardSet
from shards.sample import Part, split_text, tags_of


class EditDataset:
    """The samples of one split of a mixture's rows, at the model's size; they are numbered row by row.

    Decoded and resized media are kept in memory by the hash of their file (samples of one pair share them),
    the last used ones, up to `cache_gib`: about 1 MB per second of video at nano size.

    Raises:
        ConfigError: a target or medium that the model cannot take; shards.location.ShardError: no
            such shards.
    """

    def __init__(
        self,
        rows: Mapping[str, DatasetConfig],
        split: str,
        model: ModelConfig,
        vae: Codec,
        text_encoder: TextEncoder,
        cache_gib: float = 2.0,
    ) -> None:
        self.model, self.vae, self.text_encoder, self.rows = model, vae, text_encoder, dict(rows)
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
                        if shards and row.holds(shards.entry(i).task, shards.entry(i).text)
                    ]
                    first += count
                    self._places += [(s, i) for s, i in chosen if s]
                    sizes += [len(chosen)] if chosen else []
            if not sizes and split == "train":
                tasks = f" of the tasks {', '.join(row.tasks)}" if row.tasks else ""
                marked = {None: "", True: " with a mask", False: " without a mask"}[row.masked]
                raise ConfigError(
                    f"data: row {name}: {', '.join(row.shards)}: no {split} samples{tasks}{marked}"
                )
            self.sizes.append(sizes)
        if not self._places:
            folders = ", ".join(f for row in rows.values() for f in row.shards)
            raise ShardError(f"{folders}: no {split} shards")
        for name in self.rows:
            self.media_of(name)  # refuses a row's sizes before anything is read
        self._pixels = PixelCache(int(cache_gib * 2**30))
        self._states: dict[str, Tensor] = {}
        self._encoded: dict[ShardSet, LatentCache] = {}

    def read_latent_cache(self, folder: str, data: DataConfig) -> None:
        """Take latents and states from those made beforehand; see `model.data.latent_cache` for what is
        raised.
        """
        encoding = encoding_of(self.model, data)
        for shards in self.shards:
            self._encoded[shards] = LatentCache(folder, shards.rows, encoding)

    @functools.cached_property
    def lengths(self) -> list[int]:
        """Tokens of every sample's sequence; a text encoder that is not light encodes all texts first."""
        parts = self._texts()
        if not self.model.sequence.has_words and self.text_encoder.light:
            counts = {}
        elif self.text_encoder.light:
            counts = dict(zip(parts, self.text_encoder.count(parts), strict=True))
        else:
            for part, states in zip(parts, self.text_encoder.encode(parts) if parts else [], strict=True):
                self._states[part] = states.cpu()
            counts = {part: len(self._states[part]) for part in parts}
        return [self._length(i, counts) for i in range(len(self))]

    @staticmethod
    def _open(folder: str, split: str) -> ShardSet | None:
        """A folder's samples of a split; a folder need not have any that are held out."""
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
    def shards(self) -> list[ShardSet]:
        """The folders that samples are from, in order."""
        return list(dict.fromkeys(shards for shards, _ in self._places))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of all samples, sorted."""
        return tuple(sorted({shards.entry(place).task for shards, place in self._places}))

    @functools.cached_property
    def groups(self) -> Groups:
        """What losses are told apart by."""
        return Groups(self.tasks, tuple(self.rows) if len(self.rows) > 1 else ())

    @property
    def token_size(self) -> int:
        """Numbers per vision token."""
        return self.vae.channels * self.model.sequence.patch**2

    def entry(self, index: int) -> IndexEntry:
        """What the shard's index says of a sample."""
        shards, place = self._places[index]
        return shards.entry(place)

    def record(self, index: int) -> Record:
        """The sample as it lies in the shard."""
        shards, place = self._places[index]
        return shards[place]

    def states(self, text: str) -> Tensor:
        """Token states of a piece of text; each distinct text is encoded once."""
        if text not in self._states:
            self._states[text] = self.text_encoder.encode([text])[0].cpu()
        return self._states[text]

    def _texts(self) -> list[str]:
        """Every distinct piece of text of the samples that are not encoded."""
        entries = (s.entry(place) for s, place in self._places if s not in self._encoded)
        return list(dict.fromkeys(text for entry in entries for text in self.texts_of(entry)))

    def texts_of(self, entry: IndexEntry, flipped: bool = False) -> list[str]:
        """What is asked of the text encoder for a sample, or for its mirror image.

        Of a model that takes prompts, for each target the prompt as it is read when editing
        (`model.sequence.prompts`), and what is left of it without words; then the pieces of text, of one that
        has them among its tokens.
        """
        parts = split_text(mirrored(entry.text) if flipped else entry.text)
        pieces = texts_of(parts) if self.model.sequence.has_words else []
        return [*self._prompts(entry, parts), *pieces]

    def _prompts(self, entry: IndexEntry, parts: Sequence[Part]) -> list[str]:
        """Of each target the prompt with words and without, of models that take prompts."""
        layout = self.model.sequence
        if not layout.has_prompt:
            return []
        wordless = [part for part in parts if part[0] == "media"]
        return [
            prompt_of(given, target, layout.system_prompt)
            for target in entry.targets
            for given in (parts, wordless)
        ]

    @functools.cached_property
    def _row_ends(self) -> list[int]:
        """Up to which sample each row goes."""
        return list(itertools.accumulate(sum(sizes) for sizes in self.sizes))

    def row_of(self, index: int) -> str:
        """The name of the row that a sample is visited in."""
        return list(self.rows)[bisect.bisect_right(self._row_ends, index)]

    def media_of(self, row: str) -> MediaConfig:
        """Sizes of a row's media: the model's, where the row does not say otherwise; "" is no row.

        Raises:
            ConfigError: sizes that contradict each other.
        """
        own = self.rows[row].media_limits if row else {}
        try:
            return dataclasses.replace(self.model.media, **own) if own else self.model.media
        except SettingError as error:
            raise ConfigError(f"data: row {row}: {error}") from error

    def clip_of(self, row: str, crops: int | None = None) -> ClipConfig:
        """How clips of a row are taken, with `crops` of `DataConfig`; "" is no row."""
        own = self.rows[row] if row else DatasetConfig()
        return ClipConfig(own.frames or self.model.media.frames, own.crops or crops, own.fps)

    def frame_size(self, height: int, width: int, row: str = "") -> tuple[int, int]:
        """(height, width) at which the model sees a medium of a row."""
        multiple = self.vae.spatial * self.model.sequence.patch
        return fitted_size(height, width, self.media_of(row), multiple)

    def _length(self, index: int, counts: Mapping[str, int]) -> int:
        """Tokens of a sample's sequence, from the shard's index and its texts' tokens alone."""
        shards, place = self._places[index]
        entry = shards.entry(place)
        encoded, layout = self._encoded.get(shards), self.model.sequence
        total = 0
        if encoded and layout.has_words:
            # of the pieces, which come after the prompts
            total = sum(encoded.files.texts(entry.key)[2 * len(entry.targets) * layout.has_prompt :])
        row = self.row_of(index)
        clip = self.clip_of(row)
        opening = self._first_frame(entry, entry.targets[0], clip)
        for kind, part in split_text(entry.text):
            if kind == "text":
                total += counts[part] if layout.has_words and not encoded else 0
            elif part == opening:  # one of its video's frames, but with a start and an end of its own
                total += vision_tokens((0, 0, 0), layout.patch, bounded=layout.has_words)
            else:
                size = self.frame_size(*entry.media[part][2:], row)
                frames = min(num_frames(entry, part, clip.fps), clip.frames)
                latents = self.vae.latent_size(frames, *size)
                total += vision_tokens(latents, layout.patch, bounded=layout.has_words)
        return total

    def pixels(self, record: Record, name: str, row: str = "") -> np.ndarray:
        """All frames of an element at a row's size, uint8 [T, h, w, 3]; an image has one frame."""
        size = self._size(record, name, row)
        kept_as = self._name(record, name, size)
        found = self._pixels.get(kept_as)
        if found is None:
            found = resize(record.pixels(name), size)
            self._pixels.put(kept_as, found)
        return found

    def _size(self, record: Record, name: str, row: str) -> tuple[int, int]:
        """(height, width) at which an element of a row is seen."""
        media = record.sample.media[name]
        return self.frame_size(media.height, media.width, row)

    @staticmethod
    def _name(record: Record, name: str, size: tuple[int, int]) -> str:
        """What an element of a size is kept under."""
        return f"{record.sample.media[name].sha256 or f'{record.key}/{name}'} {size[0]}x{size[1]}"

    def clear_cache(self) -> None:
        """Let go of the media that are kept in memory."""
        self._pixels = PixelCache(self._pixels.most)

    def frames(self, record: Record, name: str, window: tuple[int, int], row: str = "") -> np.ndarray:
        """The frames of a window of an element at a row's rate and size, uint8 [T, h, w, 3].

        Where memory is full no others are decoded.
        """
        media, size = record.sample.media[name], self._size(record, name, row)
        chosen = frame_indices(media.frames, media.fps, self.clip_of(row).fps)[slice(*window)]
        if self._pixels.full and self._pixels.get(self._name(record, name, size)) is None:
            first, last = int(chosen[0]), int(chosen[-1])
            return resize(record.pixels(name, first, last + 1), size)[chosen - first]
        return self.pixels(record, name, row)[chosen]

    def windows(
        self, entry: IndexEntry, target: str, crops: int | None, row: str = ""
    ) -> Sequence[Mapping[str, tuple[int, int]]]:
        """All windows that a visit with this target may draw: frames (start, stop) of every element.

        See `model.data.clips.Windows` for where they may begin.

        Raises:
            SampleError: two pictures of the sample are frames that no window holds.
        """
        clip = self.clip_of(row, crops)
        return Windows(entry, target, clip, self._first_frame(entry, target, clip))

    def latents(
        self, record: Record, name: str, window: tuple[int, int], flipped: bool, row: str = ""
    ) -> Tensor:
        """Latents of a window of an element of a row, or of its mirror image, on the CPU."""
        frames = self.frames(record, name, window, row)
        return self.vae.encode(to_float(frames[:, :, ::-1] if flipped else frames)).cpu()

    def example(self, index: int, epoch: int, step: int, seed: int, config: DataConfig) -> Example:
        """One visit: target, window, flip, dropout, timestep and noise, keyed by (seed, step, sample)."""
        shards, place = self._places[index]
        read, encoded, row = lambda: shards[place], self._encoded.get(shards), self.row_of(index)
        return self.visit(shards.entry(place), read, epoch, step, seed, config, encoded, row)

    def visit(
        self,
        entry: IndexEntry,
        record: Callable[[], Record],
        epoch: int,
        step: int,
        seed: int,
        config: DataConfig,
        encoded: LatentCache | None = None,
        row: str = "",
    ) -> Example:
        """One visit of a sample in a row; `record` is called for if it is not encoded."""

        def random(purpose: str) -> torch.Generator:
            return keyed(seed, step, epoch, entry.key, purpose)

        def chance(purpose: str) -> float:
            return float(torch.rand((), generator=random(purpose)))

        which = int(torch.randint(0, len(entry.targets), (), generator=random("target")))
        target = entry.targets[which]
        choices = self.windows(entry, target, config.crops, row)
        window = choices[int(torch.randint(len(choices), (), generator=random("window")))]
        flip = chance("flip") < config.flip_prob
        parts = split_text(mirrored(entry.text) if flip else entry.text)
        form = form_of(entry, target)
        flow = config.flow_of(form, self.model.flow)
        windows = {name: window[name] for kind, name in parts if kind == "media"}
        if encoded:
            latents, made = encoded.load(entry.key, windows, flip)
            states = dict(zip(self.texts_of(entry, flip), made, strict=True))
            encode_text = states.__getitem__
        else:
            found, encode_text = record(), self.states
            latents = {name: self.latents(found, name, span, flip, row) for name, span in windows.items()}
        drop = chance("text") < config.text_drop_prob
        dropped = {kind for kind in ("image", "video") if chance(kind) < getattr(config, f"{kind}_drop_prob")}
        prompts = self._prompts(entry, parts)[2 * which : 2 * which + 2]
        opening = self._first_frame(entry, target, self.clip_of(row))
        parts = without_sources(entry, parts, target, dropped)
        latents = {name: latents[name] for kind, name in parts if kind == "media"}
        if opening in latents:  # the video's own, wherever its window begins
            latents |= {opening: latents[target][:1], target: latents[target][1:]}
        elements = interleave(
            parts,
            latents,
            target,
            encode_text,
            drop_text=drop,
            prompt=encode_text(prompts[drop]) if prompts else None,
            has_words=self.model.sequence.has_words,
            first_frame=opening,
        )
        sequence = build_sequence(elements, self.model.sequence, self.vae.spatial)
        tokens = patchify(latents[target], self.model.sequence.patch)
        return Example(
            key=entry.key,
            task=entry.task,
            dataset=row,
            sequence=sequence,
            noise=torch.randn(tokens.shape, generator=random("noise")),
            time=draw_time(flow, random("time"), len(tokens)),
            weight=token_weights(entry, latents, target, config.edit_weight, self.model.sequence.patch),
            size=len(tokens),
        )

    def _first_frame(self, entry: IndexEntry, target: str, clip: ClipConfig) -> str | None:
        """The picture that is a sample's video's first frame, see `SequenceConfig.image_to_video`.

        It is the only source and of the video's size; a window of one frame would leave nothing to learn.
        """
        sources = [name for name in tags_of(entry.text) if name != target]
        if self.model.sequence.image_to_video != "first_frame" or len(sources) != 1:
            return None
        kind, _, *size = entry.media[sources[0]]
        theirs = list(entry.media[target][2:])
        longer = min(num_frames(entry, target, clip.fps), clip.frames) > 1
        return sources[0] if kind == "image" and size == theirs and longer else None
