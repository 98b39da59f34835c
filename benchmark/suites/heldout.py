"""Held-out edit pairs of a shard folder, with the curated target as ground truth.

Refuses a folder whose training samples overlap the held-out ones in time.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.item import SOURCE, TARGET, BenchmarkError, Geometry, Item, Loaded
from benchmark.core.score_cache import address
from benchmark.suites import instruction_of
from shards.hashing import digest
from shards.location import ShardError
from shards.reader import Record, ShardSet
from shards.sample import Sample, SampleError, tags_of

TOUCH = 1e-6  # seconds; spans that only touch do not overlap


class Suite:
    """Items of the split `heldout`, ordered by key.

    `category` is the wording: whether the text names a mask. `pair` is the pair of videos, whichever way
    round and however worded: removal and addition of one object are one cluster.
    """

    name = "heldout"
    version = 1
    references: tuple[str, ...] = (SOURCE, TARGET)
    metrics: ClassVar[str | None] = None
    remarks: ClassVar[list[str]] = []

    def __init__(self, data: Path) -> None:
        try:
            everything = ShardSet(data)
        except FileNotFoundError:
            raise BenchmarkError(f"{data}: no manifest.jsonl; is this a shard folder?") from None
        if not any(everything.entry(key).split == "heldout" for key in everything.keys):
            raise BenchmarkError(
                f"{data}: {len(everything)} samples, none of them held out; curate more or longer clips"
            )
        self.items: list[Item] = []
        trained: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
        heldout: list[Sample] = []
        for key in everything.keys:
            split = everything.entry(key).split
            try:
                record = everything[key]
            except (SampleError, ShardError) as error:
                if split != "heldout":  # its span is unknown, so the split cannot be proven
                    raise BenchmarkError(f"{error}; the split cannot be checked, mend the shards") from None
                self.items.append(broken(key, everything.entry(key).task, str(error)))
                continue
            if split == "heldout":
                heldout.append(record.sample)
                self.items.append(item_of(record))
            else:
                clip = record.sample.provenance.clip
                trained[clip.sha256].append((*clip.span, key))
        refuse_overlap(data, heldout, trained)
        self.sha256 = address(*((row.shard, row.sha256) for row in everything.rows))


def refuse_overlap(
    data: Path, heldout: list[Sample], trained: dict[str, list[tuple[float, float, str]]]
) -> None:
    """Raise BenchmarkError naming the first held-out sample whose span meets a training sample's span."""
    for sample in heldout:
        clip = sample.provenance.clip
        for start, end, key in trained.get(clip.sha256, []):
            if min(end, clip.span[1]) - max(start, clip.span[0]) > TOUCH:
                raise BenchmarkError(
                    f"{data}: held-out sample {sample.key} ({clip.name} {clip.span[0]:g}-{clip.span[1]:g} s) "
                    f"overlaps training sample {key} ({start:g}-{end:g} s); curate the split anew"
                )


def broken(key: str, task: str, reason: str) -> Item:
    """An item whose sample cannot be read: counted as failed in every row."""

    def load() -> Loaded:
        raise BenchmarkError(reason)

    return Item(key, task, "unreadable", "", "", key, key, None, load, fault=reason, result=f"{key}.mp4")


def item_of(record: Record) -> Item:
    """The item of a sample: its first target is wanted, the first video that is no target is the source."""
    sample = record.sample
    names = tags_of(sample.text)
    target = sample.targets[0]
    source = next((n for n in names if n not in sample.targets and n.startswith("video")), None)
    fault = None
    if not target.startswith("video") or source is None:
        fault = f"{sample.key}: the text gives no source video and target video to compare"
    chosen = [n for n in (source, target, "mask" if "mask" in sample.media else None) if n is not None]
    digests = [sample.media[n].sha256 or hashlib.sha256(record.bytes(n)).hexdigest() for n in chosen]
    content = digest([sample.provenance.clip.sha256, *digests], "spaced")
    pair = digest(sorted(digests[:2]), "spaced")
    wording = "mask in text" if any(n.startswith("mask") for n in names) else "words only"

    def load() -> Loaded:
        return load_record(record, source or "", target)

    clip = sample.provenance.clip.sha256
    shown = sample.media[target]
    prompts = {name: text for name, text in sample.captions.items() if text}
    prompts["instruction"] = instruction_of(sample.text)
    native = Geometry(shown.frames, shown.height, shown.width, shown.fps or 1.0)
    return Item(
        sample.key,
        sample.task,
        wording,
        sample.text,
        content,
        clip,
        pair,
        native,
        load,
        prompts,
        fault,
        result=f"{sample.key}.mp4",
        encoded=lambda: record.bytes(source or ""),
    )


def load_record(record: Record, source: str, target: str) -> Loaded:
    """Decode a sample; raises BenchmarkError naming the sample and the element at fault."""
    sample = record.sample
    decoded: dict[str, np.ndarray] = {}
    fps = 0.0
    for name in dict.fromkeys([*tags_of(sample.text), *(["mask"] if "mask" in sample.media else [])]):
        media = sample.media[name]
        where = sample.member(name)
        try:
            data = record.bytes(name)
            if media.sha256 is not None and hashlib.sha256(data).hexdigest() != media.sha256:
                raise BenchmarkError("its bytes changed since it was written (sha256)")
            if media.kind == "video":
                decoded[name], rate = record.video(name)
                fps = rate if name == source else fps
            else:
                decoded[name] = record.mask(name) if media.kind == "mask" else record.image(name)
        except (ValueError, OSError) as error:
            raise BenchmarkError(f"{where}: {str(error).removeprefix('<bytes>: ')}") from None
    mask = decoded.get("mask")
    shapes = {decoded[n].shape[:3] for n in (source, target)} | ({mask.shape} if mask is not None else set())
    if len(shapes) != 1:
        raise BenchmarkError(f"{sample.key}: source, target and mask differ in size or length: {shapes}")
    given = [n for n in tags_of(sample.text) if n not in sample.targets]
    inputs = {n: record.bytes(n) for n in given}
    return Loaded(decoded[source], decoded[target], mask, fps, inputs)
