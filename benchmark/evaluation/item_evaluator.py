"""Takes one item after the other through editing, scoring and encoding for the page."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.fingerprint import fingerprint
from benchmark.core.item import (
    MODEL,
    MODEL_RAW,
    SOURCE,
    TARGET,
    BenchmarkError,
    Geometry,
    Item,
    Loaded,
    Mode,
    Reference,
    RunStopped,
    Unscored,
)
from benchmark.core.media import geometry_of, read_frames
from benchmark.core.score_cache import Score, ScoreStore, address
from benchmark.core.stored_frames import decoder
from benchmark.evaluation.results import Outcome
from benchmark.metrics import Metric
from benchmark.metrics.base import score
from benchmark.systems.results_folder import Result, System
from shards.hashing import digest
from shards.media import resize, write_video

PAGE_CRF = 20  # of the videos inside the page; scores are taken before this encoding

Line = tuple[str, Score, dict[str, Any]]  # address, score, what it is of


class Frames:
    """An item's decoded media and what derives from them; nothing is decoded before it is needed.

    Args:
        source: the source that a result was made of, in place of the item's own media.
        mode: how that is read.
    """

    def __init__(self, item: Item, source: Path | None = None, mode: Mode = "corrected") -> None:
        self.item, self.source, self.mode = item, source, mode
        self._references: dict[Geometry, Reference] = {}

    @cached_property
    def native(self) -> Geometry | None:
        """Of the source; None for one that is missing or unreadable."""
        if self.source is None:
            return self.item.native
        try:
            return geometry_of(self.source, 1.0, self.mode)
        except (ValueError, OSError):  # who reads it gets the reason
            return None

    @cached_property
    def loaded(self) -> Loaded:
        if self.source is None:
            return self.item.load()
        frames = read_frames(self.source, self.mode)
        return Loaded(frames, None, None, self.native.fps if self.native else 1.0, {})

    def reference(self, geometry: Geometry) -> Reference:
        if geometry not in self._references:
            self._references[geometry] = Reference(lambda: self.loaded, geometry, self.item.prompts)
        return self._references[geometry]


@dataclass
class ItemResult:
    """An item's outcome, and the scores of it that are new."""

    outcome: Outcome
    fresh: list[Line] = field(default_factory=list)
    reused: int = 0
    encoded: int = 0
    made: int = 0  # edits
    kept: int = 0


