"""Shortcuts of an edit, each with what it gains and what it loses, on the same held-out items.

The shipped editor with 16 steps and guidance 2, on the first window of clips under `data/shards`; items and
shortcuts take turns, so that a machine whose speed drifts slows all. The step cache's polynomial and
thresholds are fitted to samples of the training split. What a shortcut loses is the difference of its scores
from those of full sampling, with a paired interval clustered by clip.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.core.item import Item, Reference
from benchmark.metrics.psnr import Psnr
from benchmark.metrics.ssim import Ssim
from benchmark.statistics.paired import difference
from benchmark.suites.heldout import item_of
from model import Editor
from model.acceleration.config import NO_SHORTCUTS, Shortcuts
from model.acceleration.network import weight_bytes
from model.acceleration.step_cache import Recorder
from model.net.dit import DiT
from shards.reader import ShardSet
from tests.perf.measure import Figure

FOLDERS = ("cg_removal", "cg_replacement", "object_removal", "object_replacement")
TASKS = ("object_removal", "object_replacement")
ITEMS, FITTED, FRAMES = 24, 4, 9
BUDGET = 400  # seconds after which no further item is begun
FULL: dict[str, Any] = {"steps": 16, "guidance": 2.0}
SHARES = (0.75, 0.5, 0.35)  # of the evaluations that the thresholds are chosen for
METRICS = (Psnr("inside"), Psnr("outside"), Ssim("inside"))


class Recomputing(DiT):
    """The same network, which computes the clean tokens at every step."""

    caches_context = False


@dataclasses.dataclass
class Variant:
    """One row: an editor, how it samples, and what came of it, item by item."""

    name: str
    editor: Editor
    options: dict[str, Any]
    seconds: list[float] = dataclasses.field(default_factory=list)
    network: list[float] = dataclasses.field(default_factory=list)
    runs: list[int] = dataclasses.field(default_factory=list)
    scores: dict[str, list[float | None]] = dataclasses.field(default_factory=lambda: defaultdict(list))

    def edit(self, item: Item) -> None:
        """Edit an item's first frames, time it and score it."""
        whole = item.load()
        cut = {n: getattr(whole, n)[:FRAMES] for n in ("source", "target", "mask")}
        loaded = dataclasses.replace(whole, **cut)
        meter = Meter(self.editor.dit)
        begin = time.perf_counter()
        result = self.editor(item.text, **loaded.inputs, frames=(0, FRAMES), **self.options)
        self.seconds.append(time.perf_counter() - begin)
        meter.remove()
        self.network.append(meter.seconds)
        self.runs.append(meter.runs)
        assert item.native is not None  # items with a fault are left out
        reference = Reference(loaded, dataclasses.replace(item.native, frames=FRAMES))
        for metric in METRICS:
            score = metric(reference, result.frames)
            self.scores[metric.name].append(score if isinstance(score, float) else None)


