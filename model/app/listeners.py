"""What the page does when its parts are used, in Gradio.

Everything here runs behind `model.app.security`: values have the right types, paths are uploads of this
page.
"""

from __future__ import annotations

import html
import logging
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from model.app.client import API
from model.app.estimate import Estimate, duration, estimate
from model.app.files import FileStore
from model.app.mask import frame_at, overlay, propagate, read_drawing, with_mask
from model.app.parts import SLOTS
from model.app.run_queue import BEGINNING, active_runs, waiting_runs
from model.app.service import EditOutput, EditService, RequestRejected, Stopped, check, is_video
from model.app.thumbnails import EXAMPLES, Entry, History, data_address, thumbnail_row
from model.inference.templates import FORMS, Form
from model.sequence.interleave import SequenceError
from shards.errors import ConfigError, EditVerseError, first_line
from shards.media import MediaError, probe, resize, shrunk_size, write_image
from shards.video_writer import write_mask

LOG = logging.getLogger(__name__)
BY_NAME = {form.name: form for form in FORMS}
SHOWN = {"h264", "vp8", "vp9", "av1"}  # codecs that browsers play
PAD_SIDE = 640  # longer side of a frame that is drawn on, in pixels
MASK_SIDE = 1280  # longer side of a drawn mask, which is held in memory for all frames at once
MAX_ASKED = 1000  # sessions whose last click on Run is remembered


