"""Edits made when they are asked for, each kept under the hash of what it depends on.

An edit is a lossless .mkv of the frames that an editor gave, or the file that a program or a server wrote,
to the byte; beside it lies a JSON file with its hash, its size, and what it took. Both appear whole or not at
all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from benchmark.core.item import BenchmarkError, Geometry, Item, Loaded, RunStopped, Unscored
from benchmark.core.media import geometry_of, reading_mode
from benchmark.core.score_cache import address
from benchmark.systems.memory import Meter
from benchmark.systems.results_folder import Result
from shards.errors import EditVerseError, first_line
from shards.files import DISK_FAULTS, atomic_path, inside, sha256_of, write_json
from shards.limits import read_json
from shards.media import write_lossless

MAX_RESULT_BYTES = 1 << 30  # of a finished file
NOT_MADE = "no edit was made: the run stopped before"
VERSION = 4  # raise when what is stored for the same editor, item and settings changes


@dataclass(frozen=True)
class MediaFile:
    """A finished video or picture: its bytes, and its name's suffix."""

    data: bytes
    suffix: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """A file's; BenchmarkError for one of more than `MAX_RESULT_BYTES`."""
        if path.stat().st_size > MAX_RESULT_BYTES:
            raise BenchmarkError(f"{path.name}: {path.stat().st_size} bytes, {MAX_RESULT_BYTES} are read")
        return cls(path.read_bytes(), path.suffix.lower())


@dataclass(frozen=True)
class Edited:
    """What an editor made of an item.

    Attributes:
        content: by slot (an editor's name for one of its results), frames uint8 RGB [T, H, W, 3], or a
            finished file, which is kept to the byte.
        fps: frames per second of frames, and of a picture's file.
        peak_bytes: the most memory that it took, where the editor knows better than the process that asked; 0
            where nobody can know.
    """

    content: Mapping[str, np.ndarray | MediaFile]
    fps: float
    peak_bytes: int | None = None


class ItemEditor(Protocol):
    """What makes edits: a checkpoint of this project, a pipeline of diffusers, a program, a server."""

    def depends(self, item: Item) -> list[Any]:
        """JSON values that its edit of this item depends on, the item's media and words included."""
        ...

    def edit(self, item: Item, loaded: Loaded) -> Edited:
        """Edit an item.

        Raises:
            RunStopped: no item can be edited: what the editor needs is missing.
            ValueError, RuntimeError, OSError, TypeError: this one cannot; the message says why.
        """
        ...

    def release(self) -> None:
        """Give memory back: other editors and networks come next."""
        ...