class Meter:
    """Seconds in a network's forward passes, and how many there were."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.seconds, self.runs, self._begin = 0.0, 0, 0.0
        self.hooks = (
            network.register_forward_pre_hook(self._enter),
            network.register_forward_hook(self._leave),
        )

    def _enter(self, *_: Any) -> None:
        self._begin = time.perf_counter()

    def _leave(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._begin
        self.runs += 1

    def remove(self) -> None:
        """Stop counting."""
        for hook in self.hooks:
            hook.remove()


def measure(scratch: Path, device: str, quick: bool, data: Path = Path("data/shards")) -> list[Figure]:
    """The table, and what the first edit of a compiled network waits for."""
    folders = [data / name for name in FOLDERS if (data / name / "manifest.jsonl").is_file()]
    if not folders:
        return [Figure(f"no held-out samples under {data}: python -m curation all", None, None, "")]
    editor = Editor.from_pretrained("nano", device)
    recorder = calibrate(editor, choose(folders, "train", 1 if quick else FITTED))
    items = choose(folders, "heldout", 2 if quick else ITEMS)
    variants = variants_of(editor, recorder)
    for variant in variants:  # what is done once is done here
        variant.editor(items[0].text, **items[0].load().inputs, frames=(0, FRAMES), **variant.options)
    until = time.monotonic() + BUDGET
    for number, item in enumerate(items):
        if number > 1 and time.monotonic() > until:
            items = items[:number]
            break
        # each begins as often as the others
        for variant in variants[number % len(variants) :] + variants[: number % len(variants)]:
            variant.edit(item)
    clips = len({item.clip for item in items})
    about = Figure(f"{len(items)} items of {clips} clips, {FRAMES} frames each", None, None, "")
    figures = [figure(variants[0], variant, items) for variant in variants]
    return [about, *figures, *batch(editor, items, quick), *compiled(editor, items[0], quick)]


def choose(folders: list[Path], split: str, most: int) -> list[Item]:
    """Items of a split, in turn from the folders and each of another clip as far as there are such."""
    by_clip: dict[tuple[int, str], list[Item]] = defaultdict(list)
    for number, folder in enumerate(folders):
        shards = ShardSet(folder)
        for key in shards.keys:
            if shards.entry(key).split == split and shards.entry(key).task in TASKS:
                item = item_of(shards[key])
                if item.fault is None:
                    by_clip[number, item.clip].append(item)
    rounds = itertools.zip_longest(*by_clip.values())
    return [item for one in rounds for item in one if item is not None][:most]


def calibrate(editor: Editor, items: list[Item]) -> Recorder:
    """Record full sampling of samples that are not among those that are scored."""
    with Recorder(editor.dit) as recorder:
        for item in items:
            editor(item.text, **item.load().inputs, frames=(0, FRAMES), **FULL)
    return recorder


def variants_of(editor: Editor, recorder: Recorder) -> list[Variant]:
    """Full sampling first, then what is left out of it."""
    polynomial = recorder.fit()

    def cached(share: float, fitted: tuple[float, ...]) -> Shortcuts:
        return Shortcuts(step_cache=recorder.threshold(share, fitted), step_cache_polynomial=fitted)

    rows = [Variant("full: 16 steps, guidance 2, context cached", editor, FULL)]
    recomputing = Recomputing(editor.dit.config, editor.dit.extras).eval().to(editor.device)
    recomputing.load_state_dict(editor.dit.state_dict())
    rows.append(Variant("context computed at every step", _with(editor, recomputing), FULL))
    for share in SHARES:
        shortcuts = cached(share, ())
        name = f"step cache {shortcuts.step_cache:.3f}"
        rows.append(Variant(name, editor, FULL | {"shortcuts": shortcuts}))
    fitted = cached(0.5, polynomial)
    name = f"step cache {fitted.step_cache:.3f} of a fitted polynomial"
    rows.append(Variant(name, editor, FULL | {"shortcuts": fitted}))
    for interval in ((0.0, 0.5), (0.25, 1.0)):
        name = f"guidance from {interval[0]:g} to {interval[1]:g}"
        rows.append(Variant(name, editor, FULL | {"interval": interval}))
    rows.append(Variant("no guidance", editor, FULL | {"guidance": 1.0}))
    # a CPU turns fp8 into other numbers one by one
    for kind in ("int8",) if editor.device.type == "cpu" else ("int8", "fp8"):
        rounded = _with(editor, copy.deepcopy(editor.dit))
        rows.append(Variant(f"weights in {kind}", rounded, FULL | {"shortcuts": Shortcuts(weights=kind)}))  # type: ignore[arg-type]
    rows += [Variant(f"{steps} steps", editor, FULL | {"steps": steps}) for steps in (8, 4, 2)]
    both = {"interval": (0.0, 0.5), "shortcuts": cached(0.5, ())}
    rows.append(
        Variant(f"step cache {both['shortcuts'].step_cache:.3f}, guidance to 0.5", editor, FULL | both)
    )  # type: ignore[attr-defined]
    rows.append(Variant("2 steps without guidance: the shipped default", editor, {}))
    return rows


def _with(editor: Editor, network: DiT) -> Editor:
    """The same editor with another network."""
    return Editor(network, editor.config, editor.vae, editor.text_encoder)


def figure(full: Variant, variant: Variant, items: list[Item]) -> Figure:
    """A row: seconds, gains against full sampling in the same turn, and differences of scores."""
    ratios = [a / b for a, b in zip(full.seconds, variant.seconds, strict=True)]
    share = statistics.median(n / s for n, s in zip(variant.network, variant.seconds, strict=True))
    words = [
        f"{statistics.median(ratios):.2f}x, {statistics.mean(variant.runs):.1f} network evaluations, "
        f"{share:.0%} of the wait, {weight_bytes(variant.editor.dit) / 1e6:.1f} MB"
    ]
    for metric in METRICS:
        scores = variant.scores[metric.name]
        gap = difference(full.scores[metric.name], scores, [item.clip for item in items])
        low, high = (math.nan if end is None else end for end in (gap.mean.low, gap.mean.high))
        change = f" ({gap.mean.value:+.2f}; {low:+.2f} to {high:+.2f})" if variant is not full else ""
        if gap.second is not None:
            words.append(f"{metric.label} {gap.second:.2f}{change}")
    seconds = statistics.median(variant.seconds)
    return Figure(variant.name, seconds, min(variant.seconds), "s", "; ".join(words))


def batch(editor: Editor, items: list[Item], quick: bool) -> list[Figure]:
    """Eight edits of one window given as a list, which packs them, and one by one, in turn."""
    eight = list(itertools.islice(itertools.cycle(items), 8))
    inputs = [item.load().inputs for item in eight]
    names = sorted(set().union(*inputs))
    texts, media = [item.text for item in eight], {n: [i.get(n) for i in inputs] for n in names}
    pairs, apart = [], 0
    for _ in range(1 if quick else 3):
        begin = time.perf_counter()
        together = editor(texts, **media, frames=(0, FRAMES), **FULL)
        middle = time.perf_counter()
        alone = [editor(t, **i, frames=(0, FRAMES), **FULL) for t, i in zip(texts, inputs, strict=True)]
        pairs.append((middle - begin, time.perf_counter() - middle))
        gaps = [np.abs(a.frames.astype(int) - b.frames) for a, b in zip(together, alone, strict=True)]
        apart = max(int(gap.max()) for gap in gaps)
    seconds = [packed for packed, _ in pairs]
    ratio = statistics.median(one_by_one / packed for packed, one_by_one in pairs)
    note = f"{ratio:.2f}x of one by one; pixels differ by at most {apart} levels"
    return [Figure("eight edits packed", statistics.median(seconds), min(seconds), "s", note)]


def compiled(editor: Editor, item: Item, quick: bool) -> list[Figure]:
    """The first edit with compiled blocks, then both in turn, of one item: other lengths compile anew."""
    inputs = item.load().inputs

    def run(shortcuts: Shortcuts) -> tuple[float, np.ndarray]:
        begin = time.perf_counter()
        edit = editor(item.text, **inputs, frames=(0, FRAMES), shortcuts=shortcuts, **FULL)
        return time.perf_counter() - begin, edit.frames

    first, frames = run(Shortcuts(compile=True))
    pairs = [(run(NO_SHORTCUTS), run(Shortcuts(compile=True))) for _ in range(1 if quick else 5)]
    plain, fast = ([pair[i][0] for pair in pairs] for i in (0, 1))
    apart = int(np.abs(frames.astype(int) - pairs[0][0][1]).max())
    ratio = statistics.median(a / b for a, b in zip(plain, fast, strict=True))
    note = f"{ratio:.2f}x; pixels differ by at most {apart} levels; the first edit took {first:.0f} s"
    return [Figure("compiled blocks, one item", statistics.median(fast), min(fast), "s", note)]
