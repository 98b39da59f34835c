"""The loader of planned steps beside plain `webdataset` on the same shards: bytes, and batches of examples.

Both decode, resize and encode with the same functions and two worker processes; they differ in how samples
are found, read and batched, in what is kept in memory, and in that ours may begin at any step. Four samples
share each pair of videos, as in the shards of the curation.
"""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import webdataset
import yaml

from model.config import ModelConfig
from model.data.batch import DataConfig, StepBatch, collate
from model.data.dataset import EditDataset
from model.net.distributed import World
from model.training.config import FitConfig, TrainConfig
from model.training.dataloader import PlannedSteps
from model.training.precompute import precompute
from model.training.setup import build_datasets
from model.training.workers import loader
from shards.reader import Record, ShardSet
from shards.sample import parse_sample
from shards.serialization import from_dict
from shards.writer import write_shards
from tests.perf.measure import Figure, per
from tests.perf.shards import make_items

PRESET = Path("configs/model/nano.yaml")
BATCH, WORKERS = 16, 2


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Samples per second, in turn: bytes of warm and cold files, then examples; a start in the middle."""
    count = 32 if quick else 160
    folder = scratch / "shards"
    write_shards(folder, make_items(scratch / "media", count, distinct=count // 4), max_samples=count // 8)
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    shards = ShardSet(folder, "train")
    order = list(range(count))
    random.Random(0).shuffle(order)

    def by_webdataset() -> int:
        return sum(1 for _ in webdataset.WebDataset(tars, shardshuffle=False))

    def by_index() -> int:
        return sum(len([shards[i].bytes(name) for name in ("video1", "video2", "mask")]) // 3 for i in order)

    figures = []
    for state in ("warm", "cold"):
        results = _in_turn(
            {"webdataset, in order": by_webdataset, "ours, in random order": by_index},
            5 if not quick else 1,
            (lambda: _forget(tars)) if state == "cold" else (lambda: None),
        )
        figures += _rows(f"bytes, {state} files, {{}}", results, count)

    config: ModelConfig = from_dict(ModelConfig, yaml.safe_load(PRESET.read_text()), str(PRESET))
    kept = DataConfig(shards=(str(folder),), batch_size=BATCH, token_budget=65_536, workers=WORKERS)
    scarce = dataclasses.replace(kept, cache_gib=0.0)
    before = dataclasses.replace(kept, crops=1, latent_cache=str(scratch / "encoded"))
    steps = count // BATCH

    def planned(data: DataConfig) -> PlannedSteps:
        fit = FitConfig(data=data, model=config, train=TrainConfig(steps=steps))
        if data.latent_cache is not None:
            precompute(fit)
        pairs, _, _ = build_datasets(fit, None)
        pairs.clear_cache()  # what the codec's statistics were measured on
        if data.latent_cache is not None:
            pairs.read_latent_cache(data.latent_cache, data)
        return PlannedSteps(pairs, data, 0, 0, steps)

    plain, without, usual, encoded = (planned(data) for data in (scarce, scarce, kept, before))
    results = _in_turn(
        {
            "webdataset": lambda: _samples(_plain(tars, plain.pairs, scarce)),
            "ours, nothing kept": lambda: _samples(loader(without, torch.device("cpu"), World())),
            "ours, first epoch": lambda: _samples(loader(usual, torch.device("cpu"), World())),
            "ours, encoded beforehand": lambda: _samples(loader(encoded, torch.device("cpu"), World())),
        },
        7 if not quick else 1,
        lambda: None,
    )
    figures += _rows(f"examples in batches of {BATCH}, {WORKERS} workers, {{}}", results, count)
    figures.append(_resumed(usual.pairs, kept))
    return figures


def _in_turn(
    ways: dict[str, Callable[[], int]], turns: int, before: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of each way, one after the other, so that a machine whose speed drifts slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            before()
            begin = time.perf_counter()
            way()
            if turn:  # the first is not counted
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def _rows(label: str, results: dict[str, list[float]], count: int) -> list[Figure]:
    """One line each, with the median of the ratios to the first."""
    base, figures = next(iter(results.values())), []
    for name, seconds in results.items():
        ratio = sorted(a / b for a, b in zip(base, seconds, strict=True))[len(seconds) // 2]
        figures.append(
            per(label.format(name), seconds, count, "sample", f"{{}} samples/s, {ratio:.2f}x webdataset")
        )
    return figures


def _forget(paths: list[str]) -> None:
    """Drop files from the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _plain(tars: list[str], pairs: EditDataset, data: DataConfig) -> Iterator[Any]:
    """What a script around `webdataset` does: shards and a buffer shuffled, the same work per sample."""
    numbers = {pairs.entry(i).key: i for i in range(len(pairs))}

    def example(sample: dict[str, Any]) -> Any:
        key = sample["__key__"]
        read = {name: value for name, value in sample.items() if not name.startswith("__")}
        record = Record(parse_sample(read["json"], key), read.__getitem__)
        return pairs.visit(pairs.entry(numbers[key]), lambda: record, 0, 0, 0, data)

    dataset = webdataset.WebDataset(tars, shardshuffle=100, seed=0, nodesplitter=lambda src: src)
    dataset = dataset.shuffle(64, seed=0).map(example).batched(BATCH, collation_fn=collate, partial=True)
    return iter(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=WORKERS, prefetch_factor=2))


def _samples(batches: Any) -> int:
    return sum(len(m.keys) for b in batches for m in (b.micro if isinstance(b, StepBatch) else (b,)))


def _resumed(pairs: EditDataset, data: DataConfig) -> Figure:
    """Seconds to the first batch at step 100,000, and whether it is the one of a run that got there."""
    steps = PlannedSteps(pairs, data, 0, 100_000, 100_002)
    begin = time.perf_counter()
    first = next(iter(loader(steps, torch.device("cpu"), World())))
    taken = time.perf_counter() - begin
    same = PlannedSteps(pairs, data, 0, 99_999, 100_002)[1]
    equal = all(
        torch.equal(a.batch.vision, b.batch.vision) and torch.equal(a.noise, b.noise) and a.keys == b.keys
        for a, b in zip(first.micro, same.micro, strict=True)
    )
    return per("ours, first batch of a run resumed at step 100,000", [taken], 1, "start", f"equal: {equal}")
