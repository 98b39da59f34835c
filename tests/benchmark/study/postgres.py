"""A real PostgreSQL of its own: in a temporary folder, on a socket in it, as a user who is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Completed = subprocess.CompletedProcess[str]


def program(name: str) -> str:
    """Where a program of PostgreSQL is; Debian keeps them out of PATH."""
    found = shutil.which(name) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    assert found is not None, f"no {name}: apt-get install postgresql"
    return found


def identity() -> dict[str, Any]:
    """Whom to run as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@dataclass
class Postgres:
    """A server with databases that are made as they are asked for."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    made: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [program("postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        command += ["-c", "listen_addresses=", "-c", "max_connections=80"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **identity())
        deadline = time.monotonic() + 60
        while self.sql("select 1", check=False).returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self, crash: bool = False) -> None:
        """Stop it: as a crash would, with recovery from its log at the next start, or orderly."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        self.process.wait(timeout=60)

    def sql(self, text: str, database: str = "postgres", check: bool = True) -> Completed:
        """Run a statement."""
        command = [program("psql"), "-h", str(self.folder), "-U", "postgres", "-qAtX", "-c", text, database]
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"study{len(self.made)}"
        self.sql(f"create database {name}")
        self.made.append(name)
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server, and nothing of it afterwards."""
    # Not a folder of pytest's, which other users may not enter; and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    who = identity()
    if who:
        os.chown(folder, who["user"], who["group"])
    server = Postgres(folder)
    try:
        command = [program("initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-N"]
        command += ["-E", "UTF8", "--no-locale"]
        made = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, **who)
        assert made.returncode == 0, made.stderr
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
        shutil.rmtree(folder)
