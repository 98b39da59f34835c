"""Takes one item after the other through scoring and encoding for the page; its edits were made before."""

from __future__ import annotations

import traceback
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
from benchmark.core.posters import write_poster
from benchmark.core.score_cache import Score, ScoreStore, address
from benchmark.core.stored_frames import decoder
from benchmark.evaluation.results import Outcome
from benchmark.judges.answer_log import AnswerLog
from benchmark.metrics import Metric
from benchmark.metrics.base import needs_source, score
from benchmark.systems.results_folder import Result, System
from curation.vlm.errors import AssetError
from curation.vlm.exchange import asking
from curation.vlm.interface import AnnotatorError
from shards.errors import EditVerseError, first_line
from shards.hashing import digest
from shards.media import resize, write_video

PAGE_CRF = 20  # of the videos inside the page; scores are taken before this encoding

# Who refuses or filters does so by rule; the answer of another endpoint may differ.
SELDOM = ("refusal", "filter")
NOT_REACHED = "the run stopped before"

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
        """Raises BenchmarkError for media that cannot be read."""
        try:
            if self.source is None:
                return self.item.load()
            frames = read_frames(self.source, self.mode)
        except (ValueError, OSError) as error:
            if isinstance(error, EditVerseError):
                raise
            raise BenchmarkError(first_line(error)) from error
        return Loaded(frames, None, None, self.native.fps if self.native else 1.0, {})

    def reference(self, geometry: Geometry) -> Reference:
        if geometry not in self._references:
            self._references[geometry] = Reference(lambda: self.loaded, geometry, self.item.words)
        return self._references[geometry]


@dataclass
class ItemResult:
    """An item's outcome, and the scores of it that are new.

    Attributes:
        tracebacks: of what metrics raised that no input accounts for.
        stopped: why no further item can be scored; what was scored of this one is there.
    """

    outcome: Outcome
    fresh: list[Line] = field(default_factory=list)
    reused: int = 0
    encoded: int = 0
    tracebacks: list[str] = field(default_factory=list)
    stopped: str = ""


