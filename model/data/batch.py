"""What is trained on, and the units that it is handed on in: examples, micro-batches, steps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from model.data.mixture import DatasetConfig, read_mixture
from model.flow.flow_matching import FlowConfig, Sampling
from model.sequence.interleave import VISION, TokenSequence
from model.sequence.layout import Layout, SPPlan, map_tensors
from model.sequence.packing import PackedBatch, pack
from shards import hashing
from shards.errors import ConfigError, SettingError
from shards.limits import in_range
from shards.manifest import read_manifest
from shards.scores import open_scores

FORMS = ("t2i", "t2v", "i2i", "r2v", "v2i", "v2v")


@dataclass(frozen=True)
class DataConfig:
    """What is trained on, and how a sample is varied.

    Attributes:
        shards: folders of shards; their `train` split is used, `heldout` only for samples while training.
        mixture: file that names data sets and their ratios (`model.data.mixture`), in place of `shards`.
        batch_size: samples per optimizer step, over all ranks.
        token_budget: most tokens of a micro-batch on a rank; a step runs as many micro-batches as it needs.
        flop_budget: most operations of one (forward and backward), None for no bound.
        workers: processes per rank that read and encode ahead of the training, 0 does it between steps;
            prefetch: steps that each prepares ahead.
        on_error: a sample that cannot be read or encoded stops the run, or is replaced by the next one of its
            row that is not longer than it; both name it.
        text_drop_prob: chance that a sample loses its text (for guidance); image_drop_prob, video_drop_prob:
            that it loses its source images, or its source videos and masks (for guidance on these apart).
        shift_by_form, sampling_by_form: `flow.shift` and `flow.sampling` for samples of a form in place of
            the model's: t2i, t2v (no source), i2i, r2v (images alone), v2i, v2v (a video among the sources).
        crops: where a training clip may begin in a longer video: anywhere (None), or at this many places
            spread evenly over it, from its start on.
        latent_cache: folder or URL of latents and token states made beforehand by `python -m model
            precompute`; it needs `crops`. None encodes while training.
        cache_gib: most memory for decoded media, per process that reads them; token states have an eighth
            of as much beside it.
        flip_prob: chance of a left-right mirror of all media; "left" and "right" change places in the text.
        edit_weight: extra weight of target tokens that differ from the source at the same place, relative
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
    crops: int | None = None
    latent_cache: str | None = None
    cache_gib: float = 2.0
    text_drop_prob: float = 0.1
    image_drop_prob: float = 0.0
    video_drop_prob: float = 0.0
    shift_by_form: dict[str, float] = field(default_factory=dict)
    sampling_by_form: dict[str, Sampling] = field(default_factory=dict)
    flip_prob: float = 0.0
    edit_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.crops is not None and self.crops < 1:
            raise SettingError(f"data.crops must be at least 1, got {self.crops}")
        if self.latent_cache is not None and self.crops is None:
            raise SettingError("data.latent_cache needs data.crops, the number that was encoded")
        for name in ("text_drop_prob", "image_drop_prob", "video_drop_prob", "flip_prob"):
            in_range(f"data.{name}", getattr(self, name), 0, 1)
        for name in ("shift_by_form", "sampling_by_form"):
            for form, value in getattr(self, name).items():
                if form not in FORMS:
                    raise SettingError(f"data.{name}: {form} is none of {', '.join(FORMS)}")
                field_name = name.partition("_")[0]
                try:
                    FlowConfig(**{field_name: value})
                except (SettingError, TypeError) as error:
                    raise SettingError(f"data.{name}.{form}: {error}") from error

    def flow_of(self, form: str, flow: FlowConfig) -> FlowConfig:
        """How the time of a sample of a form is drawn."""
        shift = self.shift_by_form.get(form, flow.shift)
        return replace(flow, shift=shift, sampling=self.sampling_by_form.get(form, flow.sampling))


@dataclass(frozen=True)
class Example:
    """One visit of a sample, or a rank's part of it, ready to be packed.

    Attributes:
        dataset: the mixture's row that it was visited for.
        sequence: clean tokens; noise: float [target tokens, token size]; time: scalar in (0, 1).
        weight: float [target tokens], mean 1 over the whole sample.
        size: target tokens of the whole sample.
        without_text: the sequence without its text, where a guided teacher is to see it.
    """

    key: str
    task: str
    sequence: TokenSequence
    noise: Tensor
    time: Tensor
    weight: Tensor
    size: int
    dataset: str = ""
    without_text: TokenSequence | None = None

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
class Groups:
    """What losses are told apart by: tasks, and the rows of a mixture where it has several."""

    tasks: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """What each group's loss is called, in the order of the numbers of `of`."""
        return [f"loss/{task}" for task in self.tasks] + [f"loss/dataset/{name}" for name in self.datasets]

    def of(self, examples: Sequence[Example]) -> Tensor:
        """Numbers of the groups that each example is in, int64 [kinds of groups, examples]."""
        kinds = []
        if self.tasks:
            kinds.append([self.tasks.index(e.task) for e in examples])
        if self.datasets:
            kinds.append([len(self.tasks) + self.datasets.index(e.dataset) for e in examples])
        return torch.tensor(kinds, dtype=torch.long).view(len(kinds), len(examples))


