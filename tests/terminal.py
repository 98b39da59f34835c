"""A real terminal for tests: a command in the foreground of a pseudo-terminal of 80 columns."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parents[1]
WIDTH = 80


def environment() -> dict[str, str]:
    """Ours, with the packages of this checkout, and nothing that says how wide a terminal is."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "FORCE_COLOR")
    }
    return kept | {
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def command(*arguments: object) -> list[str]:
    """`python -m ...`"""
    return [sys.executable, "-m", *map(str, arguments)]


def _in_the_foreground() -> None:
    """Make the standard input the terminal of a new session, whose Ctrl-C reaches the command.

    Where the tests themselves run in the background of a shell, that is ignored, and would be inherited.
    """
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """`with Terminal("shards", "ls", folder) as terminal:` runs `python -m shards ls` in a terminal.

    At the end of the block all that is left of it is killed.
    """

    def __init__(
        self, *arguments: object, cwd: Path = ROOT, variables: Mapping[str, str] | None = None
    ) -> None:
        """Start the command.

        Args:
            variables: added to its environment.
        """
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=cwd,
            env=environment() | dict(variables or {}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_in_the_foreground,
        )
        os.close(slave)
        self._bytes = b""
        self._children: dict[int, psutil.Process] = {}

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in [*self.children(), *self._children.values()]:
            with contextlib.suppress(psutil.Error):
                child.kill()
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    @property
    def output(self) -> str:
        """What was printed, without colours and movements of the cursor."""
        text = self._bytes.decode(errors="replace").replace("\r\n", "\n")
        text = re.sub(r"[^\n]*\r\x1b\[2K", "", text).replace("\r", "\n")  # a progress bar's older states
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    def children(self) -> list[psutil.Process]:
        """All processes that it started and that are alive, and theirs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._children[child.pid] = child
        alive = []
        for child in self._children.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                    alive.append(child)
        return alive

    def read(self) -> None:
        """Take what has been printed."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 1 << 16)
            except OSError:  # nobody holds the other side any more
                return
            if not data:
                return
            self._bytes += data

    def until(self, holds: Callable[[], object], seconds: float = 300.0) -> None:
        """Wait until `holds`; an error with the output when the command ends or time is over before."""
        end = time.monotonic() + seconds
        while not holds():
            self.read()
            self.children()
            assert self.process.poll() is None, f"it ended before: {self.output}"
            assert time.monotonic() < end, f"it did not get that far: {self.output}"
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Press Ctrl-C: the kernel sends SIGINT to all processes in the foreground."""
        self.children()
        os.write(self.master, b"\x03")

    def end(self, seconds: float = 300.0) -> int:
        """Wait for its end; the exit status."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            self.read()
            self.children()
            assert time.monotonic() < end, f"it did not end: {self.output}"
            time.sleep(0.05)
        self.read()
        return self.process.returncode

    def orphans(self, seconds: float = 30.0) -> list[str]:
        """Command lines of processes that it left behind; they have some seconds to end."""
        end = time.monotonic() + seconds
        while (left := self.children()) and time.monotonic() < end:
            time.sleep(0.1)
        return [" ".join(child.cmdline()) for child in left]


def standard_input(process: psutil.Process) -> str:
    """What a process reads from, as a path; "" when it is gone."""
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{process.pid}/fd/0").readlink())
    return ""
