"""The page's parts and what happens when they are used, in Gradio; `model.app.server` serves it.

Everything here runs behind `model.app.security`: values have the right types, paths are uploads of this
page.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from model.app.files import FileStore
from model.app.service import MAX_TEXT, EditOutput, EditService, RequestRejected, Stopped, check
from model.config import InferenceConfig
from model.inference.templates import FORMS, Form
from model.sequence.interleave import SequenceError
from shards.errors import ConfigError, first_line
from shards.media import MediaError, probe

LOG = logging.getLogger(__name__)
BY_NAME = {form.name: form for form in FORMS}
SLOTS = {
    "video1": "Video 1 · <video1>",
    "video2": "Video 2 · <video2>",
    "image1": "Image 1 · <image1>",
    "image2": "Image 2 · <image2>",
    "mask": "Mask · <mask>",
}
SHOWN = {"h264", "vp8", "vp9", "av1"}  # codecs that browsers play
INSERT = """(text) => {
  const box = document.querySelector("#instruction textarea"), at = box.selectionEnd;
  const before = text.slice(0, at), after = text.slice(at), tag = "TAG";
  const head = before + (/\\S$/.test(before) ? " " : "") + tag + (/^\\s/.test(after) ? "" : " ");
  setTimeout(() => { box.focus(); box.setSelectionRange(head.length, head.length); }, 50);
  return head + after;
}"""
CSS = """
footer, [aria-label="Trim video to selection"] { display: none !important; }
#made { position: sticky; top: 16px; align-self: start; }
#made video, #made img { max-height: 420px; }
#line .pending { visibility: hidden; }
#line .progress-text { inset: auto 8px 4px auto; transform: none; }
#mask .download { display: none; }
"""


def build_page(desk: EditService, store: FileStore) -> gr.Blocks:
    """The page, not served yet."""
    listeners = Listeners(desk, store)
    with gr.Blocks(title="EditVerse", analytics_enabled=False) as page:
        gr.Markdown("# EditVerse\nUpload, say what to do, and name the uploads by their tags.")
        with gr.Row():
            with gr.Column():
                form, taken, text = instruction_parts()
                uploads, notes = upload_parts()
                settings = setting_parts(desk.editor.config.inference)
            with gr.Column(elem_id="made"):
                start, halt, *results = result_parts()
        form.change(
            listeners.choose,
            form,
            [text, taken],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        # Of all events only a run goes through the queue. Its stream of messages ends with the last event
        # that is in it, and a run that is started in that moment would wait for ever: Gradio's page believes
        # the stream still open. It happened to those who pressed Run while an upload was being looked at.
        for name, upload in uploads.items():
            upload.upload(
                listeners.arrived(name),
                upload,
                notes[name],
                queue=False,
                show_progress="hidden",
                api_visibility="private",
            )
        line = results[0]
        running = start.click(
            listeners.run,
            [text, *uploads.values(), *settings],
            results,
            show_progress_on=line,
            api_visibility="private",
        )
        halt.click(
            listeners.stop,
            None,
            line,
            queue=False,
            cancels=running,
            show_progress="hidden",
            api_visibility="private",
        )
        page.unload(listeners.leave)
    page.queue(max_size=desk.config.queue, default_concurrency_limit=1, api_open=False)
    return page


def instruction_parts() -> tuple[gr.Dropdown, gr.Markdown, gr.Textbox]:
    """A choice of forms, what the chosen one takes, and the text with a button per tag."""
    form = gr.Dropdown(
        list(BY_NAME),
        value=None,
        label="Start from a task",
        info="Fills the instruction with an example.",
    )
    taken = gr.Markdown(visible=False)
    text = gr.Textbox(
        label="Instruction",
        lines=3,
        max_length=MAX_TEXT,
        placeholder="<video1> Remove the person in the dark coat.",
        elem_id="instruction",
    )
    with gr.Row():
        for name in SLOTS:
            gr.Button(f"<{name}>", size="sm", min_width=60).click(
                None, text, text, js=INSERT.replace("TAG", f"<{name}>"), api_visibility="private"
            )
    return form, taken, text


def upload_parts() -> tuple[dict[str, gr.Video | gr.Image | gr.File], dict[str, gr.HTML]]:
    """One upload per name of `SLOTS`, in its order; and a note about each, hidden at first."""
    uploads: dict[str, gr.Video | gr.Image | gr.File] = {}
    with gr.Row():
        for name in ("video1", "video2"):
            uploads[name] = gr.Video(label=SLOTS[name], sources=["upload"], height=170, elem_id=name)
    with gr.Row():
        for name in ("image1", "image2"):
            uploads[name] = gr.Image(
                label=SLOTS[name],
                sources=["upload"],
                type="filepath",
                height=170,
                min_width=120,
                elem_id=name,
            )
            # the editor reads the file as it is, and says what is wrong with it
            uploads[name].preprocess = lambda payload: payload and payload.path  # type: ignore[method-assign]
        uploads["mask"] = gr.File(
            label=SLOTS["mask"],
            file_types=["video", "image", ".mkv"],
            height=170,
            min_width=120,
            elem_id="mask",
        )
    return uploads, {name: gr.HTML(visible=False) for name in SLOTS}


def setting_parts(defaults: InferenceConfig) -> list[gr.Slider | gr.Number | gr.Checkbox]:
    """Steps, guidance, seed, frames and whether to find the region first, as `Listeners.run` takes them."""
    with gr.Accordion("Settings", open=False):
        with gr.Row():
            steps = gr.Slider(1, max(100, defaults.steps), defaults.steps, step=1, label="Steps")
            guidance = gr.Slider(1, max(15, defaults.guidance), defaults.guidance, step=0.1, label="Guidance")
        with gr.Row():
            seed = gr.Number(0, precision=0, label="Seed", info="The same again, or another.")
            frames = gr.Number(0, precision=0, label="Frames", info="0: the video's, or the default.")
        ground = gr.Checkbox(
            False,
            label="Find the region first",
            info="The model marks what the words are about, then edits there.",
        )
    return [steps, guidance, seed, frames, ground]


def result_parts() -> list[Any]:
    """Run and Stop, then what `shown_results` fills."""
    with gr.Row():
        start = gr.Button("Run", variant="primary", elem_id="run")
        halt = gr.Button("Stop", elem_id="stop")
    line = gr.Markdown("The result appears here.", elem_id="line", container=True, min_height=90)
    video = gr.Video(label="Result", interactive=False, visible=False, loop=True, buttons=[])
    image = gr.Image(label="Result", interactive=False, visible=False, buttons=["fullscreen"])
    download = gr.DownloadButton("Download", visible=False, elem_id="download")
    video_beside = gr.Video(
        label="Source and result", interactive=False, visible=False, loop=True, buttons=["download"]
    )
    image_beside = gr.Image(
        label="Source and result", interactive=False, visible=False, buttons=["download", "fullscreen"]
    )
    return [start, halt, line, video, image, download, video_beside, image_beside]


class Listeners:
    """What the page does when its parts are used."""

    def __init__(self, desk: EditService, store: FileStore) -> None:
        self.desk, self.store = desk, store

    def choose(self, name: str | None) -> tuple[Any, Any]:
        """Fill the instruction with the example of a form."""
        if name is None:
            return gr.skip(), gr.update(visible=False)
        form = BY_NAME[name]
        return form.filled, gr.update(value=needs(form), visible=True)

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
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008 (how gradio finds it)
    ) -> list[Any]:
        """Edit, and show the result or what is wrong."""
        files = zip(SLOTS, (video1, video2, image1, image2, mask), strict=True)
        media = {name: Path(path) for name, path in files if path}
        session = str(request.session_hash)
        folder = self.store.new_entry()
        with self.store.working(session, [*media.values(), folder]):
            try:
                made = self.desk.edit(
                    session,
                    text,
                    media,
                    folder,
                    lambda done, total: progress(done / total, desc=f"{done} of {total} steps"),
                    seed=seed or 0,
                    frames=frames or None,
                    steps=steps,
                    guidance=guidance,
                    ground=ground,
                )
            except Stopped:
                return [gr.skip()] * 6
            except (RequestRejected, SequenceError, ConfigError, MediaError) as error:
                raise gr.Error(for_people(error, media), print_exception=False) from None
            except Exception as error:
                LOG.exception("the edit failed")
                problem = first_line(error)[:200]
                raise gr.Error(f"the edit failed: {html.escape(problem)}", print_exception=False) from None
        return shown_results(made)

    def stop(self, request: gr.Request) -> Any:
        """Stop the session's edit."""
        return "Stopped." if self.desk.stop(str(request.session_hash)) else gr.skip()

    def leave(self, request: gr.Request) -> None:
        """Stop the session's edit and remove its files."""
        session = str(request.session_hash)
        self.desk.stop(session)
        self.store.end_session(session)


def shown_results(made: EditOutput) -> list[Any]:
    """What the parts of `result_parts` show of an edit."""

    def shown(path: Path | None, wanted: bool) -> Any:
        show = wanted and path is not None
        return gr.update(value=str(path) if show else None, visible=show)

    return [
        made.line,
        shown(made.path, not made.still),
        shown(made.path, made.still),
        gr.update(value=str(made.path), visible=True, label=f"Download {made.path.name}"),
        shown(made.beside, not made.still),
        shown(made.beside, made.still),
    ]


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
