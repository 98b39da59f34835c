"""One process of a run: files to clips, clips to candidates.

A worker never raises for a clip: one that fails comes back with its error and is quarantined. A fault of the
whole run (a full disk, a missing model) comes back as such, and the run stops.
"""

from __future__ import annotations

import contextlib
import errno
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from curation.core.cache import Workspace
from curation.core.outcome import Outcome
from curation.engine import watchdog
from curation.engine.task_config import TaskConfig, build, one_line
from curation.sources import clip_filter
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError
from shards.files import DISK_FAULTS, naming
from shards.hashing import digest
from shards.location import ShardError, StoreError
from shards.media import MediaError

RUN_FAULTS = DISK_FAULTS | {errno.EACCES, errno.EPERM}  # going on would only repeat them
ATTEMPTS = 3  # workers that one clip may kill


class Worker:
    """One process of the run: cuts files and processes clips, with the task's annotators loaded once."""

    def __init__(self, config: TaskConfig, workspace: str, folder: str, run: str) -> None:
        import cv2

        os.chdir(folder)  # paths in a config are relative to the folder of the command
        cv2.setNumThreads(1)
        cv2.ocl.setUseOpenCL(False)
        self.workspace, self.run = workspace, run
        self.root = Workspace(workspace).local
        with self._noted("loading", "the task's models"):
            self.task = build(config)

    def cut(self, file: str) -> list[Outcome]:
        """The clips of a file, as outcomes without candidates."""
        space, made = self._workspace(file), [Outcome(file)]
        mark = self._attempts("cut-" + digest(file))
        if self._deaths(mark) >= ATTEMPTS:
            return [Outcome(file, error=f"{file}: its worker died {ATTEMPTS} times; the file is left out")]

        def attempt() -> None:
            found = []
            for clip in self.task.units(file, space):
                stats = self.task.clip_stats(clip, space)
                reason = clip_filter.reason(stats, self.task.cut.screen) if stats else ""
                found.append(Outcome(file, clip, refused=reason, clip_stats=stats))
            made[:] = found

        with self._noted("reading", file):
            _guarded(attempt, made)
        mark.unlink(missing_ok=True)
        if made:
            made[0].work = space.work
        return made

    def process(self, outcome: Outcome) -> Outcome:
        """All candidates of a clip."""
        if outcome.clip is None or outcome.error or outcome.fault or outcome.refused:
            return outcome
        clip = outcome.clip
        unit = f"{outcome.file}, frames {clip.start} to {clip.stop}"
        space = self._workspace(unit)
        mark = self._attempts(clip.key)
        if self._deaths(mark) >= ATTEMPTS:
            return replace(
                outcome, error=f"{clip.source}: its worker died {ATTEMPTS} times; the clip is left out"
            )
        done = replace(outcome)

        def attempt() -> None:
            done.candidates = self.task.process(clip, space)

        with self._noted("editing", unit):
            _guarded(attempt, [done])
        mark.unlink(missing_ok=True)
        done.work = {**outcome.work, **space.work}
        return done

    def _attempts(self, key: str) -> Path:
        return attempts_of(self.root, self.run) / key

    def _workspace(self, unit: str) -> Workspace:
        """A workspace whose stages are noted for the watchdog, as being of a file or clip."""
        folder = attempts_of(self.root, self.run)
        return Workspace(self.workspace, begin=lambda stage: watchdog.note(folder, stage, unit))

    @contextlib.contextmanager
    def _noted(self, stage: str, unit: str) -> Iterator[None]:
        """Note for the watchdog what this process is at in the block."""
        folder = attempts_of(self.root, self.run)
        watchdog.note(folder, stage, unit)
        try:
            yield
        finally:
            watchdog.forget(folder)

    @staticmethod
    def _deaths(path: Path) -> int:
        """How many workers began this in this run and did not end it; counts this one.

        A worker that is killed can say nothing any more, so each leaves a byte before it begins, and whoever
        ends removes the file. Ray tries a file or clip again only when it has lost the worker before, so the
        bytes are deaths. Files of the same bytes share the marks of their clips: while two workers are at
        such a clip, one death too many may be counted, which `ATTEMPTS` has room for.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with naming(path), path.open("ab") as handle:
            handle.write(b".")
        return path.stat().st_size - 1


def _guarded(attempt: Callable[[], None], outcomes: list[Outcome]) -> None:
    """Run `attempt`; what it raises becomes the first outcome's error or fault.

    Nothing may be raised through Ray Data: it would end the run, or be tried again without end.
    """
    try:
        attempt()
    except AssetError as error:
        outcomes[0].fault = str(error)
    except StoreError as error:  # of the workspace, or of parents: every other clip would meet it
        outcomes[0].fault = str(error)
    except (MediaError, ShardError) as error:
        outcomes[0].error = str(error)
    except AnnotatorError as error:
        outcomes[0].error = f"{outcomes[0].file}: {error}"
    except OSError as error:
        reason = f"{error.filename or outcomes[0].file}: {error.strerror or error}"
        if error.errno in RUN_FAULTS:
            outcomes[0].fault = reason
        else:
            outcomes[0].error = reason
    except Exception as error:  # recorded: the clip goes to quarantine with this reason  # noqa: BLE001
        what = f"{type(error).__name__}: {one_line(error)} ({place_of(error)})"
        outcomes[0].error = f"{outcomes[0].file}: {what}"


def place_of(error: Exception) -> str:
    """File and line of the innermost frame that is not an installed package's: a new task's own, mostly."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"


def attempts_of(root: Path, run: str) -> Path:
    """Where the workers of a run mark what they begin."""
    return root / "attempts" / run
