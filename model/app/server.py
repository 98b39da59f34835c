"""The page behind `make app`: upload, say what to do, watch it being made, download it.

Gradio on the loopback address, behind `model.app.security`; the page loads nothing from another host and
sends nothing to one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

from model.app.files import FileStore, server_folder
from model.app.service import AppConfig, EditService
from model.inference.editor import Editor
from shards.sockets import listen, web_address

if TYPE_CHECKING:
    import fastapi
    import gradio as gr

    from model.app.security import PageGuard


def build(desk: EditService, store: FileStore) -> gr.Blocks:
    """The page, not served yet; its files are in `store`."""
    # Both are read when gradio is imported, or when the page is built.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(store.folder)
    from model.app.page import build_page  # brings gradio, an extra

    return build_page(desk, store)


def serve(editor: Editor, config: AppConfig) -> None:
    """Serve the page until Ctrl-C or SIGTERM; uploads and results end with it.

    Raises:
        OSError: the address cannot be listened on.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    desk = EditService(editor, config)
    with (
        contextlib.suppress(KeyboardInterrupt),
        listen(config.host, config.port) as listener,
        server_folder() as folder,
    ):
        store = FileStore(folder, config.max_stored_mb * 10**6)
        with store.cleaning():
            _run_server(desk, store, listener)


def _run_server(desk: EditService, store: FileStore, listener: socket.socket) -> None:
    """Serve until a signal ends it."""
    page = build(desk, store)
    import uvicorn

    guard, gradio_app = guarded_app(page, desk, store)
    host, port = desk.config.host, desk.config.port
    address = web_address("localhost" if host in ("0.0.0.0", "") else host, port)

    class Server(uvicorn.Server):
        """Says when the page can be opened, and ends the page's streams before it waits for connections."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(f"EditVerse is at {address}/ (Ctrl-C ends it)", flush=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            desk.stop()
            page._queue.close()
            page.is_running = False
            gradio_app.stop_event.set()
            await super().shutdown(sockets)

    Server(
        uvicorn.Config(
            guard,
            log_level="warning",
            http="h11",
            ws="none",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
    ).run(sockets=[listener])


def guarded_app(page: gr.Blocks, desk: EditService, store: FileStore) -> tuple[PageGuard, Any]:
    """What serves the page, and Gradio's own application behind it, which it must not be served without."""
    from model.app.security import PageGuard  # brings starlette, an extra

    app = _gradio_app(page, desk.config)
    return PageGuard(app, page, store, desk), app.routes[-1].app  # type: ignore[attr-defined]  # mounted last


def _gradio_app(page: gr.Blocks, config: AppConfig) -> fastapi.FastAPI:
    """Gradio's own application, with nothing on that phones home or that the page does not need."""
    import fastapi
    import gradio as gr

    from model.app.parts import CSS  # brings gradio, an extra

    fonts, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page,
        path="",
        server_name=config.host,
        server_port=config.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=config.max_upload_mb * 10**6,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(font=fonts, font_mono=mono),
        css=CSS,
    )
