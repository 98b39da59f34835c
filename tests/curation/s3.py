"""An S3 server on this machine for tests: moto's, which can be told to refuse requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUSY = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>try again</Message></Error>"
Refuse = Callable[[str, str], bool]


class S3Server:
    """A server with its own thread; `requests` are those that came, as "PUT /bucket/key".

    Attributes:
        refuse: told method and path of every request; where it says so the answer is 503 and nothing is done.
    """

    def __init__(self) -> None:
        self._backend = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.requests: list[str] = []
        self.refuse: Refuse = lambda method, path: False
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def options(self) -> dict[str, Any]:
        """Of fsspec's s3: this server, and no retries but ours and s3fs's own."""
        return {
            "endpoint_url": f"http://127.0.0.1:{self._server.server_port}",
            "key": "test",
            "secret": "test",
            "config_kwargs": {"retries": {"max_attempts": 0}},
        }

    @property
    def environment(self) -> dict[str, str]:
        """What tells a command of this server, and keeps it from asking for other credentials."""
        return {"FSSPEC_S3": json.dumps(self.options), "AWS_EC2_METADATA_DISABLED": "true"}

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append(f"{method} {path}")
        if self.refuse(method, path):
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(BUSY)))])
            return [BUSY]
        answer: Iterable[bytes] = self._backend(environ, start)
        return answer
