"""Programs that are kept running: their weights are loaded once, and clips are handed over one by one.

A `Service` starts `driver.py` with the interpreter of the program's environment and the checkout as working
directory, and speaks with it in lines of JSON through its standard input and output.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curation.annotators import driver
from curation.annotators.external import Program, how_it_ended, last_words
from curation.vlm import hub
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError

LONGEST = 1 << 20  # bytes that a line on standard output may have
PATIENCE = 0.5  # seconds between two looks whether the program still lives


class _Ended(Exception):
    """The program has ended, or is of no more use; how, in words."""


class Service:
    """One running program. Use `ask`; the process is started by the first call and after each death.

    Args:
        name: of the program, for errors.
        kind: which of the driver's functions serves it.
        program: checkout, interpreter, environment and time limit.
        settings: what the driver is told when it loads, plain values.
    """

    def __init__(self, name: str, kind: str, program: Program, settings: Mapping[str, object]) -> None:
        self.name, self.kind, self.program, self.settings = name, kind, program, dict(settings)
        self.starts = 0  # how often it was started
        self._process: subprocess.Popen[bytes] | None = None
        self._number, self._buffer = 0, b""
        self._lock = threading.Lock()
        self._home = tempfile.TemporaryDirectory(prefix="editverse-service-")
        self.log = Path(self._home.name) / "log"

    @property
    def pid(self) -> int | None:
        """The process, None when none runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def ask(self, request: Mapping[str, object]) -> None:
        """Have one request served; its results are files that the request names.

        Raises:
            AnnotatorError: the program failed on it, died, hung, or its answer is not understood.
            AssetError: the program does not load: no clip could do.
        """
        with self._lock:
            if self.pid is None:
                self._start()
            else:
                os.truncate(self.log, 0)  # so that last words are of this request
            self._number += 1
            try:
                self._send({**request, "id": self._number})
                answer = self._answer(self.program.timeout)
            except _Ended as ended:
                self._stop()
                raise AnnotatorError(f"{self.name}: {ended}{last_words(self.log)}") from None
            if answer.get("id") != self._number or not isinstance(answer.get("ok"), bool):
                self._stop()
                raise AnnotatorError(f"{self.name}: its answer is not understood ({str(answer)[:120]})")
            if not answer["ok"]:
                error = str(answer.get("error"))[:300]
                if answer.get("ends") or "out of memory" in error:  # what is left on the card is nobody's
                    self._stop()
                raise AnnotatorError(f"{self.name}: {error}")

    def close(self) -> None:
        """End the program and everything that it started. The next `ask` would start it anew."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        self._stop()
        hub.note_loaded(self.name)
        self.starts += 1
        self._buffer = b""
        settings = json.dumps({**self.settings, "parent": os.getpid(), "script": self.program.script})
        with self.log.open("wb"):
            pass  # emptied
        with self.log.open("ab") as out:  # appended to, so that it can be emptied while it is written
            self._process = subprocess.Popen(
                [self.program.interpreter, str(Path(driver.__file__).absolute()), self.kind, settings],
                cwd=self.program.folder,
                env=self.program.variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                start_new_session=True,
            )
        try:
            answer = self._answer(self.program.timeout)
        except _Ended as ended:
            self._stop()
            raise AssetError(f"{self.name}: it does not load; it {ended}{last_words(self.log)}") from None
        if not answer.get("ready"):
            self._stop()
            error = str(answer.get("error", answer))[:300]
            raise AssetError(
                f"{self.name}: it does not load in the environment of {self.program.python}: {error}"
            )

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children too; it keeps nothing worth a goodbye
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # of a request that is still in the buffer
                pipe.close()
        hub.note_released(self.name)

    def _send(self, request: Mapping[str, object]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise _Ended(how_it_ended(self._process.wait())) from None

    def _answer(self, timeout: float) -> dict[str, Any]:
        """The next line that is meant for us; others are prints, and go to the log."""
        deadline = time.monotonic() + timeout
        while True:
            line = self._line(deadline, timeout)
            if line.startswith(driver.MARK.encode()):
                try:
                    answer = json.loads(line[len(driver.MARK) :])
                except ValueError:
                    raise _Ended(f"wrote an answer that is no JSON ({line[:80]!r})") from None
                if not isinstance(answer, dict):
                    raise _Ended(f"wrote an answer that is no JSON object ({line[:80]!r})")
                return answer
            with self.log.open("ab") as out:
                out.write(line + b"\n")

    def _line(self, deadline: float, timeout: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        poll = select.poll()  # unlike select, it takes any file number
        poll.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._buffer:
            if len(self._buffer) > LONGEST:
                raise _Ended(f"wrote more than {LONGEST} bytes without an end of line")
            if time.monotonic() > deadline:
                raise _Ended(f"did not end within {timeout:g} s and was stopped")
            if poll.poll(1000 * PATIENCE):
                more = os.read(self._process.stdout.fileno(), 65536)
                if not more:
                    raise _Ended(self._end())
                self._buffer += more
            elif self._process.poll() is not None:  # though a child of it may hold the pipe open
                raise _Ended(self._end())
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _end(self) -> str:
        assert self._process is not None
        try:
            return how_it_ended(self._process.wait(5))
        except subprocess.TimeoutExpired:
            return "closed its standard output"


_running: dict[str, Service] = {}


def service_of(name: str, kind: str, program: Program, settings: Mapping[str, object]) -> Service:
    """The service of this process for a program and its settings, however many annotators use it.

    It ends with this process: at its exit, or, if that is killed, within a second or two by itself.
    """
    # a forked process must not speak through its parent's pipes
    key = json.dumps([os.getpid(), name, kind, vars(program), dict(settings)], sort_keys=True)
    if key not in _running:
        _running[key] = Service(name, kind, program, settings)
    return _running[key]


@atexit.register
def close_all() -> None:
    """End all programs that this process has started."""
    for key in list(_running):
        if json.loads(key)[0] == os.getpid():
            _running.pop(key).close()