class Worker:
    """Scores items.

    Args:
        out: folder of the run.
        systems: what fills rows of its own; references: rows of the suite (`source`, `target`).
        known: scores that need not be computed again.
        retry: how often a score that failed is computed again, over all runs; `SELDOM` kinds once.
        answers: the log that answers of judges are kept in, and taken from.
        mode: how videos are read, see `benchmark.core.media`.
    """

    def __init__(
        self,
        out: Path,
        systems: Sequence[System],
        references: Sequence[str],
        metrics: list[Metric],
        known: ScoreStore,
        retry: int = 0,
        answers: AnswerLog | None = None,
        mode: Mode = "corrected",
    ) -> None:
        self.out, self.systems, self.metrics, self.known = out, systems, metrics, known
        self.retry = retry
        self.rows, self.mode = rows_of(systems, references), mode
        self.read_by = {"decoder": decoder()} if mode == "official" else {}
        self.asking = ThreadPoolExecutor(4)
        self.settings = {m.name: fingerprint(m) for m in metrics}
        self.readers = {name: address("reader", settings)[:16] for name, settings in self.settings.items()}
        for metric in metrics:
            if hasattr(model := getattr(metric, "model", None), "log"):
                model.log = answers  # type: ignore[union-attr]

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
                done.outcome.seconds |= dict.fromkeys(system.rows, found.seconds)
                if found.peak_bytes is not None:
                    done.outcome.peak_bytes |= dict.fromkeys(system.rows, found.peak_bytes)
        first = next((r for r in results.values() if isinstance(r, Result)), None)
        native = item.native or Unscored("its size is unknown")
        common = first.geometry if first else next(iter(results.values()), native)  # of the references' rows
        for row in self.rows:
            if done.stopped:
                done.outcome.scores[row] = self._missing(Unscored(NOT_REACHED, retry=True))
                continue
            result = results.get(row)
            geometry = common if result is None else result
            if isinstance(geometry, Result):
                geometry = geometry.geometry
            own = self._own_source(item, result)
            if item.fault and own is None and not (isinstance(result, Result) and item.content):
                geometry = Unscored(item.fault)  # a wrong entry, or a row that is made of the media
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
        if item.fault and (getattr(system, "needs_source", True) or not item.content):
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
        fault = item.fault if frames.source is None else None
        scores: dict[str, Score] = {}
        missing: dict[str, str] = {}  # addresses of scores to be computed, by metric
        for metric in self.metrics:
            words = {name: item.words.get(name) for name in getattr(metric, "reads", ())}
            parts = content, words, identity, asdict(geometry) | self.read_by
            key = address("score", *parts, self.settings[metric.name])
            found = self.known.get(key)
            if fault and needs_source(metric):
                scores[metric.name] = Unscored(fault)
            elif found is None or self._again(key, found):
                missing[metric.name] = key
            else:
                scores[metric.name] = found
                done.reused += 1
        try:
            pixels = shown(row, frames.reference(geometry), result, self.mode) if missing else None
        except RunStopped:
            raise
        except (EditVerseError, ValueError, OSError) as error:  # media that cannot be read after all
            done.outcome.scores[row] = self._missing(Unscored(first_line(error)))
            return
        if pixels is not None:
            file = result.files[row][0] if result else None
            computed = self._compute(done, row, frames.reference(geometry), pixels, file, missing)
            about = {"item": item.id, "row": row}
            found_now = [name for name in missing if name in computed]
            done.fresh += [(missing[name], computed[name], about | {"metric": name}) for name in found_now]
            scores |= computed
        not_asked = Unscored(NOT_REACHED, retry=True)
        done.outcome.scores[row] = {m.name: scores.get(m.name, not_asked) for m in self.metrics}
        done.outcome.geometries[row] = geometry
        if result and frames.native and row not in (MODEL, MODEL_RAW):
            done.outcome.notes[row] = differences(geometry, frames.native)

    def _again(self, key: str, found: Score) -> bool:
        """Whether what is stored is a failure that is asked again."""
        if not isinstance(found, Unscored) or not found.retry:
            return False
        most = min(self.retry, 1) if found.kind in SELDOM else self.retry
        return self.known.failures(key) <= most

    def _compute(
        self,
        done: ItemResult,
        row: str,
        reference: Reference,
        pixels: np.ndarray,
        file: Path | None,
        names: Collection[str],
    ) -> dict[str, Score]:
        """Scores of a row by these metrics; those that wait for answers are asked first, collected last.

        What a metric raises is the reason of its own score alone. One that stops the run leaves `stopped`,
        and has no score.
        """

        def say(metric: Metric) -> tuple[Score | None, str, str]:
            """(score, traceback, why the run stops)."""
            about: dict[str, Any] = {"item": done.outcome.item.id, "row": row, "metric": metric.name}
            with asking(reader=self.readers[metric.name], **about) as question:
                try:
                    found = score(metric, reference, pixels, file)
                except (RunStopped, AssetError) as error:
                    return None, "", str(error)
                except AnnotatorError as error:
                    kind = error.kind or question.failed or "answer"
                    found = Unscored(first_line(error), retry=True, kind=kind)
                except EditVerseError as error:
                    found = Unscored(first_line(error))
                except Exception as error:  # the metric's own fault: it is told, and loses it alone  # noqa: BLE001
                    told = f"{type(error).__name__}: {first_line(error)}"
                    return Unscored(told, retry=True, kind="error"), f"{about}\n{traceback.format_exc()}", ""
                if isinstance(found, Unscored) and found.retry:
                    question.reject()
                return found, "", ""

        chosen = [m for m in self.metrics if m.name in names]
        asked = {m.name: self.asking.submit(say, m) for m in chosen if getattr(m, "waits", False)}
        said = {m.name: say(m) for m in chosen if m.name not in asked}
        said |= {name: future.result() for name, future in asked.items()}
        done.tracebacks += [told for _, told, _ in said.values() if told]
        done.stopped = next((why for _, _, why in said.values() if why), done.stopped)
        return {name: found for name, (found, _, _) in said.items() if found is not None}

    def _videos(self, done: ItemResult, frames: Frames, results: dict[str, Result | Unscored]) -> None:
        """Small H.264 files of what was scored, for the page; even sides, as browsers need."""
        item, scored = done.outcome.item, done.outcome.geometries
        beside = next(iter(done.outcome.sources.values()), None)
        source = frames if beside is None or not item.fault else Frames(item, beside, self.mode)
        usable = source.native and SOURCE not in scored and not (item.fault and beside is None)
        shown_too = {SOURCE: source.native} if usable and source.native else {}
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
                try:
                    pixels = shown(row, source.reference(geometry), result, self.mode)
                except (EditVerseError, ValueError, OSError) as error:  # of a row that is shown, not scored
                    done.outcome.notes[row] = [f"is not on the page: {first_line(error)}"]
                    continue
                write_video(path, resize(pixels, even), geometry.fps, crf=PAGE_CRF)
                write_poster(path, pixels[0])
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
