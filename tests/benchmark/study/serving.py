"""A study served on a port of this machine, in a thread of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmark.study.app import create_app
from benchmark.study.folder import open_study
from benchmark.study.security import ServeSettings
from benchmark.study.store import Store
from shards.reports.server import Server
from tests.model.page_server import free_port


@contextmanager
def serving(folder: Path, port: int | None = None) -> Iterator[tuple[str, Store]]:
    """The address, without a slash at its end, and the database of a study's folder."""
    port = port or free_port()
    store = open_study(folder)
    app = create_app(store, folder, ServeSettings(base_url=f"http://127.0.0.1:{port}"))
    with Server(app, port=port).running() as url:
        yield url.rstrip("/"), store
    store.engine.dispose()
