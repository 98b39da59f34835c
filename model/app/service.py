"""What the page does with an upload: limits, one edit at a time, how far it is, files of the result.

No Gradio here; `model.app.server` is the page.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.app.estimate import Speed, estimate
from model.inference.edit import Edit
from model.inference.editor import Editor
from model.inference.inputs import IMAGE_SUFFIXES
from model.inference.instruction import check_instruction
from shards.errors import ConfigError, EditVerseError
from shards.media import iter_frames, probe, read_image, resize, write_image, write_video
from shards.video_writer import even_sides

MAX_TEXT = 4000  # characters of an instruction
PREVIEW_EVERY = 1.0  # seconds: as often as the page asks
PREVIEW_SHARE = 0.1  # of the time, at most


@dataclass(frozen=True)
class AppConfig:
    """Where the page is served and what it takes.

    Attributes:
        host: address to listen on.
        port: to listen on.
        queue: edits that may wait; more are refused.
        max_upload_mb: largest file, in megabytes.
        max_frames: longest video, in and out.
        max_stored_mb: uploads and results of all sessions together, in megabytes.
        allowed_hosts: names under which the page is served besides the loopback ones and `host`, such as a
            proxy's.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    queue: int = 8
    max_upload_mb: int = 200
    max_frames: int = 300
    max_stored_mb: int = 4000
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("port", "queue", "max_upload_mb", "max_frames", "max_stored_mb"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: needs at least 1, got {getattr(self, name)}")
        if self.port > 65535:
            raise ConfigError(f"port: must be at most 65535, got {self.port}")
        for host in self.allowed_hosts:
            if not re.fullmatch(r"[a-z0-9._-]+", host):
                raise ConfigError(
                    f"allowed_hosts: {host!r} is no host name; give it in lower case, without port or scheme"
                )


class RequestRejected(EditVerseError, ValueError):
    """An upload or a setting beyond this page's limits; the message is for the person at the page."""


class Stopped(Exception):
    """The person at the page pressed Stop, or left."""


@dataclass(frozen=True)
class EditOutput:
    """Files of a finished edit, and a line about it.

    `beside` has the source on its left, `split` pixels wide; `picture` is a frame of the result, uint8 RGB.
    """

    path: Path
    beside: Path | None
    split: int
    still: bool
    line: str
    picture: np.ndarray


@dataclass
class Job:
    """An edit under way.

    Attributes:
        stop: set when it has to end.
        steps: done, and all of them; zeros before the first.
        began: when it had the editor to itself (`time.monotonic`); None while it waits for that.
        preview: what the result looks like so far, uint8 RGB [H, W, 3]; None before the first.
        next_preview: when the next one is made (`time.monotonic`).
    """

    stop: threading.Event
    steps: tuple[int, int] = (0, 0)
    began: float | None = None
    preview: np.ndarray | None = None
    next_preview: float = 0.0

    def seconds_left(self) -> float | None:
        """By the steps done so far; None before the first."""
        done, total = self.steps
        if self.began is None or not done:
            return None
        return (time.monotonic() - self.began) / done * (total - done)


class EditService:
    """An editor that takes one job at a time, each of which can be stopped between two solver steps."""

    def __init__(self, editor: Editor, config: AppConfig):
        self.editor, self.config = editor, config
        self.speed = Speed()
        self._busy = threading.Lock()  # a stopped job may need another step to end: Gradio does not wait
        self._jobs: dict[str, Job] = {}

    def stop(self, session: str | None = None) -> bool:
        """Stop the job of a session, or all jobs; whether there was one."""
        jobs = [job for name, job in list(self._jobs.items()) if session in (None, name)]
        for job in jobs:
            job.stop.set()
        return bool(jobs)

    def job(self, session: str) -> Job | None:
        """The edit of a session that is under way, if any."""
        return self._jobs.get(session)

    def edit(
        self,
        session: str,
        text: str,
        media: dict[str, Path],
        folder: Path,
        progress: Callable[[int, int], None] = lambda done, total: None,
        seed: int = 0,
        frames: int | None = None,
        keep: float | None = None,
        **settings: Any,
    ) -> EditOutput:
        """Edit and write the result and the comparison into `folder`; `job` tells how far it is.

        Raises:
            RequestRejected, SequenceError, ConfigError, MediaError: with a message for people.
            Stopped: on `stop`.
        """
        check(media, frames, self.config)
        instruction = check_instruction(text, media)
        work = estimate(self.editor, instruction, media, frames, **settings).flops
        job = self._jobs[session] = Job(threading.Event())

        def tick(done: int, total: int) -> None:
            job.steps = done, total
            if job.stop.is_set():
                raise Stopped
            progress(done, total)

        def show(decode: Callable[[], np.ndarray]) -> None:
            now = time.monotonic()
            if now >= job.next_preview:
                job.preview = decode()
                took = time.monotonic() - now
                job.next_preview = now + max(PREVIEW_EVERY, took / PREVIEW_SHARE)

        try:
            with self._busy:
                if job.stop.is_set():
                    raise Stopped
                job.began = began = time.monotonic()
                told = {"progress": tick, "preview": show}
                chosen = {"seed": seed, "frames": frames, "keep": keep, **settings}
                result = self.editor(instruction, **told, **chosen, **media)
                took = time.monotonic() - began
            self.speed.add(work, took)
            if job.stop.is_set():
                raise Stopped
            made = f"{result.describe()} · seed {seed} · made in {took:.1f} s"
            path = folder / ("edit.png" if result.still else "edit.mp4")
            line = " · ".join(filter(None, (made, result.write_frames(path))))
            result.write_mask(path)  # whose place is nobody's business
            source = next(iter(instruction.sources), None)
            beside, split = write_side_by_side(media[source], result, folder) if source else (None, 0)
        finally:
            if self._jobs.get(session) is job:
                del self._jobs[session]
        picture = result.frames[len(result.frames) // 2]
        return EditOutput(path, beside, split, result.still, line, picture)


def check(media: dict[str, Path], frames: int | None, config: AppConfig) -> None:
    """Refuse what is too large or too long, before anything is decoded.

    Raises:
        RequestRejected: naming the file and the limit.
        MediaError: the file is no video.
    """
    if frames is not None and frames > config.max_frames:
        raise RequestRejected(f"frames: {frames} is too long, this page makes at most {config.max_frames}")

    for name, path in media.items():
        size = path.stat().st_size / 1e6
        if size > config.max_upload_mb:
            raise RequestRejected(
                f"{name}: {size:.0f} MB is too large, this page takes {config.max_upload_mb} MB"
            )
        if is_video(path):
            length = probe(path).frames
            if length > config.max_frames:
                raise RequestRejected(
                    f"{name}: {length} frames is too long, this page takes at most {config.max_frames}"
                )


def is_video(path: Path) -> bool:
    """Whether the editor reads the file as a video."""
    return path.suffix.lower() not in IMAGE_SUFFIXES


def write_side_by_side(source: Path, result: Edit, folder: Path) -> tuple[Path, int]:
    """Write the source and the result side by side, at the result's height; the file, and the source's width.

    One file and not two players: its halves cannot fall out of step, and it can be kept.
    """
    height = result.frames.shape[1]

    def fitted(rows: int, columns: int) -> tuple[int, int]:
        return height, 2 * max(1, round(columns * height / rows / 2))

    if is_video(source):
        info = probe(source)
        split = fitted(info.height, info.width)
        left = iter_frames(source, stop=len(result.frames), size=split)
    else:
        picture = read_image(source)
        split = fitted(*picture.shape[:2])
        left = iter([resize(picture, split)])
    pairs = (np.concatenate(pair, axis=1) for pair in zip(hold_last_frame(left), result.frames, strict=False))
    if result.still:
        write_image(path := folder / "side_by_side.png", next(pairs))
    else:
        write_video(path := folder / "side_by_side.mp4", map(even_sides, pairs), result.fps, exact=False)
    return path, split[1]


def hold_last_frame(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames, then the last one for ever."""
    frame = next(frames)
    yield frame
    for frame in frames:
        yield frame
    yield from itertools.repeat(frame)
