"""Runs a suite: edits what is not yet edited, scores what is not yet scored, aggregates.

Everything computed is kept at once, so an interrupted run continues and a second run computes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmark.editing import MODEL, MODEL_RAW, SOURCE, TARGET, Edits, EditSettings, Result
from benchmark.item import BenchmarkError, Geometry, Item, Loaded, Reference, Unscored
from benchmark.metrics import Metric, metrics_of
from benchmark.stats import Mean, choose_clusters, mean_interval
from benchmark.store import Score, ScoreStore, address, number_out
from benchmark.suites import AnySuite, open_suite
from shards.files import write_json
from shards.media import read_video, resize, write_video

ROW_LABELS = {
    SOURCE: "Copy the source",
    MODEL: "Model",
    MODEL_RAW: "Model without carry-over",
    TARGET: "Curated target",
}
ROW_NOTES = {SOURCE: "floor", MODEL: "", MODEL_RAW: "", TARGET: "ceiling"}
PAGE_CRF = 20  # of the videos inside the page; scores are taken before this encoding


@dataclass(frozen=True)
class RunConfig:
    """What decides a run's scores; kept as `config.json` in the output folder, which serves no other."""

    suite: str
    shards: str
    checkpoint: str | None
    edit: EditSettings = field(default_factory=EditSettings)
    limit: int | None = None


@dataclass
class Outcome:
    """What became of one item: the scores of each row, the stored edit, and where its page videos lie."""

    item: Item
    geometry: Geometry | None
    scores: dict[str, dict[str, Score]]
    result: Result | None = None
    videos: dict[str, Path] = field(default_factory=dict)


@dataclass
class Run:
    """A finished run, for the table, `summary.json` and the page."""

    config: RunConfig
    suite: AnySuite
    metrics: list[Metric]
    outcomes: list[Outcome]
    rows: list[str]
    checkpoint_sha256: str | None
    counts: dict[str, int]
    _means: dict[tuple[str, str, tuple[int, ...]], Mean] = field(default_factory=dict, repr=False)

    @cached_property
    def clusters(self) -> tuple[str, list[str]]:
        """What intervals are clustered by, and each outcome's cluster."""
        items = [o.item for o in self.outcomes]
        return choose_clusters([i.clip for i in items], [i.pair for i in items])

    def groups(self) -> list[tuple[str, list[int]]]:
        """("all", every outcome), then one group per task and per task's category where there are several."""
        groups = [("all", list(range(len(self.outcomes))))]
        keys: list[Callable[[Item], str]] = [lambda i: i.task, lambda i: f"{i.task}, {i.category}"]
        for key in keys:
            names = sorted({key(o.item) for o in self.outcomes})
            known = [set(members) for _, members in groups]
            for name in names:
                members = [n for n, o in enumerate(self.outcomes) if key(o.item) == name]
                if set(members) not in known:
                    groups.append((name, members))
        return groups

    def mean(self, row: str, metric: Metric, members: list[int]) -> Mean:
        """A cell of the table; computed once, since terminal, page and summary all show it."""
        key = (row, metric.name, tuple(members))
        if key not in self._means:
            scores = [self.outcomes[n].scores[row][metric.name] for n in members]
            labels = [self.clusters[1][n] for n in members]
            self._means[key] = mean_interval([None if isinstance(s, Unscored) else s for s in scores], labels)
        return self._means[key]

    def failures(self) -> list[tuple[str, str, str, str]]:
        """(item, row, metric, reason) of every score that is missing; a row that fails whole is one line."""
        found = []
        for outcome in self.outcomes:
            for row in self.rows:
                reasons = {m: s.reason for m, s in outcome.scores[row].items() if isinstance(s, Unscored)}
                if len(reasons) == len(self.metrics) and len(set(reasons.values())) == 1:
                    found.append((outcome.item.id, row, "all", next(iter(reasons.values()))))
                else:
                    found += [(outcome.item.id, row, m, reason) for m, reason in reasons.items()]
        return found

    def summary(self) -> dict[str, Any]:
        """Everything that the table and the page show, as JSON values."""
        table = {
            group: {
                row: {m.name: _mean_out(self.mean(row, m, members)) for m in self.metrics}
                for row in self.rows
            }
            for group, members in self.groups()
        }
        return {
            "config": asdict(self.config),
            "suite": {"name": self.suite.name, "version": self.suite.version},
            "checkpoint_sha256": self.checkpoint_sha256,
            "items": len(self.outcomes),
            "clustered_by": self.clusters[0],
            "metrics": {
                m.name: {
                    "version": m.version,
                    "higher_is_better": m.higher_is_better,
                    "unit": m.unit,
                    "range": [number_out(v) for v in m.range],
                }
                for m in self.metrics
            },
            "table": table,
            "failures": [
                dict(zip(("item", "row", "metric", "reason"), f, strict=True)) for f in self.failures()
            ],
            "seconds_per_edit": self.seconds_per_edit(),
        }

    def items_out(self) -> dict[str, Any]:
        """Every item and its scores as JSON values: null for one that is missing, "inf" for infinity."""
        listed = []
        for outcome in self.outcomes:
            item = outcome.item
            scores = {
                row: {m: None if isinstance(s, Unscored) else number_out(s) for m, s in of.items()}
                for row, of in outcome.scores.items()
            }
            about = {n: getattr(item, n) for n in ("id", "task", "category", "clip", "pair")}
            listed.append({**about, "scores": scores})
        return {"suite": self.suite.name, "version": self.suite.version, "items": listed}

    def seconds_per_edit(self) -> float | None:
        """Mean seconds that the model took for one item when it was edited."""
        seconds = [o.result.seconds for o in self.outcomes if o.result]
        return float(np.mean(seconds)) if seconds else None


