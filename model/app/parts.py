"""The page's parts, in Gradio; `model.app.page` joins them to what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from model.app.mask import MAX_DRAWING
from model.app.service import MAX_TEXT
from model.config import InferenceConfig
from model.inference.templates import FORMS

STATIC = Path(__file__).parent / "static"
CSS = (STATIC / "page.css").read_text()
SLOTS = {
    "video1": "Video 1 · <video1>",
    "video2": "Video 2 · <video2>",
    "image1": "Image 1 · <image1>",
    "image2": "Image 2 · <image2>",
    "mask": "Mask · <mask>",
}
INSERT = """(text) => {
  const box = document.querySelector("#instruction textarea"), at = box.selectionEnd;
  const before = text.slice(0, at), after = text.slice(at), tag = "TAG";
  const head = before + (/\\S$/.test(before) ? " " : "") + tag + (/^\\s/.test(after) ? "" : " ");
  setTimeout(() => { box.focus(); box.setSelectionRange(head.length, head.length); }, 50);
  return head + after;
}"""
DICE = "() => Math.floor(Math.random() * 2 ** 31)"
PAD = """<div class="tools">
<label>Brush <input type="range" data-brush min="2" max="60" value="14"></label>
<button type="button" data-action="erase" aria-pressed="false">Erase</button>
<button type="button" data-action="undo">Undo</button>
<button type="button" data-action="clear">Clear</button></div>${value}"""
PICKED = "() => window.editverse.picked"  # for the `click` of `thumbnails`
Upload = gr.Video | gr.Image | gr.File


def instruction_parts() -> tuple[gr.Dropdown, gr.Markdown, gr.Textbox]:
    """A choice of forms, what the chosen one takes, and the text with a button per tag."""
    form = gr.Dropdown(
        [form.name for form in FORMS],
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


def upload_parts() -> tuple[dict[str, Upload], dict[str, gr.HTML]]:
    """One upload per name of `SLOTS`, in its order; and a note about each, hidden at first."""
    uploads: dict[str, Upload] = {}
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


@dataclass(frozen=True)
class MaskParts:
    """Where a mask is drawn: the frame that is shown, the brush on it, what becomes of the drawing."""

    frame: gr.Number
    show: gr.Button
    pad: gr.HTML
    drawing: gr.Textbox
    follow: gr.Checkbox
    use: gr.Button
    note: gr.HTML


def mask_parts() -> MaskParts:
    """An accordion to draw a mask in."""
    with gr.Accordion("Draw a mask", open=False, elem_id="draw"):
        gr.Markdown("Show a frame of Video 1 (or Image 1) and paint over what is to be changed.")
        with gr.Row():
            frame = gr.Number(0, precision=0, minimum=0, label="Frame", info="0 is the first.")
            show = gr.Button("Show the frame", elem_id="show-frame")
        script = (STATIC / "pad.js").read_text()
        pad = gr.HTML("", html_template=PAD, js_on_load=script, elem_id="pad", visible=False)
        drawing = gr.Textbox(visible=False, max_length=MAX_DRAWING, label="Drawing")
        follow = gr.Checkbox(
            True,
            label="Follow the motion",
            info="Shifts, turns and scales as a whole, as what it covers does. Off: it stays in its place.",
        )
        use = gr.Button("Use as mask", elem_id="use-mask")
        note = gr.HTML(visible=False, elem_id="mask-note")
    return MaskParts(frame, show, pad, drawing, follow, use, note)


def setting_parts(defaults: InferenceConfig) -> list[gr.Slider | gr.Number | gr.Checkbox]:
    """Steps, guidance, seed, frames, whether to find the region, whether and how much to keep of the source.

    In the order in which `Listeners.run` takes them.
    """
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        with gr.Row():
            steps = gr.Slider(1, max(100, defaults.steps), defaults.steps, step=1, label="Steps")
            guidance = gr.Slider(1, max(15, defaults.guidance), defaults.guidance, step=0.1, label="Guidance")
        with gr.Row():
            seed = gr.Number(0, precision=0, label="Seed", info="The same again, or another.", elem_id="seed")
            dice = gr.Button("Random", elem_id="dice", min_width=80)
            frames = gr.Number(0, precision=0, label="Frames", info="0: the video's, or the default.")
        dice.click(None, None, seed, js=DICE, api_visibility="private")
        ground = gr.Checkbox(
            False,
            label="Find the region first",
            info="The model marks what the words are about, then edits there.",
        )
        with gr.Row():
            keeping = gr.Checkbox(
                False,
                label="Keep the source",
                info="Outside of the edit, by as much as the slider says; off: as the model does.",
                elem_id="keeping",
            )
            keep = gr.Slider(0, 1, 1, step=0.05, label="Keep", info="1: to the bit.")
    return [steps, guidance, seed, frames, ground, keeping, keep]


@dataclass(frozen=True)
class ResultParts:
    """Run and Stop, what is told about a run, and its result; `shown` is what an edit fills."""

    run: gr.Button
    stop: gr.Button
    size: gr.HTML
    status: gr.HTML
    timer: gr.Timer
    shown: list[gr.Markdown | gr.Video | gr.Image | gr.DownloadButton | gr.HTML]
    history: gr.HTML


def result_parts() -> ResultParts:
    """The column of the result."""
    with gr.Row(elem_id="actions"):
        run = gr.Button("Run", variant="primary", elem_id="run")
        stop = gr.Button("Stop", elem_id="stop")
    size = gr.HTML("", elem_id="size")
    status = gr.HTML("", elem_id="status")
    line = gr.Markdown("The result appears here.", elem_id="line", container=True)
    video = gr.Video(label="Result", interactive=False, visible=False, loop=True, buttons=[])
    image = gr.Image(label="Result", interactive=False, visible=False, buttons=["fullscreen"])
    download = gr.DownloadButton("Download", visible=False, elem_id="download")
    script = (STATIC / "wipe.js").read_text()
    wipe = gr.HTML("", js_on_load=script, elem_id="wipe", visible=False)
    history = thumbnails("history")
    timer = gr.Timer(1.0, active=False)
    return ResultParts(run, stop, size, status, timer, [line, video, image, download, wipe], history)


def thumbnails(name: str, value: str = "") -> gr.HTML:
    """A row of thumbnails whose `click` tells which one by the script `PICKED`."""
    script = (STATIC / "row.js").read_text()
    return gr.HTML(value, js_on_load=script, elem_id=name, visible=bool(value))
