"""The commands of a stage as processes: one at a time, with their own process group, log and accounts.

Nothing goes on beside a new attempt. A command is told to end by the kernel when the runner dies, however it
dies; it holds the run's lock until it has ended; and the next runner waits for that, then kills what is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from editverse.speedrun.recipe import LAUNCHER, PYTHON, is_training, without_launcher
from editverse.speedrun.records import STAGES, Spent, read_mapping
from shards.errors import EditVerseError
from shards.files import InUseError, write_json

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0  # seconds that a command of a dead runner has to end by itself: training saves its state
GRACE = 30.0  # and after they were killed
LONG_PATIENCE = 480.0  # and after it was told to: SLURM tells ten minutes before a job's end
POLL = 0.1  # seconds between looks at a running command
SAMPLE = 1.0  # seconds between looks at what its processes have used
PR_SET_PDEATHSIG = 1  # of prctl(2)
HOLDER = "runner.json"
RANKS = "SPEEDRUN_RANKS"  # set in a job whose srun starts a process for each rank of a training
JOB = "SLURM_JOB_ID"


@contextlib.contextmanager
def hold(run: Path, say: Callable[[str], None], patience: float = PATIENCE) -> Iterator[int]:
    """Hold a run's folder, also against commands that a killed runner left behind.

    Args:
        say: is told when it must be waited.
        patience: seconds until commands that were left behind are killed.

    Yields:
        The descriptor of the lock, for the commands to hold too.

    Raises:
        InUseError: another runner is at work there.
    """
    (run / STAGES).mkdir(parents=True, exist_ok=True)
    with (run / "lock").open("a") as handle:
        deadline, waited = time.monotonic() + patience, False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                late = time.monotonic() - deadline
                if not _is_dead(read_mapping(run / STAGES / HOLDER)) or late > GRACE:
                    raise InUseError(f"--run {run}: another speedrun is at work in it") from None
                if not waited or late > 0:
                    left = _left_behind(run / "lock")
                    # the first signal is for what a command had started, which may not know yet
                    _signal_groups(left, signal.SIGKILL if waited else signal.SIGTERM)
                if not waited:
                    numbers = ", ".join(map(str, left)) or "elsewhere"
                    say(f"waiting for what a killed attempt left to end (process {numbers})")
                waited = True
                time.sleep(POLL)
        _write_holder(run)
        yield handle.fileno()


def _write_holder(run: Path) -> None:
    """Say which process of which machine, or job, runs here."""
    pid, job = os.getpid(), os.environ.get(JOB)
    write_json(
        run / STAGES / HOLDER, {"host": platform.node(), "job": job, "pid": pid, "pid_start": started(pid)}
    )


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the runner that a folder was last held by is known to have ended."""
    if holder.get("job") and holder["job"] == os.environ.get(JOB):  # an earlier start of this very job
        return True
    pid = holder.get("pid")
    here = isinstance(pid, int) and holder.get("host") == platform.node()
    return here and started(int(pid or 0)) != holder.get("pid_start")


def _left_behind(lock: Path) -> list[int]:
    """Process groups of this machine that hold a run's lock: commands and what they started, no runners."""
    found = set()
    for pid in _pids():
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            files = Path(f"/proc/{pid}/fd").iterdir()
            if pid != os.getpid() and any(file.readlink() == lock.resolve() for file in files):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if (b"editverse.speedrun", b"run") not in itertools.pairwise(words):
                    found.add(os.getpgid(pid))
    return sorted(found - {os.getpgrp()})


