"""Runs many malformed inputs in one limited subprocess: none may hang, eat the memory or raise a stray error.

    outcomes = run_cases("tests.shards.test_malformed_media:read_media", paths)
    print(summary(outcomes))
    assert not faults(outcomes)

The subprocess has a limited address space and an alarm per input. One that dies or hangs costs its input
alone: the others go on in a new subprocess.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from shards.errors import EditVerseError
from shards.processes import peak_memory

ROOT = Path(__file__).resolve().parents[1]
GRACE = 10.0  # seconds after an alarm that Python could not act on, before the subprocess is killed


@dataclass
class Outcome:
    """What became of one input.

    `kind` is accepted, refused (an EditVerseError), raised (any other exception), slow, hung or died;
    `megabytes` is the peak resident memory of the subprocess so far.
    """

    case: str
    kind: str
    message: str
    seconds: float
    megabytes: float


def run_cases(
    function: str, cases: Sequence[str], *, seconds: float = 10.0, memory: int = 3 << 30
) -> list[Outcome]:
    """Call `function` ("module:name", taking one string) with every case in a limited subprocess.

    Args:
        cases: whatever `function` takes: paths, or documents themselves.
        seconds: of the alarm of one case.
        memory: bytes of address space (RLIMIT_AS), of the subprocess with all that it imports.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(cases):
        rest = cases[len(outcomes) :]
        process = _Subprocess(function, rest, seconds, memory)
        for case in rest:
            row = process.row(seconds + GRACE)
            if row is None:
                outcomes.append(Outcome(case, *process.stop(), seconds, 0.0))
                break
            outcomes.append(Outcome(case, **row))
        else:
            process.stop()
    return outcomes


def faults(outcomes: Sequence[Outcome], megabytes: float = 2048) -> list[str]:
    """Every outcome that is neither accepted nor refused by one clear line, and one line for the memory."""
    bad = [
        f"{o.case[:200]}: {o.kind} after {o.seconds:.1f} s: {o.message[:500]}"
        for o in outcomes
        if o.kind not in ("accepted", "refused") or (o.kind == "refused" and len(o.message.splitlines()) != 1)
    ]
    before = 0.0
    for outcome in outcomes:
        if outcome.megabytes > megabytes >= before:
            bad.append(f"{outcome.case[:200]}: took the subprocess to {outcome.megabytes:.0f} MB")
        before = outcome.megabytes
    return bad


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many ended how, the slowest one and the peak memory, in one line."""
    kinds = sorted({o.kind for o in outcomes})
    counts = ", ".join(f"{sum(o.kind == kind for o in outcomes)} {kind}" for kind in kinds)
    slowest = max(outcomes, key=lambda o: o.seconds)
    peak = max(o.megabytes for o in outcomes)
    return (
        f"{len(outcomes)} inputs: {counts}; slowest {slowest.seconds:.2f} s ({slowest.case[-60:]!r}), "
        f"peak memory {peak:.0f} MB"
    )


class _Subprocess:
    """The limited subprocess, and the lines that it prints, read by a thread so that waiting can time out."""

    def __init__(self, function: str, cases: Sequence[str], seconds: float, memory: int) -> None:
        command = [sys.executable, "-m", "tests.malformed", function, str(seconds), str(memory)]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            json.dump(list(cases), stdin)
        if self.row(120.0) is None:
            self.stop()
            raise RuntimeError(f"{function}: the subprocess did not start; its stderr says why")

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self.lines.put(line)
        self.lines.put("")

    def row(self, seconds: float) -> dict[str, Any] | None:
        """What the next line says; None where none comes in time or the subprocess has died."""
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            return None
        row: dict[str, Any] | None = json.loads(line) if line else None
        return row

    def stop(self) -> tuple[str, str]:
        """End the subprocess; (kind, message) of the case that it was at."""
        try:
            died = f"exit status {self.process.wait(timeout=0.5)}"
        except subprocess.TimeoutExpired:
            died = ""
            self.process.kill()
            self.process.wait()
        self.reader.join()
        return ("died", died) if died else ("hung", "no answer, not even to the alarm")


class TooSlow(BaseException):
    """The alarm of a case: no `except Exception` of the code under test swallows it."""


def _alarm(signum: int, frame: object) -> None:
    raise TooSlow


def _call(function: Callable[[str], object], case: str, seconds: float) -> Outcome:
    begin = time.perf_counter()
    kind, message = "accepted", ""
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            function(case)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except EditVerseError as error:
        kind, message = "refused", str(error)
    except TooSlow:
        kind = "slow"
    except BaseException as error:  # noqa: BLE001 - whatever it is, the test is to see it
        kind, message = "raised", f"{type(error).__name__}: {error}"
    return Outcome(case, kind, message, time.perf_counter() - begin, peak_memory() / 2**20)


def _main(function: str, seconds: str, memory: str) -> None:
    """The subprocess: cases as a JSON list from stdin, one JSON line per outcome to what was stdout."""
    answers: IO[str] = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the code under test prints must not mix with the answers
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    cases = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    signal.signal(signal.SIGALRM, _alarm)
    print(json.dumps("ready"), file=answers, flush=True)
    for case in cases:
        row = asdict(_call(call, case, float(seconds)))
        print(json.dumps({k: v for k, v in row.items() if k != "case"}), file=answers, flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