class Worker:
    """Scores items.

    Args:
        out: folder of the run.
        systems: what fills rows of its own; references: rows of the suite (`source`, `target`).
        known: scores that need not be computed again.
        mode: how videos are read, see `benchmark.core.media`.
    """

    def __init__(
        self,
        out: Path,
        systems: Sequence[System],
        references: Sequence[str],
        metrics: list[Metric],
        known: ScoreStore,
        mode: Mode = "corrected",
    ) -> None:
        self.out, self.systems, self.metrics, self.known = out, systems, metrics, known
        self.rows, self.mode = rows_of(systems, references), mode
        self.read_by = {"decoder": decoder()} if mode == "official" else {}
        self.asking = ThreadPoolExecutor(4)
        self.settings = {m.name: fingerprint(m) for m in metrics}

    def item(self, item: Item, page: bool) -> ItemResult:
        """Everything about one item; a fault of its files or of a result is the reason of the scores.

        Raises RunStopped for what no item can be scored without.
        """
        done = ItemResult(Outcome(item, {}))
        frames = Frames(item)
        results: dict[str, Result | Unscored] = {}
        for system in self.systems:
            found = self._result(system, item, frames)
            results |= dict.fromkeys(system.rows, found)
            if isinstance(found, Result) and found.seconds is not None:
                done.made, done.kept = done.made + found.new, done.kept + (not found.new)
                done.outcome.seconds |= dict.fromkeys(system.rows, found.seconds)
                if found.peak_bytes is not None:
                    done.outcome.peak_bytes |= dict.fromkeys(system.rows, found.peak_bytes)
        first = next((r for r in results.values() if isinstance(r, Result)), None)
        native = item.native or Unscored("its size is unknown")
        common = first.geometry if first else next(iter(results.values()), native)  # of the references' rows
        for row in self.rows:
            result = results.get(row)
            geometry = common if result is None else result
            if isinstance(geometry, Result):
                geometry = geometry.geometry
            own = self._own_source(item, result)
            if item.fault and own is None:
                geometry = Unscored(item.fault)
            if isinstance(geometry, Unscored):
                done.outcome.scores[row] = self._missing(geometry)
                continue
            seen = frames if own is None else Frames(item, own[0], self.mode)
            if own is not None:
                done.outcome.sources[row] = own[0]
            self._row(done, row, seen, geometry, result if isinstance(result, Result) else None)
        if page and done.outcome.geometries:
            self._videos(done, frames, results)
        return done

    def _own_source(self, item: Item, result: Result | Unscored | None) -> tuple[Path, str] | None:
        """The source beside a result, and its sha256, where that is what the result is compared with.

        The published code reads no other; `corrected` does so where the suite's own is missing.
        """
        if not isinstance(result, Result) or not (self.mode == "official" or item.fault):
            return None
        return result.source

    def _result(self, system: System, item: Item, frames: Frames) -> Result | Unscored:
        if item.fault and not item.beside:
            return Unscored(item.fault)
        try:
            return system.result(item, lambda: frames.loaded)
        except RunStopped:
            raise
        except BenchmarkError as error:
            return Unscored(str(error))

    def _missing(self, reason: Unscored) -> dict[str, Score]:
        return {m.name: reason for m in self.metrics}

    def _row(
        self, done: ItemResult, row: str, frames: Frames, geometry: Geometry, result: Result | None
    ) -> None:
        item = done.outcome.item
        identity = result.files[row][1] if result else row
        content = item.content
        if frames.source is not None and result and result.source:
            content = digest({"video1": result.source[1]}, "spaced")  # as `media_item` addresses it
        scores: dict[str, Score] = {}
        missing: dict[str, str] = {}  # addresses of scores to be computed, by metric
        for metric in self.metrics:
            words = {name: item.prompts.get(name) for name in getattr(metric, "reads", ())}
            parts = content, words, identity, asdict(geometry) | self.read_by
            key = address("score", *parts, self.settings[metric.name])
            found = self.known.get(key)
            if found is None:
                missing[metric.name] = key
            else:
                scores[metric.name] = found
        try:
            computed = self._compute(row, frames, geometry, result, missing) if missing else {}
        except RunStopped:
            raise
        except (BenchmarkError, ValueError, OSError) as error:  # media that cannot be read after all
            done.outcome.scores[row] = self._missing(Unscored(str(error)))
            return
        done.outcome.scores[row] = {m.name: (scores | computed)[m.name] for m in self.metrics}
        done.outcome.geometries[row] = geometry
        if result and frames.native and row not in (MODEL, MODEL_RAW):
            done.outcome.notes[row] = differences(geometry, frames.native)
        about = {"item": item.id, "row": row}
        done.fresh += [(missing[name], computed[name], about | {"metric": name}) for name in missing]
        done.reused += len(scores)

    def _compute(
        self, row: str, frames: Frames, geometry: Geometry, result: Result | None, names: Collection[str]
    ) -> dict[str, Score]:
        """Scores of a row by these metrics; those that wait for answers are asked first, collected last."""
        reference = frames.reference(geometry)
        pixels = shown(row, reference, result, self.mode)
        chosen = [m for m in self.metrics if m.name in names]
        asked = {
            m.name: self.asking.submit(score, m, reference, pixels)
            for m in chosen
            if getattr(m, "waits", False)
        }
        found = {m.name: score(m, reference, pixels) for m in chosen if m.name not in asked}
        return found | {name: future.result() for name, future in asked.items()}

    def _videos(self, done: ItemResult, frames: Frames, results: dict[str, Result | Unscored]) -> None:
        """Small H.264 files of what was scored, for the page; even sides, as browsers need."""
        item, scored = done.outcome.item, done.outcome.geometries
        beside = next(iter(done.outcome.sources.values()), None)
        source = frames if beside is None or not item.fault else Frames(item, beside, self.mode)
        shown_too = {SOURCE: source.native} if source.native and SOURCE not in scored else {}
        for row, geometry in (shown_too | scored).items():
            if row == MODEL_RAW:  # in the tables; a video more per item would say little
                continue
            result = results.get(row)
            result = result if isinstance(result, Result) else None
            identity = result.files[row][1] if result else row
            content = item.content or str(source.source)
            name = address("page", content, identity, asdict(geometry) | self.read_by)[:32]
            path = self.out / "videos" / f"{name}.mp4"
            if not path.is_file():
                even = (geometry.height + geometry.height % 2, geometry.width + geometry.width % 2)
                pixels = shown(row, source.reference(geometry), result, self.mode)
                write_video(path, resize(pixels, even), geometry.fps, crf=PAGE_CRF)
                done.encoded += 1
            done.outcome.videos[row] = path


def rows_of(systems: Sequence[System], references: Sequence[str]) -> list[str]:
    """The rows of a run's table: the source first, the target last."""
    own = [row for system in systems for row in system.rows]
    return [r for r in (SOURCE, *own, TARGET) if r in own or r in references]


def shown(row: str, reference: Reference, result: Result | None, mode: Mode = "corrected") -> np.ndarray:
    """The frames of a row, uint8 RGB [T, H, W, 3]."""
    if result:
        return read_frames(result.files[row][0], mode)
    return reference.source if row == SOURCE else reference.target


def differences(result: Geometry, source: Geometry) -> list[str]:
    """In what a result is not as long, as large or as fast as its source."""
    found = []
    if result.frames != source.frames:
        found.append(f"{result.frames} frames, the source has {source.frames}")
    if (result.height, result.width) != (source.height, source.width):
        found.append(f"{result.width}x{result.height}, the source is {source.width}x{source.height}")
    if abs(result.fps - source.fps) > 0.01 * source.fps:
        found.append(f"{result.fps:g} frames per second, the source has {source.fps:g}")
    return found
