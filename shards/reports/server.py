"""Serves a page to the browsers of this machine, and to no site that they visit: `Guard`, `Server`."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shards.errors import SettingError
from shards.sockets import web_address

if TYPE_CHECKING:
    from starlette.applications import Starlette

LOCAL = ("127.0.0.1", "localhost", "::1")
# A page runs its own scripts and shows its own media; whatever a sample's text holds, it stays text.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def needs_pages() -> None:
    """Raise SettingError where the packages are missing that a page is served with."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingError(f"a page needs {' and '.join(missing)}: pip install '.[pages]'")


class Guard:
    """Middleware: answers its own hosts alone, takes changes from its own pages alone, adds `HEADERS`.

    Args:
        hosts: names beside this machine's own. Addresses are always answered: no site can have its page under
            one that is this machine's.
    """

    def __init__(self, app: Any, hosts: Sequence[str] = ()) -> None:
        self.app, self.hosts = app, {*LOCAL, *(name.lower() for name in hosts)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request, or refuse it with one line of JSON."""
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.responses import JSONResponse

        if scope["type"] != "http":
            return  # no socket is served

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if why := self._refusal(scope["method"], Headers(scope=scope)):
            await JSONResponse({"detail": why}, 403)(scope, receive, answer)
        else:
            await self.app(scope, receive, answer)

    def _refusal(self, method: str, headers: Mapping[str, str]) -> str:
        """Why a request is refused; "" where it is not."""
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if name not in self.hosts and not _is_address(name):
            return f"host {name or 'without a name'} is not served here"
        if headers.get("sec-fetch-site", "none") == "cross-site" and method != "GET":
            return "requests of other sites are refused"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return "requests of other sites are refused"
        return ""


def _is_address(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


class Server:
    """A site on a port of this machine.

    Args:
        host: address to listen at; 127.0.0.1 is reached from this machine alone.
        port: 0 for any that is free.

    Attributes:
        url: where a browser opens it.

    Raises:
        SettingError: the port is taken, or the address is not this machine's.
    """

    def __init__(self, app: Starlette, host: str = "127.0.0.1", port: int = 0) -> None:
        self.app = app
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            self._socket.listen(128)  # a request waits until the server accepts it
        except (OSError, OverflowError) as error:
            self._socket.close()
            raise SettingError(f"--host {host} --port {port}: {error}; choose another port") from None
        self.url = f"{web_address(host, self._socket.getsockname()[1])}/"

    def _uvicorn(self) -> Any:
        import uvicorn

        config = uvicorn.Config(self.app, log_level="warning", lifespan="off", access_log=False, ws="none")
        return uvicorn.Server(config)

    def run(self) -> None:
        """Serve until Ctrl-C."""
        self._uvicorn().run(sockets=[self._socket])

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve from a thread while the block runs; yields the address."""
        server = self._uvicorn()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        thread.start()
        try:
            yield self.url
        finally:
            server.should_exit = True
            thread.join()
