from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from benchmark.core.item import Geometry, Item, Reference, Unscored
from benchmark.metrics.base import Metric
from benchmark.metrics.edit_success import EditHit
from benchmark.metrics.psnr import Psnr
from benchmark.statistics.intervals import Mean, mean_interval
from benchmark.statistics.paired import difference
from benchmark.suites.heldout import Suite
from model import Editor
from model.acceleration.config import Shortcuts
from model.acceleration.sparse_context import sparse_sequence
from model.flow.flow_matching import shift_of, time_grid
from model.flow.solvers import euler
from model.inference import sampler, window
from model.net.wan_config import WanConfig
from model.planner.flops import edit_flops
from model.planner.work import Shape, shape_of
from model.sequence.interleave import TokenSequence
from shards.media import read_mask
from tests.perf.measure import Figure

SCENES = Path("data/unseen")  # rendered by the first run
RECIPES = {"cg_removal": 2_100_000, "cg_replacement": 2_200_000}  # seeds that no other recipe has
TASKS = {"cg_removal": "object_removal", "cg_replacement": "object_replacement"}
SHARES = (0.5, 0.25, 0.125)
TILE = 2  # rows and columns of target tokens that share a window
METRICS: tuple[Metric, ...] = (Psnr("inside"), Psnr("outside"), EditHit())
LARGE = (21, 30, 52)  # tokens of a source of 480x832 and 81 frames


@dataclass(frozen=True)
class Way:
    """How much of the context the network sees: `beyond` is drop, pool, windows, or all (full attention)."""

    beyond: str
    share: float = 1.0

    @property
    def name(self) -> str:
        return "full attention" if self.share == 1 else f"{self.beyond}, {self.share:g} of the tokens"


WAYS = (Way("all"), *(Way(beyond, share) for beyond in ("drop", "pool", "windows") for share in SHARES))


@dataclass
class Spent:
    """Operations of the transformer, and seconds, of one edit."""

    operations: int = 0
    seconds: float = 0.0


