"""One process of a run: files to clips, and clips through the stages of a task.

A worker never raises for a clip: one that fails comes back with its error and is quarantined. A fault of the
whole run (a full disk, a missing model) comes back as such, and the run stops.
"""

from __future__ import annotations

import contextlib
import errno
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from curation.core.cache import Workspace
from curation.core.outcome import Outcome
from curation.core.stage import Stage
from curation.engine import watchdog
from curation.engine.memory import out_of_memory
from curation.engine.task_config import TaskConfig, build, one_line
from curation.sources import clip_filter
from curation.sources.clips import Clip
from curation.vlm.errors import AssetError, is_out_of_memory
from curation.vlm.interface import AnnotatorError
from shards.files import DISK_FAULTS
from shards.location import ShardError, StoreError
from shards.media import MediaError

RUN_FAULTS = DISK_FAULTS | {errno.EACCES, errno.EPERM}  # going on would only repeat them
ATTEMPTS = 3  # processes that one clip may kill
CUT, SCREEN = "cut", "screen"  # the stages before a task's own


@dataclass(frozen=True)
class Job:
    """What a process needs to know of a run.

    Attributes:
        workspace: path or URL; folder: of the command, which paths in the config are relative to.
        run: a name that no other run has.
    """

    config: TaskConfig
    workspace: str
    folder: str
    run: str

    @property
    def root(self) -> Path:
        """Where results lie on this machine."""
        return Workspace(self.workspace).local

    @property
    def notes(self) -> Path:
        """Where the processes of the run note what they are at."""
        return self.root / "attempts" / self.run


class Worker:
    """One process of the run: cuts files, takes clips through stages; models load at their first use."""

    def __init__(self, job: Job) -> None:
        import cv2

        os.chdir(job.folder)
        cv2.setNumThreads(1)
        cv2.ocl.setUseOpenCL(False)
        self.job = job
        with self._noted("loading", "the task"):
            self.task = build(job.config)
        self.stages = {stage.name: stage for stage in self.task.graph}

    def step(self, stage: str, outcome: Outcome) -> list[Outcome]:
        """The outcomes of one stage, which are several where a file is cut."""
        if stage == CUT:
            return self.split(outcome.number[0], outcome.file) if outcome.clip is None else [outcome]
        return [self.screen(outcome) if stage == SCREEN else self.advance(stage, outcome)]

    def cut(self, number: int, file: str) -> list[Outcome]:
        """The clips of source `number`, screened; one outcome without a clip where there is none."""
        outcomes = self.split(number, file)
        return [self.screen(outcome) for outcome in outcomes]

    def split(self, number: int, file: str) -> list[Outcome]:
        """The clips of source `number`, which nobody has looked at."""
        space, made = self._workspace(file), [Outcome(file, number=(number, 0))]

        def attempt() -> None:
            clips = self.task.units(file, space)
            made[:] = [
                Outcome(file, clip, number=(number, place), siblings=len(clips))
                for place, clip in enumerate(clips)
            ] or made

        with self._noted(CUT, file):
            guarded(attempt, made)
        made[0].work = space.work
        return made

    def screen(self, outcome: Outcome) -> Outcome:
        """The outcome with what the clip filter says of its clip."""
        if outcome.clip is None or not outcome.goes_on:
            return outcome
        clip, done, unit = outcome.clip, replace(outcome), unit_of(outcome)
        space = self._workspace(unit)

        def attempt() -> None:
            stats = self.task.clip_stats(clip, space)
            done.clip_stats = stats
            done.refused = clip_filter.reason(stats, self.task.cut.screen) if stats else ""

        with self._noted(SCREEN, unit):
            guarded(attempt, [done])
        done.work = {**outcome.work, **space.work}
        return done

    def finish(self, outcome: Outcome) -> Outcome:
        """The outcome after all stages of the task."""
        for stage in self.stages:
            outcome = self.advance(stage, outcome)
        return outcome

    def advance(self, stage: str, outcome: Outcome) -> Outcome:
        """The outcome after one more stage of the task."""
        if outcome.clip is None or not outcome.goes_on:
            return outcome
        clip, unit = outcome.clip, unit_of(outcome)
        space = self._workspace(unit)
        done = replace(outcome, items=list(outcome.items), candidates=list(outcome.candidates))
        first = stage == next(iter(self.stages))

        def attempt() -> None:
            self._advance(stage, clip, done, space, first)

        with self._noted(stage, unit):
            guarded(attempt, [done], self.stages[stage])
        done.work = {**outcome.work, **space.work}
        return done

    def _advance(self, stage: str, clip: Clip, done: Outcome, space: Workspace, first: bool) -> None:
        if first:
            done.items = self.task.start(clip)
        self.task.advance(self.stages[stage], done, space)

    def _workspace(self, unit: str) -> Workspace:
        """A workspace whose stages are noted for the watchdog, as being of a file or clip."""
        notes = self.job.notes
        return Workspace(self.job.workspace, begin=lambda stage: watchdog.note(notes, stage, unit))

    @contextlib.contextmanager
    def _noted(self, stage: str, unit: str) -> Iterator[None]:
        """Note for the watchdog what this process is at in the block."""
        watchdog.note(self.job.notes, stage, unit)
        try:
            yield
        finally:
            watchdog.forget(self.job.notes)


def unit_of(outcome: Outcome) -> str:
    """What a clip is called in a message."""
    clip = outcome.clip
    return outcome.file if clip is None else f"{outcome.file}, frames {clip.start} to {clip.stop}"


def given_up(outcome: Outcome, deaths: int) -> Outcome:
    """The outcome of a file or clip that killed every process which worked on it."""
    what = "file" if outcome.clip is None else "clip"
    return replace(
        outcome, error=f"{unit_of(outcome)}: its process died {deaths} times; the {what} is left out"
    )


def guarded(attempt: Callable[[], None], outcomes: list[Outcome], stage: Stage | None = None) -> None:
    """Run `attempt` of a stage; what it raises becomes the first outcome's error or fault.

    Nothing may be raised through an engine: it would end the run, or be tried again without end.
    """
    try:
        attempt()
    except Exception as error:  # recorded: the clip goes to quarantine with it, or the run ends  # noqa: BLE001
        if stage and is_out_of_memory(error) and not isinstance(error, MediaError | ShardError | OSError):
            outcomes[0].fault = out_of_memory(stage.name, stage.annotators, error)
        else:
            _record(error, outcomes[0])


def _record(error: Exception, outcome: Outcome) -> None:
    """Make an exception the outcome's error, or its fault where every other clip would meet it too."""
    if isinstance(error, AssetError | StoreError):  # a model, the workspace, parents
        outcome.fault = str(error)
    elif isinstance(error, MediaError | ShardError):
        outcome.error = str(error)
    elif isinstance(error, AnnotatorError):
        outcome.error = f"{outcome.file}: {error}"
    elif isinstance(error, OSError):
        reason = f"{error.filename or outcome.file}: {error.strerror or error}"
        if error.errno in RUN_FAULTS:
            outcome.fault = reason
        else:
            outcome.error = reason
    else:
        what = f"{type(error).__name__}: {one_line(error)} ({place_of(error)})"
        outcome.error = f"{outcome.file}: {what}"


def place_of(error: Exception) -> str:
    """File and line of the innermost frame that is not an installed package's: a new task's own, mostly."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
