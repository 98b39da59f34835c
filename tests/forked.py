"""`python -m ...` for tests, forked from a server that has imported torch, Lightning and transformers.

Most of a short command's processor time is these imports: 7 of 9 s for `python -m model fit`, and a test of
four ranks pays them four times. The server (one per pytest process, `multiprocessing`'s fork server) imports
them once and has no threads; each command is a process of its own that is forked from it, with its own
environment, folder, standard streams, signals and exit status. What an import costs or forbids is tested
elsewhere, in new interpreters (test_imports.py, test_house.py, test_terminal.py).
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import psutil

ROOT = Path(__file__).parents[1]
PRELOADED = [
    *("torch", "torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.utils.tensorboard"),
    *("lightning.pytorch", "lightning.pytorch.callbacks.progress.rich_progress", "torchmetrics"),
    *("transformers", "transformers.models.bert.modeling_bert"),
    *("jsonargparse", "docstring_parser", "omegaconf", "pydantic.main", "rich.progress", "rich.table"),
    *("webdataset", "av", "cv2"),
]

_context = multiprocessing.get_context("forkserver")


class Forked:
    """A command that runs, with the methods of `subprocess.Popen` that tests use; text, no input."""

    def __init__(
        self,
        *arguments: object,
        cwd: Path | str = ROOT,
        env: Mapping[str, str] | None = None,
        before: Callable[[], object] | None = None,
    ) -> None:
        """Start `python -m *arguments`.

        Args:
            cwd: its folder.
            env: its whole environment; ours where left out.
            before: called in the new process first; can be pickled (a limit on resources).
        """
        self.args = [sys.executable, "-m", *map(str, arguments)]
        made = [tempfile.mkstemp(prefix=f"forked-{name}-") for name in ("out", "err")]
        self._streams = [os.fdopen(number, "rb") for number, _ in made]
        paths = [path for _, path in made]
        _context.set_forkserver_preload(PRELOADED)
        self._process = _context.Process(
            target=_command,
            args=(
                list(map(str, arguments)),
                str(cwd),
                dict(env or os.environ),
                paths,
                before,
            ),
        )
        with _without_main():
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self._known: psutil.Process | None = None
        with contextlib.suppress(psutil.NoSuchProcess):
            self._known = psutil.Process(self.pid)

    @property
    def returncode(self) -> int | None:
        """Its exit status, minus the signal's number where one killed it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status once it has ended; `subprocess.TimeoutExpired` after `timeout` seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """(what it printed, its errors), when it has ended."""
        self.wait(timeout)
        return self.stdout, self.stderr

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return _read(self._streams[0])

    @property
    def stderr(self) -> str:
        """What it has printed on its standard error so far."""
        return _read(self._streams[1])

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing where it has ended: the server waits for it at once, and its number may be another's."""
        if self._known is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._known.send_signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(*arguments: object, timeout: float = 600, **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of `python -m *arguments`, with its output; options are `Forked`'s."""
    process = Forked(*arguments, **options)
    try:
        out, errors = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    return subprocess.CompletedProcess(process.args, process.wait(), out, errors)


def ranks(number: int, *arguments: object, **options: Any) -> list[Forked]:
    """`python -m *arguments` as the ranks of one node, with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared: dict[str, object] = {
        **{"WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1"},
        **{"GROUP_RANK": 0, "GROUP_WORLD_SIZE": 1},
    }
    started = []
    for rank in range(number):
        mine = {
            **shared,
            "MASTER_PORT": port,
            "RANK": rank,
            "LOCAL_RANK": rank,
            "GROUP_RANK": 0,
            "GROUP_WORLD_SIZE": 1,
        }
        env = {**os.environ, **{name: str(value) for name, value in mine.items()}}
        started.append(Forked(*arguments, env=env, **options))
    return started


def wait_for_ranks(processes: list[Forked], timeout: float = 600) -> tuple[int, str]:
    """(exit status, errors) of a node: of the first rank to fail, which ends the others, as torchrun does."""
    end = time.monotonic() + timeout
    while True:
        codes = [process.poll() for process in processes]
        failed = next((process for process in processes if process.poll()), None)
        if failed is not None or time.monotonic() > end:
            for process in processes:
                process.kill()
                process.wait()
        if failed is not None:
            return failed.wait(), failed.stderr
        if time.monotonic() > end:
            raise subprocess.TimeoutExpired(processes[0].args, timeout)
        if all(code == 0 for code in codes):
            return 0, "".join(process.stderr for process in processes)
        time.sleep(0.05)


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Children do not import pytest's main module, which `multiprocessing` would have them do."""
    main = sys.modules["__main__"]
    spec, file = main.__spec__, getattr(main, "__file__", None)
    main.__spec__ = None
    if file is not None:
        del main.__file__
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file


def _command(
    arguments: list[str],
    cwd: str,
    env: dict[str, str],
    streams: list[str],
    before: Callable[[], object] | None,
) -> None:
    """The new process: what a shell and `python -m` would set up, then the module as `__main__`."""
    os.setsid()
    if before is not None:
        before()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, stream in enumerate(streams, start=1):
        opened = os.open(stream, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
        Path(stream).unlink()  # the test holds it open
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.path[0:1] = [cwd]
    sys.argv = ["", *arguments[1:]]
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    finally:
        # `multiprocessing` ends a process without the exit handlers that an interpreter runs.
        atexit._run_exitfuncs()
