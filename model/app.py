"""The page behind `make app`: upload, say what to do, watch it being made, download it.

Gradio on the loopback address; the page loads nothing from another host and sends nothing to one.
"""

from __future__ import annotations

import contextlib
import html
import logging
import os
import signal
import socket
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.config import ConfigError
from model.desk import AppConfig, Desk, Made, Refused, Stopped, check
from model.forms import FORMS, Form
from model.sequence import SequenceError

if TYPE_CHECKING:
    import gradio as gr

    from model.editor import Editor

LOG = logging.getLogger(__name__)
SLOTS = {
    "video1": "Video 1 · <video1>",
    "video2": "Video 2 · <video2>",
    "image1": "Image 1 · <image1>",
    "image2": "Image 2 · <image2>",
    "mask": "Mask · <mask>",
}
SHOWN = {"h264", "vp8", "vp9", "av1"}  # codecs that browsers play
HOUR = 3600
# What the page may load and where it may connect; `eval` and inline code are how Gradio's front end is built.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; frame-ancestors 'self'"
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


def needs(form: Form) -> str:
    """What a form takes and makes, as Markdown."""
    taken = [f"`<{name}>` {words}" for name, words in form.media.items()]
    return f"Takes {'; '.join(taken) or 'no media'}. Makes `<{form.target}>`."


def build(editor: Editor, config: AppConfig) -> gr.Blocks:
    """The page, not served yet."""
    return _build(Desk(editor, config))


