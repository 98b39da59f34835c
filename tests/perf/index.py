"""Synthetic indices of the paper's mixture: opening, planning, resuming, and the memory of a node.

Columns are written by the real writer, for every row of `configs/train/mixtures/editverse.yaml`; the tars
need not exist, since planning does not read them. The node is real processes: ranks that each open the data,
and forked workers that plan steps and read the entries of their share of the samples. Memory is the sum of
their proportional set sizes (`/proc/*/smaps_rollup`), beside that of the same processes with next to no data
and of processes that do nothing.

`python -m tests.perf.index 12000000 runs/index` does it for one size.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from model.config import MediaConfig, ModelConfig, build_part
from model.data.dataset import EditDataset
from model.data.mixture import DatasetConfig, MixtureSampler, read_mixture
from model.encoders import Codec, TextEncoder
from model.planner.balance import Budget, Cluster
from model.planner.step_plan import Planner
from shards.column_writer import ColumnWriter, columns_name
from shards.columns import PLACE, Columns, Element, Label, SampleKind, write_text_counts
from shards.manifest import MANIFEST, ManifestRow, write_manifest
from shards.serialization import from_dict
from tests.perf.measure import Figure
from tests.perf.planning import COST

PRESET, MIXTURE = Path("configs/model/nano.yaml"), Path("configs/train/mixtures/editverse.yaml")
PER_SHARD = 1000
BATCH, BUDGET, RANKS, WORKERS = 256, 65_536, 8, 4
FAR = 50_000  # the step that is resumed at
SIZES = [(h, w) for h in range(384, 1281, 64) for w in range(384, 1281, 64)]  # 225 of images
WORDS = ("Remove the person in the dark coat on the left", "Make it snow over the roofs of the old town")


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """All figures for 1 M and 12 M samples, or for a small index."""
    figures, least = [], write_indices(scratch / "least", 1000)
    for samples in (20_000,) if quick else (1_000_000, 12_000_000):
        rows = write_indices(scratch / str(samples), samples)
        figures += figures_of(rows, least, ranks=2 if quick else RANKS, workers=1 if quick else WORKERS)
    return figures


def model() -> ModelConfig:
    """The offline model on the paper's sizes and 65 frames; only its encoders' geometry matters here."""
    config: ModelConfig = from_dict(ModelConfig, yaml.safe_load(PRESET.read_text()), str(PRESET))
    return dataclasses.replace(config, media=MediaConfig(min_area=256**2, max_area=512**2, frames=65))


def encoders(config: ModelConfig) -> tuple[Codec, TextEncoder]:
    """The model's codec and text encoder."""
    return build_part(config.vae, Codec, "vae"), build_part(config.text_encoder, TextEncoder, "text")


def write_indices(folder: Path, samples: int) -> dict[str, DatasetConfig]:
    """A folder with manifest and columns for every row of the paper's mixture, `samples` together."""
    rows = read_mixture(MIXTURE).rows
    scale = samples / sum(row.count for row in rows.values())
    tokenizer = encoders(model())[1].tokenizer_hash()
    made = {}
    for number, (name, row) in enumerate(rows.items()):
        count = max(1, round(row.count * scale))
        _write_row(folder / name, row, count, np.random.default_rng(number), tokenizer)
        made[name] = dataclasses.replace(row, shards=(str(folder / name),))
    return made


def kinds_of(row: DatasetConfig, task: str) -> list[SampleKind]:
    """Kinds of samples as a row may have: source and target of many sizes, clips of 33 to 81 frames."""
    kind, length = ("video", range(33, 82, 4)) if row.group.startswith("video") else ("image", (1,))
    copies = max(lengths.copies for lengths in row.tokens)
    names = [f"{kind}{n + 1}" for n in range(copies)]
    return [
        SampleKind(
            Label(task, "train", False),
            tuple(Element(name, kind, frames, *size, 16.0 if kind == "video" else None) for name in names),
            tuple(names),
            (names[-1],),
        )
        for size in SIZES[:: 1 if kind == "image" else 15]
        for frames in length
    ]


