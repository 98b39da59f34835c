"""The samples of shards, and what a visit to one is: which frames, which text, which noise.

All randomness is keyed by (seed, step, sample): a visit is the same however it is packed or resumed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from model.config import MediaConfig, ModelConfig, fitted_size
from model.data.array_cache import ArrayCache
from model.data.batch import DataConfig, Example, Groups
from model.data.clips import ClipConfig, Windows, frame_indices, num_frames
from model.data.kind_lengths import KindLengths, extreme_kinds
from model.data.latent_cache import EncodedShard, LatentCache, encoding_of
from model.data.mixture import DatasetConfig
from model.data.row_samples import Ints, MixtureSamples
from model.data.variants import form_of, mirrored, token_weights, without_sources
from model.encoders import Codec, TextEncoder
from model.flow.flow_matching import draw_time
from model.rng import keyed
from model.sequence.interleave import (
    TokenSequence,
    build_sequence,
    interleave,
    patchify,
    texts_of,
    vision_tokens,
)
from model.sequence.pixels import to_float
from model.sequence.prompts import prompt_of
from shards.columns import SampleKind, entry_of_kind
from shards.errors import ConfigError, SettingError
from shards.index import IndexEntry
from shards.media import resize
from shards.reader import Record, ShardSet
from shards.sample import Part, split_text, tags_of

MAX_KINDS = 4096  # kinds of samples whose lengths are worked out when a run starts


class EditDataset(MixtureSamples):
    """The samples of one split of a mixture's rows, at the model's size; they are numbered row by row.

    Nothing is held per sample: what a plan needs is mapped from the columns of the shards' index, what a
    visit needs is read with it. Decoded and resized media are kept in memory by the hash of their file
    (samples of one pair share them), the last used ones, up to `cache_gib` (about 1 MB per second of video at
    nano size), and token states by their text, up to an eighth of that.

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
        self.model, self.vae, self.text_encoder = model, vae, text_encoder
        super().__init__(rows, split)
        for name in self.rows:
            self.media_of(name)  # refuses a row's sizes before anything is read
        self.for_teacher = False  # visits of a distillation, see `visit`
        self._pixels: ArrayCache[np.ndarray] = ArrayCache(int(cache_gib * 2**30))
        self._states: ArrayCache[Tensor] = ArrayCache(int(cache_gib * 2**27))
        self._encoded: dict[ShardSet, LatentCache] = {}
        self._lengths = KindLengths(self._vision_length)

    def read_latent_cache(self, folder: str, data: DataConfig) -> None:
        """Take latents and states from those made beforehand; see `model.data.latent_cache` for what is
        raised.
        """
        encoding = encoding_of(self.model, data)
        for shards in self.shards:
            self._encoded[shards] = LatentCache(folder, shards.rows, encoding)

    def lengths_of(self, indices: Sequence[int] | Ints) -> Ints:
        """Tokens of some samples' sequences, int64 [len(indices)].

        Vision tokens come from the columns, once for all samples of a kind. So do those of the texts, where
        they were counted with this tokenizer (`model.data.text_counts`) or encoded beforehand; otherwise the
        texts of these samples are read and counted now.

        Raises:
            shards.errors.SettingError: a text that is longer than the encoder takes.
        """
        places = [self._locate(int(index)) for index in indices]
        self._lengths.of(self.model, self.vae)
        vision = [
            self._lengths(self.row_of(int(index)), shards.columns, shards.kind_of(number))
            for index, (shards, number) in zip(indices, places, strict=True)
        ]
        return np.array(vision, np.int64) + self._text_lengths(places)

    def _text_lengths(self, places: Sequence[tuple[ShardSet, int]]) -> Ints:
        """Tokens of the texts among the tokens of some samples' sequences, int64."""
        result = np.zeros(len(places), np.int64)
        if not self.model.sequence.has_words:
            return result
        uncounted: dict[int, list[str]] = {}
        for i, (shards, number) in enumerate(places):
            if (counted := shards.text_count(self._tokenizer, number)) is not None:
                result[i] = counted
            elif shards in self._encoded:
                entry = shards.entry(number)
                first = 2 * len(entry.targets) * self.model.sequence.has_prompt  # the prompts come before
                encoded = self._encoded[shards].of(shards.shard_of(number))
                result[i] = sum(encoded.texts(entry.key)[first:])
            else:
                uncounted[i] = texts_of(split_text(shards.entry(number).text))
        parts = list(dict.fromkeys(part for some in uncounted.values() for part in some))
        counts = dict(zip(parts, self.text_encoder.count(parts) if parts else [], strict=True))
        for i, some in uncounted.items():
            result[i] = sum(counts[part] for part in some)
        return result

    @functools.cached_property
    def _tokenizer(self) -> str:
        return self.text_encoder.tokenizer_hash()

    def _ends_by_vision(self) -> list[tuple[int, int, ShardSet, int]]:
        """(vision tokens, number of the row, folder, kind) of the kinds with the fewest and the most."""
        self._lengths.of(self.model, self.vae)
        most = max(2, MAX_KINDS // len(self.rows))
        found = [
            (self._lengths(name, shards.columns, kind), row, shards, kind)
            for row, (name, samples) in enumerate(zip(self.rows, self._samples, strict=True))
            for shards, kinds in samples.kinds()
            for kind in extreme_kinds(shards.columns, kinds, most).tolist()
        ]
        return [pick(found, key=lambda item: item[0]) for pick in (min, max)]

    def vision_bounds(self) -> tuple[int, int]:
        """Fewest and most vision tokens of a sequence.

        Of data with very many kinds of samples some of those with the most pixels are looked at.
        """
        (least, *_), (most, *_) = self._ends_by_vision()
        return least, most

    def name_of_longest(self) -> str:
        """`name` of a sample with the most vision tokens."""
        _, (_, row, shards, kind) = self._ends_by_vision()
        first = int(self._ends[row]) - len(self._samples[row])
        return self.name(first + self._samples[row].first_of(shards, kind))

    @functools.cached_property
    def groups(self) -> Groups:
        """What losses are told apart by."""
        return Groups(self.tasks, tuple(self.rows) if len(self.rows) > 1 else ())

    @property
    def token_size(self) -> int:
        """Numbers per vision token."""
        return self.vae.channels * self.model.sequence.patch**2

    def states(self, text: str) -> Tensor:
        """Token states of a piece of text; the ones used last are kept."""
        found = self._states.get(text)
        if found is None:
            found = self.text_encoder.encode([text])[0].cpu()
            self._states.put(text, found)
        return found

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

    def _vision_length(self, row: str, kind: SampleKind) -> int:
        """Vision tokens of the sequence of a sample of a kind in a row."""
        text = "".join(f"<{name}>" for name in kind.order)
        entry = entry_of_kind(kind, f"samples of {kind.label.task}", text)
        clip, layout, total = self.clip_of(row), self.model.sequence, 0
        opening = self._first_frame(entry, entry.targets[0], clip)
        for part in kind.order:
            if part == opening:  # one of its video's frames, but with a start and an end of its own
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
        self._pixels = ArrayCache(self._pixels.most)

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
        shards, number = self._locate(index)
        cache, row = self._encoded.get(shards), self.row_of(index)
        encoded = cache.of(shards.shard_of(number)) if cache else None
        read = functools.partial(shards.__getitem__, number)
        return self.visit(shards.entry(number), read, epoch, step, seed, config, encoded, row)

    def visit(
        self,
        entry: IndexEntry,
        record: Callable[[], Record],
        epoch: int,
        step: int,
        seed: int,
        config: DataConfig,
        encoded: EncodedShard | None = None,
        row: str = "",
    ) -> Example:
        """One visit of a sample in a row; `record` is called for if it is not encoded.

        With `for_teacher` it holds the sequence without its text too, and its time is drawn evenly: it is
        a place on a student's grid, see `model.distillation.objective`.
        """

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

        def sequence_of(wordless: bool) -> TokenSequence:
            elements = interleave(
                parts,
                latents,
                target,
                encode_text,
                drop_text=wordless,
                prompt=encode_text(prompts[wordless]) if prompts else None,
                has_words=self.model.sequence.has_words,
                first_frame=opening,
            )
            return build_sequence(elements, self.model.sequence, self.vae.spatial)

        tokens = patchify(latents[target], self.model.sequence.patch)
        time = draw_time(flow, random("time"), len(tokens))
        if self.for_teacher:
            time = torch.rand((), generator=random("time"))
        return Example(
            key=entry.key,
            task=entry.task,
            dataset=row,
            sequence=sequence_of(drop),
            noise=torch.randn(tokens.shape, generator=random("noise")),
            time=time,
            weight=token_weights(entry, latents, target, config.edit_weight, self.model.sequence.patch),
            size=len(tokens),
            without_text=sequence_of(True) if self.for_teacher else None,
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