def _build(desk: Desk) -> gr.Blocks:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    import gradio as gr

    from shards.media import MediaError, probe

    forms = {form.name: form for form in FORMS}
    defaults, config = desk.editor.config.inference, desk.config
    with gr.Blocks(title="EditVerse", analytics_enabled=False, delete_cache=(HOUR, 24 * HOUR)) as page:
        gr.Markdown("# EditVerse\nUpload, say what to do, and name the uploads by their tags.")
        with gr.Row():
            with gr.Column():
                form = gr.Dropdown(
                    list(forms),
                    value=None,
                    label="Start from a task",
                    info="Fills the instruction with an example.",
                )
                taken = gr.Markdown(visible=False)
                text = gr.Textbox(
                    label="Instruction",
                    lines=3,
                    placeholder="<video1> Remove the person in the dark coat.",
                    elem_id="instruction",
                )
                with gr.Row():
                    for name in SLOTS:
                        gr.Button(f"<{name}>", size="sm", min_width=60).click(
                            None, text, text, js=INSERT.replace("TAG", f"<{name}>"), api_visibility="private"
                        )
                uploads: dict[str, Any] = {}
                with gr.Row():
                    for name in ("video1", "video2"):
                        uploads[name] = gr.Video(
                            label=SLOTS[name], sources=["upload"], height=170, elem_id=name
                        )
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
                        uploads[name].preprocess = lambda payload: payload and payload.path
                    uploads["mask"] = gr.File(
                        label=SLOTS["mask"],
                        file_types=["video", "image", ".mkv"],
                        height=170,
                        min_width=120,
                        elem_id="mask",
                    )
                with gr.Accordion("Settings", open=False):
                    with gr.Row():
                        steps = gr.Slider(1, max(100, defaults.steps), defaults.steps, step=1, label="Steps")
                        guidance = gr.Slider(
                            1, max(15, defaults.guidance), defaults.guidance, step=0.1, label="Guidance"
                        )
                    with gr.Row():
                        seed = gr.Number(0, precision=0, label="Seed", info="The same again, or another.")
                        frames = gr.Number(
                            0, precision=0, label="Frames", info="0: the video's, or the default."
                        )
                    ground = gr.Checkbox(
                        False,
                        label="Find the region first",
                        info="The model marks what the words are about, then edits there.",
                    )
            with gr.Column(elem_id="made"):
                with gr.Row():
                    start = gr.Button("Run", variant="primary", elem_id="run")
                    halt = gr.Button("Stop", elem_id="stop")
                line = gr.Markdown("The result appears here.", elem_id="line", container=True, min_height=90)
                video = gr.Video(label="Result", interactive=False, visible=False, loop=True, buttons=[])
                image = gr.Image(label="Result", interactive=False, visible=False, buttons=["fullscreen"])
                download = gr.DownloadButton("Download", visible=False, elem_id="download")
                video_beside = gr.Video(
                    label="Source and result",
                    interactive=False,
                    visible=False,
                    loop=True,
                    buttons=["download"],
                )
                image_beside = gr.Image(
                    label="Source and result",
                    interactive=False,
                    visible=False,
                    buttons=["download", "fullscreen"],
                )

        def choose(name: str | None) -> tuple[Any, Any]:
            if name is None:
                return gr.skip(), gr.update(visible=False)
            return forms[name].filled, gr.update(value=needs(forms[name]), visible=True)

        def arrived(name: str, path: str) -> None:
            media = {name: Path(path)}
            try:
                check(media, None, config)
                hidden = name.startswith("video") and probe(path).codec not in SHOWN
            except (Refused, MediaError) as error:
                raise gr.Error(for_people(error, media), print_exception=False) from None
            if hidden:
                gr.Info(f"{name} can be edited, though a browser may not be able to play it.")

        def run(
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
            files = zip(SLOTS, (video1, video2, image1, image2, mask), strict=True)
            media = {name: Path(path) for name, path in files if path}
            cache = Path(page.GRADIO_CACHE)
            cache.mkdir(parents=True, exist_ok=True)
            try:
                made = desk.edit(
                    str(request.session_hash),
                    text,
                    media,
                    Path(tempfile.mkdtemp(dir=cache)),
                    lambda done, total: progress(done / total, desc=f"{done} of {total} steps"),
                    seed=seed or 0,
                    frames=frames or None,
                    steps=steps,
                    guidance=guidance,
                    ground=ground,
                )
            except Stopped:
                return [gr.skip()] * 6
            except (Refused, SequenceError, ConfigError, MediaError) as error:
                raise gr.Error(for_people(error, media), print_exception=False) from None
            except Exception as error:
                LOG.exception("the edit failed")
                problem = for_people(error, media).partition("\n")[0][:200]
                raise gr.Error(f"the edit failed: {problem}", print_exception=False) from None
            return outputs(made)

        def outputs(made: Made) -> list[Any]:
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

        def stop(request: gr.Request) -> Any:
            return "Stopped." if desk.stop(str(request.session_hash)) else gr.skip()

        def leave(request: gr.Request) -> None:
            desk.stop(str(request.session_hash))

        # Gradio finds the request by its type, which a name that is local to this function does not give it.
        for listener in (run, stop, leave):
            listener.__annotations__["request"] = gr.Request
        form.change(
            choose, form, [text, taken], queue=False, show_progress="hidden", api_visibility="private"
        )
        for name, upload in uploads.items():
            upload.upload(
                partial(arrived, name),
                upload,
                concurrency_limit=None,
                show_progress="hidden",
                api_visibility="private",
            )
        running = start.click(
            run,
            [text, *uploads.values(), steps, guidance, seed, frames, ground],
            [line, video, image, download, video_beside, image_beside],
            show_progress_on=line,
            api_visibility="private",
        )
        halt.click(
            stop, None, line, queue=False, cancels=running, show_progress="hidden", api_visibility="private"
        )
        page.unload(leave)
    page.queue(max_size=config.queue, default_concurrency_limit=1, api_open=False)
    return page


def for_people(error: Exception, media: dict[str, Path]) -> str:
    """The message as HTML, with the uploads' own names instead of where they lie here."""
    message = str(error)
    for path in media.values():
        message = message.replace(str(path), path.name)
    return html.escape(message or type(error).__name__)


def serve(editor: Editor, config: AppConfig) -> None:
    """Serve the page until Ctrl-C or SIGTERM; uploads and results end with it.

    Raises:
        OSError: the address cannot be listened on.
    """
    try:
        socket.create_server((config.host, config.port)).close()
    except OSError as error:
        raise OSError(
            f"cannot listen on port {config.port} of {config.host}: {error.strerror}; try another --port"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    desk = Desk(editor, config)
    with tempfile.TemporaryDirectory(prefix="editverse-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        # gradio asks its own server whether it is up, which must not go through a proxy
        os.environ["no_proxy"] = ",".join(
            filter(None, [os.environ.get("NO_PROXY"), os.environ.get("no_proxy"), "localhost", config.host])
        )
        page = _build(desk)
        _launch(page, config)
        print(f"EditVerse is at {page.local_url} (Ctrl-C ends it)", flush=True)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                page.server.thread.join()
        finally:
            desk.stop()
            page.close(verbose=False)


def _launch(page: gr.Blocks, config: AppConfig) -> None:
    import gradio as gr
    from starlette.middleware import Middleware

    fonts, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    page.launch(
        server_name=config.host,
        server_port=config.port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        inbrowser=False,
        inline=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        ssr_mode=False,
        num_workers=0,
        max_file_size=config.max_upload_mb * 10**6,
        app_kwargs={"middleware": [Middleware(_Policy)]},
        theme=gr.themes.Default(font=fonts, font_mono=mono),
        css=CSS,
    )


class _Policy:
    """Adds `POLICY` to every answer, so that the browser itself keeps the page from other hosts."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)
