"""The processes that a command starts: none has the terminal as its input, and none handles Ctrl-C by itself.

A process in the background that touches its terminal is stopped by the kernel, without a word: a worker
with a process group of its own (Ray's) is in the background, and so is every program that it starts. What
they leave behind when they are killed carries their name, so that later ones can clear it away.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

DAY = 24 * 3600.0  # seconds after which what another machine left half-made is taken for dead


def foreign_environment() -> dict[str, str]:
    """Ours for a program of another interpreter: without those that choose packages."""
    ours = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")
    return {name: value for name, value in os.environ.items() if name not in ours}


def peak_memory(pid: int | None = None) -> int:
    """Most bytes that a process (this one when None) has had resident so far.

    Not what `getrusage` says where the kernel tells better: that a process inherits from the one that started
    it, be it a test run of some gigabytes.
    """
    try:
        status = Path(f"/proc/{pid or 'self'}/status").read_text()
    except FileNotFoundError:  # no Linux, or no such process
        if pid is not None:
            raise
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def close_terminal_input() -> None:
    """Give this process, and all that it starts, /dev/null as standard input in place of a terminal."""
    if _terminal_input():
        _redirect(os.devnull)


def work_in_background() -> None:
    """Be a worker that a terminal's input and its Ctrl-C do not reach; see `background_processes`.

    That a worker's main thread blocks the signal is not enough: a library's thread may take it, upon which
    Python interrupts the main thread.
    """
    close_terminal_input()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_interrupts: list[int] = []  # signals of Ctrl-C that came so far


def count_interrupts() -> None:
    """Remember each Ctrl-C, and raise KeyboardInterrupt as Python does; in the main thread alone.

    The exception may be lost: C code that asks whether an object has an attribute drops whatever came of it.
    Work that is about to begin for long asks `interrupts` again.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _counted)


def _counted(number: int, frame: FrameType | None) -> None:
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


def interrupts() -> int:
    """How many Ctrl-C have come since `count_interrupts`, whatever became of them."""
    return len(_interrupts)


@contextmanager
def no_terminal_input() -> Iterator[None]:
    """Processes that are started in the block have /dev/null as standard input, if ours is a terminal."""
    if not _terminal_input():
        yield
        return
    kept = os.dup(0)  # not inheritable
    try:
        _redirect(os.devnull)
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@contextmanager
def background_processes() -> Iterator[None]:
    """Start workers in the block: without a terminal, and deaf to Ctrl-C, which their parent handles for all.

    Ctrl-C reaches every process in the foreground at once. A worker that took it too would print a traceback
    of its own. One pressed while the block runs is handled after it.
    """
    with no_terminal_input():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit the mask
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C in the block, so that a second one does not break off the cleaning up after the first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _terminal_input() -> bool:
    try:
        return os.isatty(0)
    except OSError:  # closed
        return False


def _redirect(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.dup2(handle, 0)
    os.close(handle)


def own_name() -> str:
    """This process and machine in the name of what it leaves behind: "<host>.<pid>.<random>"."""
    return f"{_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


def sweep_leavings(folder: Path, max_age: float = DAY) -> None:
    """Remove folders named by `own_name` of dead processes of this machine, and whatever is `max_age` old.

    Others may be at work in it, here and on other machines.

    Args:
        max_age: seconds since anything was added; infinite where a process may be silent for longer.
    """
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            host, pid = [*path.name.rsplit(".", 2), "", ""][:2]
            if (host == _host() and pid.isdigit() and not _lives(int(pid))) or age(path) > max_age:
                shutil.rmtree(path, ignore_errors=True)


def age(folder: Path) -> float:
    """Seconds since anything was added to a folder; 0 for one that has just gone."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _host() -> str:
    """This machine; of containers that share its name, the one whose process numbers ours are."""
    try:
        numbers = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # no Linux
        return platform.node()
    return f"{platform.node()}-{numbers}"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
