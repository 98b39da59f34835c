"""Serves a study on a port until it is told to end: `python -m benchmark study serve`."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import os
import signal
import socket
import threading
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import TypeAdapter

from benchmark.study.app import create_app
from benchmark.study.folder import open_study
from benchmark.study.records import StudyError
from benchmark.study.security import ServeSettings, uvicorn_options
from shards.sockets import listen, web_address

APPLICATION = f"{__name__}:application"
VARIABLE = "EDITVERSE_STUDY"  # tells further processes of a server what they serve


def serve(
    folder: Path, host: str, port: int, settings: ServeSettings | None, insecure: bool, workers: int
) -> None:
    """Serve a study until Ctrl-C or SIGTERM.

    Args:
        folder: of the study.
        host: address to listen at; others than this machine's need a `base_url` with https, or `insecure`.
        port: 0 for any that is free.
        settings: None for the address that is listened at and no other names.
        insecure: cookies and votes may travel without encryption.
        workers: processes; each counts the limits of clients by itself.

    Raises:
        StudyError: the folder holds no study, or the address may not be served so.
        OSError: the address cannot be listened on.
    """
    if workers < 1:
        raise StudyError(f"--workers {workers}: needs at least 1")
    if not (is_loopback(host) or insecure or (settings is not None and settings.secure)):
        raise StudyError(
            f"--host {host}: others would reach the study without encryption; put a proxy with https before "
            "it and give its address as --base-url, or say --insecure"
        )
    if settings is None and host in ("", "0.0.0.0", "::"):
        raise StudyError(f"--host {host}: needs --base-url, the address that raters open")
    store = open_study(folder)  # what is wrong with the study is said before there is a server
    with listen(host, port) as listener:
        address = web_address(host, listener.getsockname()[1])
        settings = settings or ServeSettings(base_url=address)
        create_app(store, folder, settings)
        store.engine.dispose()
        _run(folder, settings, listener, workers, address)


def _run(folder: Path, settings: ServeSettings, listener: socket.socket, workers: int, address: str) -> None:
    """Run the server's process or processes."""
    os.environ[VARIABLE] = json.dumps([str(folder.absolute()), dataclasses.asdict(settings)])
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    line = f"the study is at {settings.base_url}/ (Ctrl-C ends it)"
    if settings.base_url != address:
        line = f"the study listens at {address}/ and is reached at {settings.base_url}/ (Ctrl-C ends it)"

    class Server(uvicorn.Server):
        """Says when the study can be opened."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(line, flush=True)

    options = {"factory": True, "lifespan": "off", **uvicorn_options(settings)}
    with contextlib.suppress(KeyboardInterrupt):
        if workers == 1:
            Server(uvicorn.Config(APPLICATION, **options)).run(sockets=[listener])
        else:
            host, port = listener.getsockname()[:2]
            listener.close()  # uvicorn's own main process listens for the others
            print(line, flush=True)
            uvicorn.run(APPLICATION, host=host, port=port, workers=workers, **options)


def application() -> FastAPI:
    """The application of the study that `VARIABLE` names, in a process of the server."""
    folder, settings = json.loads(os.environ[VARIABLE])
    served = TypeAdapter(ServeSettings).validate_python(settings)
    return create_app(open_study(Path(folder)), Path(folder), served)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