class CachedEdits:
    """An editor's results, kept in `folder`; a `System`.

    A failure is kept beside the edits too, with how often there was one: every row and metric of a run hears
    of it, and a later run makes the edit anew only so many times.

    Args:
        folder: of all edits of a run, whoever made them.
        editor: is asked by `make`.
        rows: of the table, each with the slot of `Edited.content` that it shows.
    """

    def __init__(self, folder: Path, editor: ItemEditor, rows: Mapping[str, str]) -> None:
        self.folder, self.editor, self.slots = folder, editor, dict(rows)
        self.rows, self.mode = list(rows), reading_mode()
        self._whole: dict[Path, Result] = {}  # by facts: a run asks twice, and a hash reads all of a file

    def result(self, item: Item, load: Callable[[], Loaded]) -> Result | Unscored:
        """The stored edit or the stored failure; where neither is there, what `load` raises or `NOT_MADE`."""
        if item.fault:
            return Unscored(item.fault)
        if found := self.stored(item) or self.failure(item):
            return found
        load()  # a source that cannot be read is why nothing was made
        return Unscored(NOT_MADE, retry=True)

    def stored(self, item: Item) -> Result | None:
        """The edit of an item when it is stored and its files are what was written.

        Raises BenchmarkError for facts that are damaged.
        """
        facts_path = self._facts_path(item)
        if not facts_path.is_file():
            return None
        if facts_path in self._whole:
            return self._whole[facts_path]
        try:
            facts = read_json(facts_path)
            named = facts["files"]
            files = {
                row: (inside(self.folder, named[slot][0]), str(named[slot][1]))
                for row, slot in self.slots.items()
            }
            geometry, seconds = Geometry(**facts["geometry"]), float(facts["seconds"])
            peak = facts.get("peak_bytes")
            peak = None if peak is None else int(peak)
        except (
            EditVerseError,
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            IndexError,
        ) as error:
            raise BenchmarkError(
                f"{facts_path}: damaged ({first_line(error)}); delete it, the edit is then made again"
            ) from error
        if any(not path.is_file() or sha256_of(path) != digest for path, digest in files.values()):
            return None
        found = Result(files, self._seen(files, geometry), seconds, peak_bytes=peak)
        self._whole[facts_path] = found
        return found

    def failure(self, item: Item) -> Unscored | None:
        """Why the edit could not be made, where that was tried; BenchmarkError where that is damaged."""
        reason, _ = self._failed(item)
        return Unscored(reason, retry=True, kind="edit") if reason else None

    def failures(self, item: Item) -> int:
        """How often the edit failed, over all runs of the folder; BenchmarkError where that is damaged."""
        return self._failed(item)[1]

    def _failed(self, item: Item) -> tuple[str, int]:
        path = self._failure_path(item)
        if not path.is_file():
            return "", 0
        try:
            held = read_json(path)
            return str(held["reason"]), int(held.get("failures", 1))  # a run of before did not count
        except (EditVerseError, OSError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise BenchmarkError(f"{path}: damaged ({first_line(error)}); delete it") from error

    def make(self, item: Item, load: Callable[[], Loaded]) -> Result | Unscored:
        """Edit an item and store the result; a fault of this edit is the reason that comes back.

        Raises RunStopped, BenchmarkError for a source that cannot be read, OSError for a disk that is full.
        """
        facts_path = self._facts_path(item)
        loaded = load()
        try:
            begin = time.perf_counter()
            with Meter() as meter:
                edited = self.editor.edit(item, loaded)
            seconds = time.perf_counter() - begin
            files, geometry = {}, None
            for slot in dict.fromkeys(self.slots.values()):
                path = self._keep(facts_path, slot, edited)
                files[slot] = [path.name, sha256_of(path)]
                geometry = geometry or geometry_of(path, edited.fps)
            assert geometry is not None  # there is a row
        except RunStopped:
            raise
        except (ValueError, RuntimeError, OSError, TypeError) as error:
            if isinstance(error, OSError) and error.errno in DISK_FAULTS:
                raise  # no fault of this edit
            kind = "" if isinstance(error, EditVerseError) else f"{type(error).__name__}: "
            reason = f"the edit failed: {kind}{first_line(error)[:600]}"
            failures = self.failures(item) + 1
            write_json(self._failure_path(item), {"item": item.id, "reason": reason, "failures": failures})
            return Unscored(reason, retry=True, kind="edit")
        peak = edited.peak_bytes if edited.peak_bytes is not None else meter.peak_bytes
        facts = {
            "item": item.id,
            "files": files,
            "geometry": asdict(geometry),
            "seconds": seconds,
            "peak_bytes": peak or None,
        }
        write_json(facts_path, facts)
        self._failure_path(item).unlink(missing_ok=True)
        held = {row: (self.folder / files[slot][0], files[slot][1]) for row, slot in self.slots.items()}
        made = Result(held, self._seen(held, geometry), seconds, peak or None)
        self._whole[facts_path] = made
        return made

    def release(self) -> None:
        """Give the editor's memory back; what is missing is loaded again."""
        self.editor.release()

    def _seen(self, files: Mapping[str, tuple[Path, str]], geometry: Geometry) -> Geometry:
        """As the run's mode reads the file: a variable rate is read otherwise by the published programs."""
        path = next(iter(files.values()))[0]
        return geometry if path.suffix == ".mkv" else geometry_of(path, geometry.fps, self.mode)

    def _keep(self, facts_path: Path, slot: str, edited: Edited) -> Path:
        """Where a slot's result now lies whole."""
        made = edited.content[slot]
        if not isinstance(made, MediaFile):
            path = facts_path.with_suffix(f".{slot}.mkv")
            write_lossless(path, made, edited.fps)
            return path
        path = facts_path.with_suffix(f".{slot}{made.suffix}")
        with atomic_path(path) as temporary:
            temporary.write_bytes(made.data)
            try:  # what cannot be read is this edit's fault, and is not kept
                geometry_of(temporary, edited.fps)
            except ValueError as error:
                said = first_line(error).removeprefix(f"{temporary}: ")
                raise BenchmarkError(f"what came back cannot be read: {said}") from None
        return path

    def _facts_path(self, item: Item) -> Path:
        return self.folder / f"{address('edit', VERSION, *self.editor.depends(item))[:32]}.json"

    def _failure_path(self, item: Item) -> Path:
        return self._facts_path(item).with_suffix(".failed.json")