def _signal_groups(groups: Sequence[int], number: int) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; none of a process that has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def started(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; None of one that has ended."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != "Z" else None


class CpuMeter:
    """Seconds of processors that a process and all that descend from it have used.

    The kernel counts the children that were waited for; this looks at the others from time to time, such as
    Ray's workers, which nobody waits for. What a short-lived one of those used between two looks is not seen.
    """

    def __init__(self, pid: int) -> None:
        """Of the process `pid`."""
        self._pid = pid
        self._used: dict[tuple[int, str], float] = {}
        self._tick = os.sysconf("SC_CLK_TCK")

    def sample(self) -> float:
        """Look once more; the seconds so far."""
        children: dict[int, list[int]] = {}
        fields: dict[int, list[str]] = {}
        for other in _pids():
            if stat := _stat(other):
                fields[other] = stat
                children.setdefault(int(stat[1]), []).append(other)
        queue = [self._pid]
        while queue:
            pid = queue.pop()
            queue += children.get(pid, [])
            if pid in fields:
                stat = fields[pid]
                self._used[pid, stat[19]] = (int(stat[11]) + int(stat[12])) / self._tick
        return sum(self._used.values())


def carry_out(
    command: Sequence[str],
    run: Path,
    log: Path,
    lock: int,
    gpus: int,
    watch: Callable[[Spent], str | None],
) -> tuple[int, Spent, str | None]:
    """Carry out a command in the run's folder to its end.

    Args:
        log: is appended to, with all that the command says.
        lock: descriptor of the run's lock, which the command holds too.
        gpus: that it works on, for the account.
        watch: is told from time to time what was spent; returns why the command shall stop, or None.

    Returns:
        Exit status (negative: the signal that killed it), what was spent, and why it was stopped.

    Raises:
        EditVerseError: there is no such program.
        KeyboardInterrupt: Ctrl-C, which the command was told too, and it has ended.
    """
    argv = _argv(command, log)
    began, stopped, pid, waited_for = time.monotonic(), None, os.getpid(), _waited_for()
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                argv,
                cwd=run,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | _variables(),
                pass_fds=(lock,),
                process_group=0,
                preexec_fn=lambda: _die_with(pid),
            )
        except FileNotFoundError:
            raise EditVerseError(f"{argv[0]}: no such program") from None
        meter, spent, looked = CpuMeter(process.pid), Spent(), 0.0
        try:
            while process.poll() is None:
                time.sleep(POLL)
                seconds = time.monotonic() - began
                if seconds - looked >= SAMPLE or not looked:
                    looked = seconds
                    spent = Spent(seconds, meter.sample(), seconds * gpus)
                reason = watch(spent)
                if reason and not stopped:
                    stopped = reason
                    stop(process, argv)
        except KeyboardInterrupt:
            _end(process, lambda: os.killpg(process.pid, signal.SIGINT))
            raise
        except BaseException:
            _end(process, lambda: stop(process, argv))
            raise
    seconds = time.monotonic() - began
    cpu = max(spent.cpu_seconds, _waited_for() - waited_for)
    return process.returncode, Spent(seconds, cpu, seconds * gpus), stopped


def _waited_for() -> float:
    """Seconds of processors that children which have ended used, with those that they waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _variables() -> dict[str, str]:
    """This code for `python -m`, whatever lies in the run's folder; and output that comes at once."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def _die_with(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent ends; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before
            os._exit(1)


def _argv(command: Sequence[str], log: Path) -> list[str]:
    """The command's own words: with this interpreter, and training by srun where a job has several ranks."""
    if os.environ.get(RANKS) and is_training(command):
        # a rank that dies takes the others with it after two minutes, in which they may end by themselves
        log_of_rank = str(log.with_name(f"{log.stem}-%t.log"))
        python = without_launcher(tuple(command))[1:]
        return [
            "srun",
            "--wait=120",
            f"--output={log_of_rank}",
            "--open-mode=append",
            sys.executable,
            *python,
        ]
    return [sys.executable if command[0] == PYTHON else command[0], *command[1:]]


def stop(process: subprocess.Popen[bytes], argv: Sequence[str]) -> None:
    """Tell a command to end soon: training saves its state first."""
    if argv[0] == "srun":  # which passes it to every rank
        process.send_signal(signal.SIGUSR1)
    elif tuple(argv[1:3]) == LAUNCHER[1:]:  # which passes SIGTERM on, and kills after half a minute
        for pid in _children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
    else:
        process.terminate()


def _children(pid: int) -> list[int]:
    return [child for child in _pids() if (stat := _stat(child)) and int(stat[1]) == pid]


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _end(process: subprocess.Popen[bytes], tell: Callable[[], None]) -> None:
    """Tell a command to end and wait for that; kill it when it takes too long."""
    with contextlib.suppress(ProcessLookupError):
        tell()
    try:
        process.wait(LONG_PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