class Listeners:
    """The page's listeners; `page` is set once it is built."""

    page: gr.Blocks

    def __init__(self, desk: EditService, store: FileStore) -> None:
        self.desk, self.store = desk, store
        self.history = History()
        self._asked: dict[str, tuple[float, int]] = {}  # when a session pressed Run, and for how much work

    # Before a run.

    def choose(self, name: str | None) -> tuple[Any, Any]:
        """Fill the instruction with the example of a form."""
        if name is None:
            return gr.skip(), gr.update(visible=False)
        form = BY_NAME[name]
        return form.filled, gr.update(value=needs(form), visible=True)

    def example(self, index: int | None, request: gr.Request) -> list[Any]:
        """The instruction, the clip and the settings of an example; other uploads go."""
        if index is None or index >= len(EXAMPLES):
            return [gr.skip()] * (2 + len(SLOTS))
        chosen = EXAMPLES[index]
        folder = self.store.new_entry()
        with self.store.working(str(request.session_hash), [folder]):
            path = shutil.copy(chosen.path, folder)
        return [chosen.text, path, *[None] * (len(SLOTS) - 1), chosen.ground]

    def arrived(self, name: str) -> Callable[[str, gr.Request], Any]:
        """A listener that says at once what is wrong with the upload `name`, or what may surprise."""

        def check_upload(path: str, request: gr.Request) -> Any:
            media, note = {name: Path(path)}, ""
            with self.store.working(str(request.session_hash), media.values()):
                try:
                    check(media, None, self.desk.config)
                    if name.startswith("video") and probe(path).codec not in SHOWN:
                        note = f"{name} can be edited, though a browser may not be able to play it."
                except (RequestRejected, MediaError) as error:
                    note = f"<strong>{for_people(error, media)}</strong>"
            return gr.update(value=note, visible=bool(note))

        return check_upload

    def size(self, text: str, *values: Any) -> str:
        """What a run would take, as soon as there is something to edit; "" while that cannot be said."""
        work = self._estimate(text, values)
        if work is None:
            return ""
        return html.escape(f"Next: {work.describe(self.desk.speed.seconds(work.flops))}.")

    def _estimate(self, text: str, values: tuple[Any, ...]) -> Estimate | None:
        media = media_of(values)
        steps, guidance, _, frames, ground, *_ = values[len(SLOTS) :]
        if not media:
            return None
        try:
            check(media, frames or None, self.desk.config)
            return estimate(self.desk.editor, text, media, frames or None, int(steps), guidance, ground)
        except (EditVerseError, OSError):  # said where it is about: beside the upload, or by the run
            return None

    # A mask.

    def frame(self, video: str | None, image: str | None, index: int | None) -> tuple[Any, Any]:
        """A picture to draw on."""
        path = video or image
        if path is None:
            raise gr.Error("upload a video or an image first", print_exception=False)
        try:
            number = min(int(index or 0), probe(path).frames - 1) if is_video(Path(path)) else 0
            picture = frame_at(Path(path), number)
        except MediaError as error:
            raise gr.Error(for_people(error, {"video1": Path(path)}), print_exception=False) from None
        height, width = shrunk_size((picture.shape[0], picture.shape[1]), PAD_SIDE)
        shown = data_address(resize(picture, (height, width)))
        pad = (
            f'<div class="pad"><img alt="frame {number}" src="{shown}">'
            f'<canvas width="{width}" height="{height}" data-frame="{number}"></canvas></div>'
        )
        return gr.update(value=pad, visible=True), number

    def draw(
        self, drawing: str, video: str | None, image: str | None, follow: bool, text: str, request: gr.Request
    ) -> tuple[Any, Any, Any]:
        """Make the drawing the mask, and have the instruction name it."""
        path = Path(video or image or "")
        folder = self.store.new_entry()
        with self.store.working(str(request.session_hash), [folder]):
            try:
                if not video and not image:
                    raise RequestRejected("upload a video or an image first")
                check({"video1": path}, None, self.desk.config)
                made = read_drawing(drawing)
                picture = frame_at(path, made.frame)
                mask = made.render(*shrunk_size((picture.shape[0], picture.shape[1]), MASK_SIDE))
                if not mask.any():
                    raise RequestRejected("nothing is drawn yet: paint over what is to be changed")
                if video:
                    masks = propagate(path, mask, made.frame, follow)
                    file, places = folder / "drawn.mkv", sorted({0, len(masks) // 2, len(masks) - 1})
                    write_mask(file, masks, probe(path).fps)
                else:
                    masks, file, places = mask[None], folder / "drawn.png", [0]
                    write_image(file, (mask * 255).astype("uint8")[..., None].repeat(3, axis=-1))
            except (EditVerseError, OSError) as error:
                raise gr.Error(for_people(error, {"video1": path}), print_exception=False) from None
        strips = "".join(
            f'<img alt="frame {at}" src="{data_address(overlay(frame_at(path, at), masks[at]))}"> '
            for at in places
        )
        note = f"A mask of {masks.mean():.1%} of the picture; look whether it fits:<br>{strips}"
        sources = ["video1"] if video else ["image1"]
        return str(file), with_mask(text, sources), gr.update(value=note, visible=True)

    # A run.

    def begin(
        self,
        text: str,
        video1: str | None,
        video2: str | None,
        image1: str | None,
        image2: str | None,
        mask: str | None,
        steps: int,
        guidance: float,
        seed: int | None,
        frames: int | None,
        ground: bool,
        keeping: bool,
        keep: float,
        request: gr.Request,
    ) -> tuple[str, Any]:
        """Say that a run was asked for, and begin to tell how far it is."""
        files = (video1, video2, image1, image2, mask)
        work = self._estimate(text, (*files, steps, guidance, seed, frames, ground))
        self._asked[str(request.session_hash)] = (time.monotonic(), work.flops if work else 0)
        while len(self._asked) > MAX_ASKED:
            self._asked.pop(next(iter(self._asked)), None)
        return "Starting …", gr.Timer(active=True)

    def status(self, request: gr.Request) -> tuple[str, Any]:
        """How far the session's run is: who is before it, or its steps and what it looks like."""
        session = str(request.session_hash)
        waiting = [event.session_hash for event in waiting_runs(self.page)]
        if session in waiting:
            return self._waiting(waiting[: waiting.index(session)], session), gr.skip()
        job = self.desk.job(session)
        if job is not None and job.began is not None:
            done, total = job.steps
            left = job.seconds_left()
            words = f"Step {done} of {total}" if total else "Reading and encoding"
            words += "" if left is None else f", about {duration(left)} left" if left else ", writing"
            bar = f'<progress max="{max(1, total)}" value="{done}"></progress>'
            picture = ""
            if job.preview is not None:
                picture = f'<img alt="preview" src="{data_address(job.preview)}">'
            return f"{words}{bar}{picture}", gr.skip()
        asked, _ = self._asked.get(session, (0.0, 0))
        active = session in [event.session_hash for event in active_runs(self.page)]
        if active or job is not None or time.monotonic() - asked < BEGINNING:
            return "Starting …", gr.skip()
        self._asked.pop(session, None)
        return "", gr.Timer(active=False)

    def _waiting(self, before: list[str], session: str) -> str:
        """The place in the queue, and the time until the run begins and takes, as far as they are known."""
        running = [event.session_hash for event in active_runs(self.page)]
        times = [self._seconds(name) for name in (*running, *before)]
        for name in running:  # what is under way is part of it done
            job = self.desk.job(name)
            left = None if job is None else job.seconds_left()
            if left is not None:
                times[running.index(name)] = left
        words = f"{len(times)} before you"
        known = [seconds for seconds in times if seconds is not None]
        if times and len(known) == len(times):
            words += f", about {duration(sum(known))}"
        own = self._seconds(session)
        return words + ("" if own is None else f", then about {duration(own)} for yours")

    def _seconds(self, session: str) -> float | None:
        """How long a session's run takes in all."""
        work = self._asked.get(session, (0.0, 0))[1]
        return self.desk.speed.seconds(work) if work else None

    def run(
        self,
        text: str,
        video1: str | None,
        video2: str | None,
        image1: str | None,
        image2: str | None,
        mask: str | None,
        steps: int,
        guidance: float,
        seed: int | None,
        frames: int | None,
        ground: bool,
        keeping: bool,
        keep: float,
        request: gr.Request,
    ) -> list[Any]:
        """Edit, and show the result or what is wrong."""
        values = (video1, video2, image1, image2, mask)
        media, session = media_of(values), str(request.session_hash)
        folder = self.store.new_entry()
        with self.store.working(session, [*media.values(), folder]):
            try:
                made = self.desk.edit(
                    session,
                    text,
                    media,
                    folder,
                    seed=seed or 0,
                    frames=frames or None,
                    steps=steps,
                    guidance=guidance,
                    ground=ground,
                    keep=keep if keeping else None,
                )
            except Stopped:
                return [gr.skip()] * 6
            except (RequestRejected, SequenceError, ConfigError, MediaError) as error:
                raise gr.Error(for_people(error, media), print_exception=False) from None
            except Exception as error:
                LOG.exception("the edit failed")
                problem = first_line(error)[:200]
                raise gr.Error(f"the edit failed: {html.escape(problem)}", print_exception=False) from None
        chosen = (steps, guidance, seed, frames, ground, keeping, keep)
        self.history.add(session, Entry((text, *values, *chosen), made))
        return [*shown_results(made), self._row(session)]

    def _row(self, session: str) -> Any:
        entries = self.history.entries(session)
        pictures = [(e.result.picture, f"seed {e.values[8] or 0} · {e.values[0]}") for e in entries]
        row = thumbnail_row("Made in this session; a click brings back its settings and result", pictures)
        return gr.update(value=row, visible=bool(row))

    def restore(self, index: int | None, request: gr.Request) -> list[Any]:
        """Text, uploads, settings and result of what was made before; uploads that are gone stay empty."""
        entries = self.history.entries(str(request.session_hash))
        if index is None or index >= len(entries):
            raise gr.Error("this result is no longer there", print_exception=False)
        text, *values = entries[index].values
        uploads = [path if path and Path(path).is_file() else None for path in values[: len(SLOTS)]]
        return [text, *uploads, *values[len(SLOTS) :], *shown_results(entries[index].result)]

    def stop(self, request: gr.Request) -> Any:
        """Stop the session's edit."""
        session = str(request.session_hash)
        waited = session in self._asked and self.desk.job(session) is None
        self._asked.pop(session, None)
        return "Stopped." if self.desk.stop(session) or waited else gr.skip()

    def leave(self, request: gr.Request) -> None:
        """Stop the session's edit and remove its files."""
        session = str(request.session_hash)
        self._asked.pop(session, None)
        self.desk.stop(session)
        self.history.end_session(session)
        self.store.end_session(session)


def media_of(values: tuple[Any, ...]) -> dict[str, Path]:
    """The uploads among values in the order of `SLOTS`."""
    return {name: Path(path) for name, path in zip(SLOTS, values, strict=False) if path}


def shown_results(made: EditOutput) -> list[Any]:
    """What the parts of `ResultParts.shown` show of an edit."""
    still = made.still
    return [
        made.line,
        gr.update(value=None if still else str(made.path), visible=not still),
        gr.update(value=str(made.path) if still else None, visible=still),
        gr.update(value=str(made.path), visible=True, label=f"Download {made.path.name}"),
        gr.update(value=wipe(made), visible=made.beside is not None),
    ]


def wipe(made: EditOutput) -> str:
    """Source and result under one another, for `static/wipe.js`; "" for what has no source."""
    if made.beside is None:
        return ""
    # beside the page's own address, wherever a proxy has put it
    address = html.escape(f"{API.lstrip('/')}/file={quote(str(made.beside))}")
    if made.still:
        media, button = f'<img class="media" alt="" src="{address}">', ""
    else:
        media = f'<video src="{address}" loop muted playsinline preload="auto"></video>'
        button = '<button type="button" data-action="play">Play</button>'
    return (
        '<p class="row-title">Source and result</p><div class="wipe">'
        f'<canvas data-split="{made.split}"></canvas>{media}<div class="tools">{button}'
        '<input type="range" min="0" max="1000" value="500" aria-label="Border between source and result">'
        f'<a href="{address}" download="{made.beside.name}">Side by side</a></div></div>'
    )


def needs(form: Form) -> str:
    """What a form takes and makes, as Markdown."""
    taken = [f"`<{name}>` {words}" for name, words in form.media.items()]
    return f"Takes {'; '.join(taken) or 'no media'}. Makes `<{form.target}>`."


def for_people(error: Exception, media: dict[str, Path]) -> str:
    """The message as HTML, with the uploads' names for their paths, and without a command's options."""
    message = re.sub(r" \((--\w+ FILE ?)+\)", "", str(error))
    for path in media.values():
        message = message.replace(str(path), path.name)
    return html.escape(message or type(error).__name__)
