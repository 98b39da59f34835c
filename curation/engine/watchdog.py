"""Says what the workers of a run do when no result has come for a while: which is stopped, which is silent.

A worker notes what it begins in a file of its own under the workspace's `attempts`. The rest is read from
/proc, so that a worker which can say nothing any more, being stopped, is seen too.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOTE = "worker-{}.{}.json"  # host, process
HOST = socket.gethostname()
TICKS = os.sysconf("SC_CLK_TCK")


def note(folder: Path, stage: str, unit: str) -> None:
    """Write down that this process begins a stage of a file or clip."""
    line = {"stage": stage, "unit": unit, "since": time.time()}
    with contextlib.suppress(OSError):  # a full disk is said where a result is written; this is only a help
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NOTE.format(HOST, os.getpid())).write_text(json.dumps(line))


def forget(folder: Path) -> None:
    """This process waits for work."""
    with contextlib.suppress(OSError):
        (folder / NOTE.format(HOST, os.getpid())).unlink(missing_ok=True)


@dataclass(frozen=True)
class Process:
    """What /proc says of a process."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    terminal: int  # device number, 0 for none
    foreground: int  # process group that the terminal listens to
    seconds: float  # of processor time


def host_of(note: Path) -> str:
    """The machine whose process a note is of."""
    return note.stem.removeprefix("worker-").rpartition(".")[0]


def process_of(note: Path) -> int:
    """The number of the process that a note is of."""
    return int(note.stem.rpartition(".")[2])


def processes() -> dict[int, Process]:
    """All processes, by number."""
    seen: dict[int, Process] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                seen[int(entry.name)] = _read(entry)
    return seen


def _read(entry: Path) -> Process:
    before, _, after = (entry / "stat").read_text().rpartition(")")
    fields = after.split()
    return Process(
        pid=int(entry.name),
        name=before.partition("(")[2],
        state=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        terminal=int(fields[4]),
        foreground=int(fields[5]),
        seconds=(int(fields[11]) + int(fields[12])) / TICKS,
    )


def below(root: int, everything: dict[int, Process]) -> Iterator[Process]:
    """The processes that `root` started, and those that they started."""
    for process in everything.values():
        parent: Process | None = process
        while parent is not None and parent.pid != root:
            parent = everything.get(parent.parent)
        if parent is not None and process.pid != root:
            yield process


class Watchdog:
    """Reports on stderr what the workers do, whenever no result has come for `patience` seconds.

    Args:
        folder: where the workers' notes lie.
        patience: seconds; the reports of one silence come at ever longer intervals.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder, self.patience = folder, patience
        self._last = time.monotonic()
        self._wait = patience
        self._spent: dict[int, float] = {}  # processor time at the last look
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        self._thread.join()

    def beat(self) -> None:
        """A result came."""
        self._last, self._wait = time.monotonic(), self.patience

    @property
    def silence(self) -> float:
        """Seconds since the last result."""
        return time.monotonic() - self._last

    def sees_work(self) -> bool:
        """Whether a worker says that it is at work; one of another machine is believed."""
        for path in self.folder.glob(NOTE.format("*", "*")):
            if host_of(path) != HOST or Path(f"/proc/{process_of(path)}").exists():
                return True
        return False

    def _watch(self) -> None:
        while not self._end.wait(min(1.0, self.patience / 4)):
            silent = time.monotonic() - self._last
            if silent < self._wait:
                continue
            self._wait = 2 * silent
            # one write, which the progress bar puts above itself
            lines = [f"no result for {silent:.0f} s", *(f"  {line}" for line in self.report())]
            print("\n".join(lines), file=sys.stderr, flush=True)

    def report(self) -> list[str]:
        """One line for each worker that is at work or stopped."""
        everything = processes()
        notes = {process_of(path): path for path in self.folder.glob(NOTE.format(HOST, "*"))}
        ours = list(below(os.getpid(), everything))
        stopped = [process for process in ours if process.state in "Tt"]
        lines = [self._stopped(process, everything, notes) for process in stopped]
        for pid, path in sorted(notes.items()):
            if pid in {process.pid for process in stopped}:
                continue
            process = everything.get(pid)
            if process is None:
                lines.append(f"worker {pid}: died; {_work(path)}")
                path.unlink(missing_ok=True)  # said once: another worker tries it again
                continue
            spent = process.seconds - self._spent.get(pid, 0.0)
            self._spent[pid] = process.seconds
            doing = f"is at work ({spent:.0f} s of processor time)" if spent >= 0.1 else "is silent"
            lines.append(f"worker {pid}: {doing}; {_work(path)}")
        for path in sorted(self.folder.glob(NOTE.format("*", "*"))):
            if (host := host_of(path)) != HOST:
                lines.append(f"worker {process_of(path)} on {host}: {_work(path)}")
        return lines or ["no worker has begun anything: they are still being started"]

    @staticmethod
    def _stopped(process: Process, everything: dict[int, Process], notes: dict[int, Path]) -> str:
        worker: Process | None = process
        while worker is not None and worker.pid not in notes:
            worker = everything.get(worker.parent)
        work = f"; {_work(notes[worker.pid])}" if worker is not None else ""
        who = f"worker {process.pid}"
        if worker is not None and worker.pid != process.pid:
            who = f"{process.name} (process {process.pid} of worker {worker.pid})"
        return (
            f"{who}: is stopped, {_why(process)}{work}; go on with: kill -CONT {process.pid}, or end the run "
            "with Ctrl-C and repeat it"
        )


def _why(process: Process) -> str:
    if process.state == "t":
        return "by a debugger"
    if process.terminal and process.foreground != process.group and _has_terminal(process.pid):
        return "probably for touching the terminal from the background (SIGTTIN, SIGTTOU)"
    return "by a signal from outside (SIGSTOP, SIGTSTP)"


def _has_terminal(pid: int) -> bool:
    """Whether standard input or output of a process is a terminal."""
    for number in range(3):
        with contextlib.suppress(OSError):
            if str(Path(f"/proc/{pid}/fd/{number}").readlink()).startswith(("/dev/pts/", "/dev/tty")):
                return True
    return False


def _work(path: Path) -> str:
    try:
        line = json.loads(path.read_text())
    except (OSError, ValueError):  # it has just ended
        return "between two clips"
    return f"{line['stage']} of {line['unit']} for {time.time() - line['since']:.0f} s"