def _mean_out(mean: Mean) -> dict[str, Any]:
    return asdict(mean) | {"value": number_out(mean.value)}


class Frames:
    """An item's decoded media and what derives from them; nothing is decoded before it is needed."""

    def __init__(self, item: Item) -> None:
        self.item = item

    @cached_property
    def loaded(self) -> Loaded:
        return self.item.load()

    def reference(self, geometry: Geometry) -> Reference:
        if getattr(self, "_at", None) != geometry:
            self._at, self._reference = geometry, Reference(self.loaded, geometry, self.item.prompts)
        return self._reference


def claim(out: Path, config: RunConfig) -> None:
    """Make `out` this run's folder; raises BenchmarkError when it holds another configuration's run."""
    path = out / "config.json"
    wanted = asdict(config)
    if path.is_file():
        try:
            held = json.loads(path.read_text())
        except ValueError:
            raise BenchmarkError(f"{path}: damaged; choose another --out or delete {out}") from None
        different = [k for k in wanted if not isinstance(held, dict) or held.get(k) != wanted[k]]
        if different and {p.name for p in out.iterdir()} != {path.name}:  # a run that began to store things
            name = different[0]
            was = held.get(name) if isinstance(held, dict) else None
            raise BenchmarkError(
                f"--out {out}: holds another run ({name}: {was!r} there, {wanted[name]!r} asked for); "
                "choose another --out or delete it"
            )
        if different:
            write_json(path, wanted)
        return
    if out.exists() and not out.is_dir():
        raise BenchmarkError(f"--out {out}: is not a folder")
    if out.is_dir() and any(out.iterdir()):
        raise BenchmarkError(f"--out {out}: not empty and no benchmark run (no config.json); choose another")
    write_json(path, wanted)


def execute(config: RunConfig, out: Path, console: Console, gallery: int) -> Run:
    """Edit and score every item of the suite; results lie under `out`.

    Faults of one item leave the others alone: its scores are `Unscored` with the reason, in every row, so
    that all rows are means over the same items. Raises BenchmarkError for a request that is wrong as a whole.
    """
    suite = open_suite(config.suite, Path(config.shards))
    items = [suite.items[n] for n in spread_out(len(suite.items), config.limit)]
    edits = Edits(out / "edits", Path(config.checkpoint), config.edit) if config.checkpoint else None
    claim(out, config)
    rows = [SOURCE, *(edits.rows if edits else []), TARGET]
    store = ScoreStore(out / "scores.jsonl")
    worker = Worker(out, edits, metrics_of({item.task for item in items}), rows, store)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("edit and score" if edits else "score", total=len(items))
        outcomes = []
        shown = set(spread_out(len(items), gallery))
        for number, item in enumerate(items):
            progress.update(bar, description=item.id)
            outcomes.append(worker.outcome(item, page=number in shown))
            progress.advance(bar)
    counts = {
        "edits_made": edits.made if edits else 0,
        "edits_reused": edits.reused if edits else 0,
        "scores_computed": worker.computed,
        "scores_reused": worker.reused,
        "videos_encoded": worker.encoded,
    }
    return Run(config, suite, worker.metrics, outcomes, rows, edits.sha256 if edits else None, counts)