def measure(
    scratch: Path, device: str, quick: bool, recipes: tuple[str, ...] = tuple(RECIPES), limit: int = 24
) -> list[Figure]:
    """Score every way on the same items; tables of quality and cost by task and wording."""
    editor = Editor.from_pretrained("nano", device)
    figures = []
    for recipe in recipes:
        suite = Suite(scenes(recipe, scratch, 4 if quick else 60))
        for wording in ("mask in text", "words only"):
            items = [i for i in suite.items if i.task == TASKS[recipe] and i.category == wording]
            items = items[:: max(1, len(items) // limit)][: 2 if quick else limit]
            figures += compare(editor, items, f"{TASKS[recipe]}, {wording}")
    return [*figures, *at_length()]


def scenes(recipe: str, scratch: Path, count: int) -> Path:
    """A shard folder of held-out scenes as the editor was trained on; kept but for a quick look."""
    folder = (scratch if count < 60 else SCENES) / recipe
    if not (folder / "manifest.jsonl").exists():
        text = yaml.safe_load((Path("configs/curation/nano") / f"{recipe}.yaml").read_text())
        more = {"scenes": count, "first": RECIPES[recipe], "heldout_fraction": 1.0, "reserved": []}
        text["init_args"] |= more
        config = scratch / f"{recipe}.yaml"
        config.write_text(yaml.safe_dump(text))
        command = [sys.executable, "-m", "curation", "run", recipe, "--config", str(config)]
        command += ["--out", str(folder), "--workspace", str(scratch / "workspace"), "--workers", "0"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def compare(editor: Editor, items: list[Item], title: str) -> list[Figure]:
    """Edits of all items in all ways, in turn."""
    scores: dict[Way, list[list[float | None]]] = defaultdict(list)
    costs: dict[Way, list[Spent]] = defaultdict(list)
    for item in items:
        loaded = item.load()
        frames, height, width = loaded.source.shape[:3]
        reference = Reference(loaded, Geometry(frames, height, width, loaded.fps))
        media = {name: _frames(name, data, loaded.source) for name, data in loaded.inputs.items()}
        for way in WAYS:
            with sampled(editor, way) as spent:
                begin = time.perf_counter()
                edit = editor(item.text, shortcuts=_shortcuts(way), **media)
                spent.seconds = time.perf_counter() - begin
            found = [metric(reference, edit.frames) for metric in METRICS]
            scores[way].append([None if isinstance(f, Unscored) else float(f) for f in found])
            costs[way].append(spent)
    clips = [item.clip for item in items]
    whole = WAYS[0]
    figures = []
    for way in WAYS:
        said = []
        for number, metric in enumerate(METRICS):
            ours, full = ([row[number] for row in scores[w]] for w in (way, whole))
            said.append(f"{metric.label} {_said(mean_interval(ours, clips, bounds=metric.range))}")
            if way != whole:
                gap = difference(full, ours, clips, bounds=metric.range).mean
                said[-1] += f" ({_said(gap, '+')})"
        ratio = sum(c.operations for c in costs[way]) / sum(c.operations for c in costs[whole])
        said.append(f"operations x{ratio:.3f}")
        if way.beyond != "windows":
            pairs = zip(costs[way], costs[whole], strict=True)
            said.append(f"seconds x{statistics.median(a.seconds / b.seconds for a, b in pairs):.2f}")
        figures.append(Figure(f"{title} ({len(items)}): {way.name}", None, None, "", "; ".join(said)))
    return figures


def _frames(name: str, data: bytes, source: np.ndarray) -> np.ndarray:
    """A mask as white on black, or the source."""
    if not name.startswith("mask"):
        return source
    return np.repeat(read_mask(data)[..., None] * np.uint8(255), 3, -1)


def _shortcuts(way: Way) -> Shortcuts:
    if way.beyond in ("all", "windows"):
        return Shortcuts()
    return Shortcuts(context_tokens=way.share, beyond=way.beyond)  # type: ignore[arg-type]


def _said(mean: Mean, sign: str = "") -> str:
    if mean.value is None:
        return "none"
    ends = "" if mean.low is None or mean.high is None else f" [{mean.low:{sign}.2f}, {mean.high:{sign}.2f}]"
    return f"{mean.value:{sign}.2f}{ends}"


@contextlib.contextmanager
def sampled(editor: Editor, way: Way) -> Iterator[Spent]:
    """Counts what edits in this block cost; under `windows` they are sampled so."""
    spent = Spent()
    branch, sample_many = sampler.Branch, window.sample_many
    config, copies = editor.config.network, editor.config.extras.copy_bias is not None

    class Counted(branch):  # type: ignore[misc, valid-type]
        """Adds the operations of its runs."""

        def __init__(self, dit: Any, sequences: Any, flow: Any, group: Any = None) -> None:
            self.shapes = [shape_of(s) for s in sequences]
            spent.operations += edit_flops(config, self.shapes, 0, False, copies)
            super().__init__(dit, sequences, flow, group)

        def velocity(self, x: Tensor, t: float) -> Tensor:
            once, whole = (edit_flops(config, self.shapes, n, False, copies) for n in (0, 1))
            spent.operations += whole - once
            found: Tensor = super().velocity(x, t)
            return found

    def in_windows(dit: Any, jobs: Any, flow: Any, inference: Any, *rest: Any, **more: Any) -> list[Tensor]:
        (job,) = jobs
        shape, steps = shape_of(job.with_text), inference.steps
        spent.operations += windowed_flops(config, shape, steps, way.share, copies)
        return [sample_in_windows(branch, dit, job.with_text, job.noise, flow, steps, way.share)]

    try:
        if way.beyond == "windows":
            window.sample_many = in_windows  # type: ignore[assignment]
        else:
            sampler.Branch = Counted  # type: ignore[misc]
        yield spent
    finally:
        sampler.Branch, window.sample_many = branch, sample_many  # type: ignore[misc]


def sample_in_windows(
    branch: Any, dit: Any, sequence: TokenSequence, noise: Tensor, flow: Any, steps: int, share: float
) -> Tensor:
    """Each tile of target tokens by the velocity that it has with the sources of its window alone."""
    size = sequence.target.size
    row, column = (x.flatten() for x in np.indices(size)[1:])
    sources = [s.name for s in sequence.segments if s.size == size and not s.target]
    tiles, views = [], []
    for top in range(0, size[1], TILE):
        for left in range(0, size[2], TILE):
            middle = (TILE - 1) / 2
            apart = np.hypot(row - top - middle, column - left - middle)
            seen = np.zeros(len(apart), np.float32)
            seen[np.argsort(apart, kind="stable")[: max(1, round(share * len(apart)))]] = 1
            tiles.append((row // TILE == top // TILE) & (column // TILE == left // TILE))
            weights = dict.fromkeys(sources, torch.from_numpy(seen))
            views.append(dataclasses.replace(sparse_sequence(sequence, weights, "drop"), weight=None))
    whole = branch(dit, views, flow)
    own = torch.from_numpy(np.stack(tiles)).int().argmax(0)

    def velocity(x: Tensor, t: float) -> Tensor:
        by_tile = whole.velocity(x.repeat(len(views), 1), t).unflatten(0, (len(views), -1))
        return by_tile[own, torch.arange(len(x))]

    x = noise.to(dit.device)
    for after in euler(velocity, x, time_grid(steps, shift_of(flow, len(noise)))):
        x = after
    return x


def windowed_flops(config: Any, shape: Shape, steps: int, share: float, copies: bool) -> int:
    """As `edit_flops` without guidance, where tokens meet but a share of the source tokens."""
    full = edit_flops(config, [shape], steps, False, copies)
    sources = shape.vision - shape.target
    unseen = round(sources * (1 - share))
    cached = isinstance(config, WanConfig) is False and config.context == "cached"
    pairs = steps * shape.noisy * unseen + (1 if cached else steps) * sources * unseen
    full -= 4 * config.depth * config.width * pairs
    if copies:
        full -= 2 * steps * shape.target * unseen * (sum(config.rope.dims) + config.vision_dim)
    return full


def at_length() -> list[Figure]:
    """Operations of an edit at the size of published weights, by formula: 65,520 tokens, 50 guided steps."""
    config, tokens, steps = WanConfig(), math.prod(LARGE), 50

    def shape(sources: int) -> Shape:
        total = sources + tokens
        return Shape(20, total, tokens, tokens, total, 2)

    def given(way: Way) -> int:
        kept = round(way.share * tokens)
        return kept + (tokens - kept) // 4 * (way.beyond == "pool")

    whole = edit_flops(config, [shape(tokens)], steps, True)
    figures = []
    for way in WAYS:
        if way.beyond == "windows":
            masked = 2 * windowed_flops(config, shape(tokens), steps, way.share, False)
            words = masked
        else:
            sparse = shape(given(way))
            masked = edit_flops(config, [sparse], steps, True)
            look = steps // 10
            words = edit_flops(config, [shape(tokens)], look, True)
            words += edit_flops(config, [sparse], steps - look, True)
        said = f"{masked / 1e15:.1f} PFLOP, x{masked / whole:.3f}; without a mask x{words / whole:.3f}"
        figures.append(Figure(f"1.3B, 65,520 tokens, by formula: {way.name}", None, None, "", said))
    return figures