def _write_row(
    folder: Path, row: DatasetConfig, count: int, random: np.random.Generator, tokens: str
) -> None:
    name, sizes = folder.name, [min(PER_SHARD, count - i) for i in range(0, count, PER_SHARD)]
    folder.mkdir(parents=True)
    digests = [hashlib.sha256(f"{name} {i}".encode()).hexdigest() for i in range(len(sizes))]
    shards = [f"train-{i:06d}.tar" for i in range(len(sizes))]
    write_manifest(
        folder,
        [
            ManifestRow(shard=s, sha256=d, samples=n, bytes=n << 21, index_sha256=d)
            for s, d, n in zip(shards, digests, sizes, strict=True)
        ],
    )
    manifest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    writer, kinds, first = ColumnWriter(folder / columns_name(manifest), manifest), kinds_of(row, name), 0
    for shard, size in zip(shards, sizes, strict=True):
        writer.add_arrays(shard, *_shard(writer, kinds, name, first, size, random))
        first += size
    writer.close()
    columns = Columns(folder / columns_name(manifest), manifest)
    write_text_counts(columns, tokens, (random.integers(8, 40, size).astype("<u4") for size in sizes))


def _shard(
    writer: ColumnWriter,
    kinds: list[SampleKind],
    name: str,
    first: int,
    size: int,
    random: np.random.Generator,
) -> tuple[Any, ...]:
    """What `ColumnWriter.add_arrays` takes of a shard."""
    texts = [f"{name}-{first + i:08d}\n<video1> {WORDS[i % 2]}. <video2>".encode() for i in range(size)]
    places = np.zeros(size, PLACE)
    places["text"] = np.cumsum([0, *map(len, texts[:-1])])
    places["start"] = np.arange(size) * 4096
    places["json"] = random.integers(1, 1 << 62, size)
    numbers = [writer.number_of(kinds[k]) for k in random.integers(0, len(kinds), size)]
    hashes = np.arange(first, first + size, dtype=np.uint64)  # keys differ
    return np.array(numbers, "<u4"), places, b"".join(texts), size * 4096, hashes


class Opened:
    """The data and its planner, as a rank or worker has them."""

    def __init__(
        self, rows: dict[str, DatasetConfig], config: ModelConfig, vae: Codec, text: TextEncoder
    ) -> None:
        self.pairs = EditDataset(rows, "train", config, vae, text, cache_gib=0)
        order = MixtureSampler(self.pairs.sizes, [row.ratio for row in rows.values()], 0)
        longest = self.pairs.vision_bounds()[1], self.pairs.name_of_longest
        cluster = Cluster(RANKS, RANKS, RANKS, 16)
        self.plan = Planner(
            self.pairs.lengths_of, order, BATCH, COST, cluster, Budget(BUDGET), self.pairs.name, longest
        )

    def visit(self, step: int, share: int = RANKS) -> None:
        """Plan a step, and read the entries of one rank's share of its samples."""
        for draw in self.plan(step).draws[::share]:
            self.pairs.entry(draw.index)


def figures_of(
    rows: dict[str, DatasetConfig], least: dict[str, DatasetConfig], ranks: int, workers: int
) -> list[Figure]:
    """Times of a warm process, and the memory of a node of `ranks` with `workers` each."""
    config = model()
    vae, text = encoders(config)
    text.tokenizer_hash()  # reads the tokenizer, which is not the index's
    opening: list[float] = []
    for _ in range(3):
        opening.append(_timed(lambda: Opened(rows, config, vae, text))[1])
    opened = Opened(rows, config, vae, text)
    samples, shards = len(opened.pairs), sum(len(sizes) for sizes in opened.pairs.sizes)
    first = _timed(lambda: opened.plan(0))[1]
    planning = [_timed(lambda step=step: opened.plan(step))[1] for step in range(1, 41)]
    far = [draw.index for draw in opened.plan(FAR).draws]
    resumed, resuming = _timed(lambda: Opened(rows, config, vae, text).plan(FAR))
    same = far == [draw.index for draw in resumed.draws]
    opened.__dict__.clear()  # or its maps would count in part
    gc.collect()
    label = f"{samples:,} samples in {shards:,} shards, {len(rows)} rows: "
    return [
        _milliseconds(label + "open, warm", opening),
        _milliseconds("  first plan", [first]),
        _milliseconds("  plan of a step", planning, f"worst {1000 * max(planning):.3g}"),
        _milliseconds(f"  open and plan step {FAR:,}", [resuming], f"the same samples: {same}"),
        *memory_of(rows, least, ranks, workers, lambda of: Opened(of, config, vae, text)),
    ]