def spread_out(count: int, most: int | None) -> list[int]:
    """Up to `most` of 0..count-1, evenly spread: items are sorted by task, so the first ones would not do."""
    chosen = count if most is None else min(count, most)
    return [n * count // chosen for n in range(chosen)]


class Worker:
    """Takes one item after the other through editing, scoring and encoding for the page."""

    def __init__(
        self, out: Path, edits: Edits | None, metrics: list[Metric], rows: list[str], store: ScoreStore
    ) -> None:
        self.out = out
        self.edits = edits
        self.metrics = metrics
        self.rows = rows
        self.store = store
        self.computed = self.reused = self.encoded = 0

    def outcome(self, item: Item, page: bool) -> Outcome:
        """Everything about one item; a fault of its files or its edit becomes the reason of its scores."""
        if item.fault:
            return self._failed(item, item.fault)
        frames = Frames(item)
        try:
            geometry, result = item.native, None
            if self.edits:
                edit = self.edits.stored(item) or self.edits.make(item, frames.loaded)
                if isinstance(edit, Unscored):
                    return self._failed(item, edit.reason)
                result, geometry = edit, edit.geometry
            if geometry is None:
                return self._failed(item, "its size is unknown")
            outcome = Outcome(item, geometry, self._scores(item, frames, geometry, result), result)
            if page:
                outcome.videos = self._videos(item, frames, geometry, result)
            return outcome
        except BenchmarkError as error:
            if str(error).startswith("--checkpoint"):  # the whole run, not this item
                raise
            return self._failed(item, str(error))

    def _failed(self, item: Item, reason: str) -> Outcome:
        scores: dict[str, dict[str, Score]] = {
            row: {m.name: Unscored(reason) for m in self.metrics} for row in self.rows
        }
        return Outcome(item, None, scores)

    def _scores(
        self, item: Item, frames: Frames, geometry: Geometry, result: Result | None
    ) -> dict[str, dict[str, Score]]:
        scores: dict[str, dict[str, Score]] = {}
        fresh: list[tuple[str, Score, dict[str, Any]]] = []
        for row in self.rows:
            identity = result.files[row][1] if result and row in result.files else row
            scores[row] = {}
            pixels: np.ndarray | None = None
            for metric in self.metrics:
                key = address("score", item.content, identity, asdict(geometry), metric.name, metric.version)
                score = self.store.get(key)
                if score is None:
                    reference = frames.reference(geometry)
                    if pixels is None:
                        pixels = self._pixels(row, reference, result)
                    score = metric(reference, pixels)
                    if not isinstance(score, Unscored) and math.isnan(score):
                        score = Unscored("not a number")
                    fresh.append((key, score, {"item": item.id, "row": row, "metric": metric.name}))
                else:
                    self.reused += 1
                scores[row][metric.name] = score
        self.store.put(fresh)
        self.computed += len(fresh)
        return scores

    def _pixels(self, row: str, reference: Reference, result: Result | None) -> np.ndarray:
        if result and row in result.files:
            return read_video(result.files[row][0])[0]
        return reference.source if row == SOURCE else reference.target

    def _videos(
        self, item: Item, frames: Frames, geometry: Geometry, result: Result | None
    ) -> dict[str, Path]:
        """Small H.264 files of what was scored, for the page; even sides, as browsers need."""
        paths: dict[str, Path] = {}
        even = (geometry.height + geometry.height % 2, geometry.width + geometry.width % 2)
        for row in self.rows:
            if row == MODEL_RAW:  # in the tables; a fourth video per item would say little
                continue
            identity = result.files[row][1] if result and row in result.files else row
            path = (
                self.out / "videos" / f"{address('page', item.content, identity, asdict(geometry))[:32]}.mp4"
            )
            if not path.is_file():
                pixels = self._pixels(row, frames.reference(geometry), result)
                write_video(path, resize(pixels, even), geometry.fps, crf=PAGE_CRF)
                self.encoded += 1
            paths[row] = path
        return paths
