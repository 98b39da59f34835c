"""What a service does with a request: its files, its line in the table, a bounded queue, and the pool."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model.serving.config import ServeConfig
from model.serving.metrics import Metrics
from model.serving.pool import WorkerPool
from model.serving.settings import EditSettings, check_files, check_text, suffix_of
from model.serving.store import OVER, EditRecord, EditStore, StoreError
from model.serving.work import EditorFacts, Outcome, Work, WorkerConfig
from shards.errors import EditVerseError, SettingError
from shards.files import exclusive

LOG = logging.getLogger(__name__)
EDITS, UPLOADS, STAGED = "edits", "uploads", "staged"  # folders
RETRY_SECONDS = 10  # when to come again where there was no room


class RequestRefused(EditVerseError):
    """A request that is not served; `status` is HTTP's, `retry_after` seconds where coming again may help."""

    def __init__(self, status: int, line: str, retry_after: int | None = None) -> None:
        super().__init__(line)
        self.status, self.retry_after = status, retry_after


class EditQueue:
    """The edits of a service. One that was taken in is begun again after whatever ends the process.

    May be used from several threads. `open` it before use.
    """

    def __init__(self, config: ServeConfig, workers: WorkerConfig) -> None:
        self.config, self.folder = config, config.out
        self.metrics = Metrics()
        self.pool = WorkerPool(workers, self, edit_timeout=config.edit_timeout)
        self.is_draining = False
        self._progress: dict[str, tuple[int, int]] = {}
        self._submitted: dict[str, float] = {}
        self._unwritten: dict[str, dict[str, Any]] = {}  # what the table could not be told
        self._room = threading.Lock()
        self._reserved = 0
        self._submitting = threading.Lock()

    @contextlib.contextmanager
    def open(self) -> Iterator[EditorFacts]:
        """Load the editor, go on with what was left, and sweep old files, while the block runs.

        Raises:
            InUseError: another server uses the folder.
            StoreError: its table cannot be used.
            ConfigError: the editor cannot be loaded.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what people send is nobody else's
        with exclusive(self.folder, "--out"):
            shutil.rmtree(self.folder / STAGED, ignore_errors=True)
            for name in (EDITS, UPLOADS, STAGED):
                (self.folder / name).mkdir(exist_ok=True)
            self.store = EditStore(self.folder)
            left = self.store.by_state("running", "queued")
            ended = threading.Event()
            sweeper = threading.Thread(target=self._sweep_often, args=(ended,), daemon=True)
            try:
                facts = self.pool.start()
                for record in left:
                    self.store.change(record.id, state="queued", started=None)
                    self.pool.submit(self._work(record))
                if left:
                    LOG.warning("%s: goes on with %d edits that were left", self.folder, len(left))
                sweeper.start()
                yield facts
            finally:
                ended.set()
                self.pool.close()
                self.store.close()

    # Requests.

    @contextlib.contextmanager
    def staging(self, num_bytes: int) -> Iterator[Path]:
        """A folder for files that arrive, with room for so many bytes; what is left in it goes afterwards.

        Raises:
            RequestRefused: there is no room (507), or nothing new is taken in any more (503).
        """
        self.check_ending()
        with self._room:
            if not self._make_room(num_bytes):
                line = f"{self.config.max_stored_mb} MB are kept at most, and no result can go to make room"
                raise RequestRefused(507, line, RETRY_SECONDS)
            self._reserved += num_bytes
        folder = self.folder / STAGED / secrets.token_hex(16)
        folder.mkdir()
        try:
            yield folder
        finally:
            with self._room:
                self._reserved -= num_bytes
            shutil.rmtree(folder, ignore_errors=True)

    def check_ending(self) -> None:
        """Raise RequestRefused (503) when nothing new is taken in any more."""
        if self.is_draining:
            raise RequestRefused(503, "the service is about to end; come again", RETRY_SECONDS)

    def check_open(self) -> None:
        """Raise RequestRefused where no edit is taken in: at the end (503), or with a full queue (429)."""
        self.check_ending()
        if self.pool.num_waiting >= self.config.queue:
            line = f"{self.config.queue} edits wait already, and no more are taken in; come again"
            raise RequestRefused(429, line, RETRY_SECONDS)

    def add_upload(self, owner: str, file: Path, name: str) -> tuple[str, float]:
        """Take in a staged file, of which several edits may be made; its id, and the time in seconds."""
        id, created = secrets.token_urlsafe(16), time.time()
        kept = f"file{suffix_of(file, name)}"
        (self.folder / UPLOADS / id).mkdir()
        file.rename(self.folder / UPLOADS / id / kept)
        self.store.add_upload(id, owner, kept, created)
        return id, created

    def upload(self, owner: str, id: str) -> Path:
        """The file of an upload.

        Raises:
            RequestRefused: there is none of this owner's (422).
        """
        name = self.store.upload(id, owner)
        if name is None:
            raise RequestRefused(422, f"media: there is no upload {id[:40]!r}; it may have been too old")
        return self.folder / UPLOADS / id / name

    def submit(
        self, owner: str, text: str, files: Mapping[str, tuple[Path, str]], settings: EditSettings
    ) -> EditRecord:
        """Check an edit and put it behind the others.

        Args:
            files: staged files or uploads with the names they came with, by the names of their tags.

        Raises:
            RequestRefused: the queue is full (429), or nothing is taken in any more (503).
            EditVerseError: text, media and settings do not fit each other; the message names the field.
        """
        suffix = check_text(text, list(files), settings)
        id = secrets.token_urlsafe(16)
        folder = self.folder / EDITS / id
        folder.mkdir()
        try:
            kept = {}
            for name, (file, called) in files.items():
                kept[name] = folder / f"{name}{suffix_of(file, called)}"
                _link(file, kept[name])
            try:
                check_files(kept, settings, self.config.max_frames)
            except EditVerseError as error:
                raise SettingError(_without_folder(str(error), folder)) from None
            media = {name: file.name for name, file in kept.items()}
            record = EditRecord(
                id, owner, "queued", text, media, settings.keywords(), f"result{suffix}", time.time()
            )
            with self._submitting:  # no two take the last place
                self.check_open()
                self.store.add(record)
                self._submitted[id] = time.monotonic()
                self.pool.submit(self._work(record))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.metrics.count("editverse_edits_submitted_total", "Edits that were taken in.")
        return record

    def get(self, id: str, owner: str) -> EditRecord:
        """An edit of this owner's; RequestRefused (404) where there is none, or none any more."""
        record = self.store.get(id, owner)
        if record is None:
            hours = f"{self.config.keep_hours:g}"
            raise RequestRefused(404, f"there is no such edit; one that is over is kept for {hours} hours")
        return dataclasses.replace(record, **self._unwritten.get(id, {}))

    def cancel(self, id: str, owner: str) -> EditRecord:
        """Give an edit up, see `WorkerPool.cancel`; one that is over stays as it is."""
        self.get(id, owner)
        self.pool.cancel(id)
        return self.get(id, owner)

    def file(self, id: str, owner: str, mask: bool = False) -> Path:
        """The result of an edit, or the region that was edited.

        Raises:
            RequestRefused: no such edit, or it has no mask (404); it is not done (409).
        """
        record = self.get(id, owner)
        if record.state != "done":
            raise RequestRefused(
                409, f"the edit is {record.state}" + (f": {record.line}" * bool(record.line))
            )
        if mask and not record.has_mask:
            raise RequestRefused(404, "this edit has no mask: ask for one by the setting keep")
        work = self._work(record)
        return work.mask if mask else Path(work.out)

    def progress(self, record: EditRecord) -> tuple[int, int]:
        """Solver steps that are done and that there are of an edit; 0 of 0 before it begins."""
        return self._progress.get(record.id, (record.steps_done, record.steps_total))

    def gauges(self) -> dict[str, tuple[str, float]]:
        """What is now, for `Metrics.render`."""
        pool = self.pool
        return {
            "editverse_edits_waiting": ("Edits that no worker has begun.", pool.num_waiting),
            "editverse_edits_running": ("Edits that workers are at.", pool.num_running),
            "editverse_queue_limit": ("Edits that may wait.", self.config.queue),
            "editverse_workers": ("Worker processes.", len(pool.slots)),
            "editverse_workers_ready": ("Worker processes whose editor is loaded.", pool.num_ready),
            "editverse_worker_restarts": ("Times that a worker was started again.", pool.restarts),
            "editverse_stored_bytes": ("Uploads and results on disk.", self.stored_bytes()),
        }

    # What the pool says.

    def started(self, id: str) -> None:
        """See `Listener`."""
        self._write(id, state="running", started=time.time())
        submitted = self._submitted.pop(id, None)
        if submitted is not None:  # not begun before
            about = "Seconds that an edit waited for a worker."
            self.metrics.observe("editverse_wait_seconds", about, time.monotonic() - submitted)

    def progressed(self, id: str, done: int, total: int) -> None:
        """See `Listener`."""
        self._progress[id] = (done, total)

    def put_back(self, id: str, line: str) -> None:
        """See `Listener`."""
        self._progress.pop(id, None)
        self._write(id, state="queued", line=line, started=None)

    def finished(self, id: str, outcome: Outcome) -> None:
        """See `Listener`."""
        shutil.rmtree(self.folder / EDITS / id / "result.mp4.parts", ignore_errors=True)  # of one that failed
        line = _without_folder(outcome.line, self.folder / EDITS / id)
        done, total = self._progress.pop(id, (0, 0))
        self._write(
            id,
            state=outcome.state,
            steps_done=done,
            steps_total=total,
            line=line,
            seconds=outcome.seconds,
            has_mask=outcome.has_mask,
            finished=time.time(),
        )
        self.metrics.count("editverse_edits_total", "Edits that are over.", state=outcome.state)
        if outcome.state == "done":
            self.metrics.observe(
                "editverse_edit_seconds", "Seconds that a worker was at an edit.", outcome.seconds
            )
        self._submitted.pop(id, None)

    def _write(self, id: str, **values: Any) -> None:
        try:
            self.store.change(id, **values)
            self._unwritten.pop(id, None)
        except StoreError as error:  # a full disk, most likely
            self._unwritten[id] = self._unwritten.get(id, {}) | values
            LOG.error("edit %s is %s, but %s", id, values["state"], error)

    def _work(self, record: EditRecord) -> Work:
        folder = self.folder / EDITS / record.id
        media = {name: str(folder / file) for name, file in record.media.items()}
        return Work(record.id, record.text, media, record.settings, str(folder / record.result))

    # Room.

    def stored_bytes(self) -> int:
        """Bytes of uploads and edits."""
        total = 0
        for parent, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # another thread removes files
                    facts = Path(parent, name).lstat()
                    total += facts.st_size // facts.st_nlink
        return total

    def _make_room(self, num_bytes: int) -> bool:
        """Remove the oldest results until so many bytes fit beside what is kept; whether they do."""
        room = self.config.max_stored_mb * 10**6 - self._reserved - num_bytes
        if self.stored_bytes() <= room:
            return True
        for record in sorted(self.store.by_state(*OVER), key=lambda record: record.finished or 0):
            self._remove(record)
            if self.stored_bytes() <= room:
                return True
        return False

    def _remove(self, record: EditRecord) -> None:
        self.store.remove(record.id)
        shutil.rmtree(self.folder / EDITS / record.id, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what was kept for `keep_hours`."""
        before = time.time() - 3600 * self.config.keep_hours
        for record in self.store.by_state(*OVER):
            if (record.finished or 0) < before:
                self._remove(record)
        for id in self.store.old_uploads(before):
            self.store.remove_upload(id)
            shutil.rmtree(self.folder / UPLOADS / id, ignore_errors=True)

    def _sweep_often(self, ended: threading.Event, every: float = 30.0) -> None:
        while not ended.wait(every):
            try:
                for id, values in list(self._unwritten.items()):
                    self._write(id, **values)
                self.sweep()
                with self._room:
                    self._make_room(0)
            except StoreError as error:
                LOG.error("old edits were not removed: %s", error)


def _without_folder(line: str, folder: Path) -> str:
    """A message without the path of this machine that it names."""
    return line.replace(f"{folder}/", "")


def _link(file: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system knows no such thing."""
    try:
        os.link(file, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EMLINK):
            raise
        shutil.copyfile(file, target)