def memory_of(
    rows: dict[str, DatasetConfig],
    least: dict[str, DatasetConfig],
    ranks: int,
    workers: int,
    make: Callable[[dict[str, DatasetConfig]], Opened],
) -> list[Figure]:
    """Memory of a node with the data of `rows`, beside that of `least`."""
    idle, base = Node(ranks, workers, lambda: None), Node(ranks, workers, lambda: make(least))
    node = Node(ranks, workers, lambda: make(rows))
    whose = f"{ranks} ranks with {workers} workers"
    notes = {
        f"  memory of the index, {whose}": f"{node.first - base.first:.0f} MB",
        "    after 1,000 more visits by each worker": f"{node.later - base.later:.0f} MB",
        "    all together": f"{node.first:.0f}, {node.later:.0f} MB after these visits",
        "    the same with 1,000 samples": f"{base.first:.0f}, {base.later:.0f} MB",
        "    processes that plan nothing": f"{idle.first:.0f} MB",
    }
    return [Figure(what, None, None, "", note) for what, note in notes.items()]


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begin


def _milliseconds(what: str, seconds: list[float], note: str = "") -> Figure:
    return Figure(what, 1000 * statistics.median(seconds), 1000 * min(seconds), "ms", note)


class Node:
    """Ranks and their workers: megabytes of all together after a step (`first`) and 1,000 visits later."""

    def __init__(self, ranks: int, workers: int, make: Callable[[], Opened | None]) -> None:
        context = multiprocessing.get_context("fork")
        stage = context.Barrier(ranks * (1 + workers) + 1)
        pids = context.SimpleQueue()
        for rank in range(ranks):
            context.Process(target=_rank, args=(rank, workers, make, stage, pids)).start()
        found = [pids.get() for _ in range(ranks * (1 + workers))]
        stage.wait()
        self.first = sum(map(_pss, found))
        stage.wait()
        stage.wait()
        self.later = sum(map(_pss, found))
        stage.wait()
        for child in multiprocessing.active_children():
            child.join()


def _rank(rank: int, workers: int, make: Callable[[], Opened | None], stage: Any, pids: Any) -> None:
    opened = make()
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=_work, args=(opened, rank * workers + w, stage, pids)) for w in range(workers)
    ]
    for child in children:
        child.start()
    _work(opened, None, stage, pids)
    for child in children:
        child.join()


def _work(opened: Opened | None, worker: int | None, stage: Any, pids: Any) -> None:
    """A worker's steps; a rank itself only opens the data."""
    steps = _steps(opened, worker)
    next(steps, None)
    pids.put(os.getpid())
    stage.wait()  # measured
    stage.wait()
    list(steps)
    stage.wait()  # measured again
    stage.wait()


def _steps(opened: Opened | None, worker: int | None) -> Iterator[None]:
    if opened is not None and worker is not None:
        for number in range(1 + 1000 // BATCH + 1):
            opened.visit(number * RANKS * WORKERS + worker)
            yield


def _pss(pid: int) -> float:
    """Proportional set size in MB: what is shared counts in parts."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:"))


def report(samples: int, folder: str) -> None:
    """Print the figures for one size.

    Args:
        samples: of all rows together
        folder: a new one to write the index into; it stays, and is used again
    """
    begin = time.perf_counter()
    if Path(folder).exists():
        rows = {
            name: dataclasses.replace(row, shards=(str(Path(folder) / name),))
            for name, row in read_mixture(MIXTURE).rows.items()
        }
    else:
        rows = write_indices(Path(folder), samples)
    print(f"written in {time.perf_counter() - begin:.0f} s")
    with tempfile.TemporaryDirectory() as scratch:
        figures = figures_of(rows, write_indices(Path(scratch) / "least", 1000), RANKS, WORKERS)
    for figure in figures:
        best = "" if figure.median is None else f"{figure.median:.3g} {figure.unit}, best {figure.best:.3g}"
        print(f"{figure.what}: {best} {figure.rate}".rstrip())


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(report, prog="python -m tests.perf.index")
