"""The page: its parts joined to what happens when they are used; `model.app.server` serves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from model.app.files import FileStore
from model.app.listeners import Listeners
from model.app.mask import frame_at
from model.app.parts import (
    PICKED,
    instruction_parts,
    mask_parts,
    result_parts,
    setting_parts,
    thumbnails,
    upload_parts,
)
from model.app.service import EditService
from model.app.thumbnails import EXAMPLES, thumbnail_row

SHELF = (
    "Examples, rendered. Nano, the small editor that comes with this code, removes, recolours and marks "
    "simple objects in such scenes, with soft edges and some shadows left behind; it is no tool for real "
    "videos."
)
# On a phone what is told about a run is far below the button.
TO_STATUS = """(...values) => {
  if (innerWidth <= 768) document.querySelector("#status").scrollIntoView({ block: "center" });
  return values;
}"""
DRAWN = "(drawing, ...others) => [window.editverse.drawing(), ...others]"


def build_page(desk: EditService, store: FileStore) -> gr.Blocks:
    """The page, not served yet."""
    listeners = Listeners(desk, store)
    with gr.Blocks(title="EditVerse", analytics_enabled=False) as page:
        gr.Markdown("# EditVerse\nUpload, say what to do, and name the uploads by their tags.")
        with gr.Row():
            with gr.Column():
                examples = [(frame_at(example.path, 0), example.text) for example in EXAMPLES]
                shelf = thumbnails("examples", thumbnail_row(SHELF, examples))
                form, taken, text = instruction_parts()
                uploads, notes = upload_parts()
                mask = mask_parts()
                settings = setting_parts(desk.editor.config.inference)
            with gr.Column(elem_id="made"):
                result = result_parts()
        picked = gr.Number(visible=False, precision=0, minimum=0, label="Thumbnail")
        everything = [text, *uploads.values(), *settings]
        at_once(form.change, listeners.choose, form, [text, taken])
        ground = settings[4]
        at_once(shelf.click, listeners.example, picked, [text, *uploads.values(), ground], js=PICKED)
        # Of all events only a run goes through the queue. Its stream of messages ends with the last event
        # that is in it, and a run that is started in that moment would wait for ever: Gradio's page believes
        # the stream still open. It happened to those who pressed Run while an upload was being looked at.
        for name, upload in uploads.items():
            at_once(upload.upload, listeners.arrived(name), upload, notes[name])
        for part in (*uploads.values(), *settings):
            at_once(part.change, listeners.size, everything, result.size, trigger_mode="always_last")
        at_once(text.blur, listeners.size, everything, result.size, trigger_mode="always_last")
        pictures = [uploads["video1"], uploads["image1"]]
        at_once(mask.show.click, listeners.frame, [*pictures, mask.frame], [mask.pad, mask.frame])
        at_once(
            mask.use.click,
            listeners.draw,
            [mask.drawing, *pictures, mask.follow, text],
            [uploads["mask"], text, mask.note],
            js=DRAWN,
        )
        told = [result.status, result.timer]
        begun = at_once(result.run.click, listeners.begin, everything, told, js=TO_STATUS)
        running = begun.then(
            listeners.run,
            everything,
            [*result.shown, result.history],
            show_progress="hidden",
            api_visibility="private",
        )
        at_once(running.then, listeners.size, everything, result.size)
        at_once(result.timer.tick, listeners.status, None, told)
        at_once(result.stop.click, listeners.stop, None, result.shown[0], cancels=running)
        at_once(result.history.click, listeners.restore, picked, [*everything, *result.shown], js=PICKED)
        page.unload(listeners.leave)
    page.queue(max_size=desk.config.queue, default_concurrency_limit=1, api_open=False)
    listeners.page = page
    return page


def at_once(event: Callable[..., Any], listener: Callable[..., Any], *places: Any, **options: Any) -> Any:
    """Join a listener to an event past the queue; `places` are what it takes and what it fills."""
    return event(listener, *places, queue=False, show_progress="hidden", api_visibility="private", **options)