@dataclass(frozen=True)
class MicroBatch:
    """Examples packed together.

    Attributes:
        noise, weight: [M, ...] in the order of `batch.target`.
        time, size: [S], timestep and target tokens of each sequence as a whole.
        groups: int64 [kinds, S], see `Groups.of`.
        tokens: without padding.
        without_text: the same sequences without their text, in the same order, see `Example`.
    """

    batch: PackedBatch
    noise: Tensor
    time: Tensor
    weight: Tensor
    size: Tensor
    groups: Tensor
    keys: tuple[str, ...]
    tokens: int
    without_text: PackedBatch | None = None

    def to(self, device: torch.device | str) -> MicroBatch:
        """Copy to a device."""
        return map_tensors(self, lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class StepBatch:
    """What one rank does of an optimizer step.

    Attributes:
        samples: of all ranks.
        plan: numbers that describe the step's plan: `flops` of the blocks, forward and backward, on all
            ranks; `imbalance`, `split` and `padding`, see `model.planner.step_plan.StepPlan`; of a mixture of
            several rows `visits/<row>`, how many each has had with this step.
    """

    step: int
    micro: tuple[MicroBatch, ...]
    samples: int
    plan: dict[str, float] = field(default_factory=dict)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StepBatch:
        """Copy to a device; `non_blocking` from pinned memory, in the order of the current stream."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> StepBatch:
        """Copy into memory that a CUDA device reads by itself; a DataLoader calls it."""
        return map_tensors(self, lambda tensor: tensor.pin_memory())


def collate(
    examples: list[Example],
    pad_to: int | None = None,
    shared: tuple[SPPlan, Layout] | None = None,
    width: int = 0,
    has_prompt: bool = False,
    groups: Groups = Groups(),
) -> MicroBatch:
    """Pack examples side by side, see `pack`; `width` is the token size where there is no example.

    `has_prompt` says the same of texts, see `SequenceConfig.text`.
    """
    unconditional = [e.without_text for e in examples if e.without_text is not None]
    return MicroBatch(
        pack([e.sequence for e in examples], pad_to, shared, width, has_prompt),
        torch.cat([e.noise for e in examples]) if examples else torch.zeros(0, width),
        torch.stack([e.time for e in examples]) if examples else torch.zeros(0),
        torch.cat([e.weight for e in examples]) if examples else torch.zeros(0),
        torch.tensor([e.size for e in examples]),
        groups.of(examples),
        tuple(e.key for e in examples),
        sum(len(e.sequence) for e in examples),
        pack(unconditional) if unconditional else None,
    )


def rows_of(config: DataConfig) -> dict[str, DatasetConfig]:
    """The data sets to train on, by name; raises ConfigError for a mixture that has none here."""
    if config.mixture is None:
        return {"shards": DatasetConfig(shards=config.shards)}
    rows = read_mixture(config.mixture).rows
    for name, row in rows.items():
        if not row.shards:
            raise ConfigError(
                f"{config.mixture}: rows.{name}.shards: names no folder to train on (source: "
                f"{row.source or 'unknown'}); add it, or drop the row in an overlay"
            )
        if config.latent_cache is not None and row.clip_settings:
            raise ConfigError(
                f"{config.mixture}: rows.{name}.{next(iter(row.clip_settings))}: latents made beforehand are "
                "of one size, rate and number of crops; leave this out, or data.latent_cache"
            )
    return rows


def data_fingerprint(rows: Mapping[str, DatasetConfig]) -> dict[str, Any]:
    """What the mixture is made of, row by row: equal for equal data, wherever the folders lie."""
    result = {}
    for name, row in rows.items():
        digest = hashlib.sha256()
        for folder in row.shards:
            for shard in read_manifest(folder):
                digest.update(f"{shard.shard} {shard.sha256}\n".encode())
        result[name] = {"ratio": row.ratio, "tasks": list(row.tasks), "shards": digest.hexdigest()}
        if row.masked is not None:
            result[name]["masked"] = row.masked
        limits = {} if row.max_visits is None else {"max_visits": row.max_visits}
        result[name] |= {**row.clip_settings, **limits}  # absent where not set, as in runs of before
        if row.scores:
            opened = [open_scores(folder) for folder in row.shards]
            bounds = {"min": row.min_scores, "max": row.max_scores}
            values = [[scores.sha256(score) for score in row.scores] for scores in opened]
            result[name]["scores"] = hashing.digest([bounds, values])
    return result
