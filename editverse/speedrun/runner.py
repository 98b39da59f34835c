"""Carry out the stages of a speedrun that are not done: one after the other, resumable at any moment."""

from __future__ import annotations

import datetime
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from editverse.speedrun import processes
from editverse.speedrun.outcome import last_line, line_of, units_of
from editverse.speedrun.plan import PlannedStage, agree, duration, explain, plan, unagreed
from editverse.speedrun.preflight import bytes_below, check_stage
from editverse.speedrun.recipe import Stage
from editverse.speedrun.records import (
    LOGS,
    RECIPE,
    STAGES,
    Spent,
    add_attempt_line,
    attempt_lines,
    commands_done,
    read_bill_rows,
    read_record,
    spent_by_run,
    spent_on,
    write_record,
)
from shards.errors import EditVerseError
from shards.files import write_bytes

STOPPED = 85  # exit status of a training that a signal ended with its state saved (model.cli)
BEAT = 5.0  # least seconds between two lines that say what a running attempt has spent


class StageError(EditVerseError):
    """A stage that could not be finished; the message says why and where to look."""


@dataclass(frozen=True)
class RunOptions:
    """How a run goes.

    Attributes:
        only: this stage alone; all when None.
        yes: do anew what changed, without asking.
        max_gpu_hours: of all stages and attempts together; None for no limit.
    """

    only: str | None = None
    yes: bool = False
    max_gpu_hours: float | None = None


def carry_out(stages: Sequence[Stage], run: Path, options: RunOptions, recipe: str = "") -> None:
    """Carry out what is not done.

    Args:
        recipe: text that the stages were read from, which is kept for `status`.

    Raises:
        StageError: a command failed, too few samples, a limit, or nobody agreed to do things anew.
        InUseError: another speedrun is at work in the folder.
        PreflightError: too little disk, no GPU, or a bill beyond the limit.
    """
    if options.only is not None and options.only not in [stage.name for stage in stages]:
        names = ", ".join(stage.name for stage in stages)
        raise StageError(f"--only {options.only}: no such stage; there are {names}")
    with processes.hold(run, _say) as lock, _signals():
        write_bytes(run / STAGES / RECIPE, recipe.encode())
        planned = plan(stages, run)
        chosen = [item for item in planned if options.only in (None, item.stage.name)]
        if options.only is not None:
            needs = chosen[0].stage.needs
            if missing := [p.stage.name for p in planned if p.stage.name in needs and p.state != "done"]:
                raise StageError(f"{options.only}: needs {missing[0]}, which is not done as it is now")
        ask(chosen, run, options.yes)
        (run / LOGS).mkdir(exist_ok=True)
        for item in chosen:
            number = f"[{planned.index(item) + 1:>2}/{len(planned)}] {item.stage.name:<10}"
            _Work(item, run, lock, options.max_gpu_hours, number).finish()


class _Work:
    """A stage at work."""

    def __init__(
        self, item: PlannedStage, run: Path, lock: int, max_gpu_hours: float | None, number: str
    ) -> None:
        self.stage, self.inputs, self.state = item.stage, item.inputs, item.state
        self.run, self.lock, self.limit, self.number = run, lock, max_gpu_hours, number
        self.log = run / LOGS / f"{item.stage.name}.log"
        self.bill = read_bill_rows(run).get(item.stage.name)
        self.before = Spent()  # by all stages, when this attempt began
        self.attempt = 0
        self.done = Spent()  # by this attempt's finished commands
        self.beat = 0.0

    def finish(self) -> None:
        """Do what is missing, and say in a line what came out."""
        name = self.stage.name
        if self.state == "done":
            record = read_record(self.run, name) or {}
            _say(f"{self.number} {record.get('line', 'done'):<44} done before")
            self._check_least(record.get("units", {}))
            return
        self.before = spent_by_run(self.run)
        check_stage(self.stage, self.run, self.bill, self.before, self.limit)
        if self.state == "anew":
            self._move_away()
        record = self._attempt()
        billed = "" if self.bill is None else f" (bill {duration(3600 * float(self.bill.get('hours') or 0))})"
        _say(f"{self.number} {record['line']:<44} {duration(record['seconds'])}{billed}")
        self._check_least(record["units"])

    def _move_away(self) -> None:
        """Move what the stage made to `replaced`: first its record, so that it is not done from here on."""
        base = self.run / "replaced" / time.strftime("%Y%m%d-%H%M%S")
        add_attempt_line(self.run, self.stage.name, "replaced", to=str(base), time=_now())
        for path in (f"{STAGES}/{self.stage.name}.json", *self.stage.makes):
            place = self.run / path
            if place.exists() or place.is_symlink():
                target = base / path
                while target.exists():  # a second change within a second
                    target = target.with_name(f"{target.name}_")
                target.parent.mkdir(parents=True, exist_ok=True)
                place.rename(target)

    def _attempt(self) -> dict[str, Any]:
        """Carry out the commands that are not done; the record."""
        name, fingerprint = self.stage.name, self.inputs.fingerprint
        lines = attempt_lines(self.run, name)
        finished = commands_done(lines, fingerprint)
        self.attempt = 1 + sum(line["event"] == "start" for line in lines)
        begun: dict[str, Any] = {
            "fingerprint": fingerprint,
            "commands": [list(command) for command in self.inputs.commands],
            "needs": self.inputs.needs,
            "files": self.inputs.files,
        }
        add_attempt_line(self.run, name, "start", attempt=self.attempt, time=_now(), **begun)
        status = "failed"
        try:
            for number, command in enumerate(self.stage.commands):
                if number >= len(finished):
                    self._command(number, command)
            status = "done"
        except (KeyboardInterrupt, _Signalled):
            status = "stopped"
            raise
        finally:
            add_attempt_line(self.run, name, "end", attempt=self.attempt, status=status, **self.done.out())
        lines = attempt_lines(self.run, name)
        units = units_of(self.stage, self.run)
        seconds = [line for line in lines if line["event"] == "command"][-len(self.stage.commands) :]
        record = {
            "stage": name,
            **begun,
            **spent_on(lines, fingerprint).out(),
            "command_seconds": [line.get("own_seconds", 0.0) for line in seconds],
            "command_cpu_seconds": [line.get("own_cpu_seconds", 0.0) for line in seconds],
            "disk_bytes": sum(bytes_below(self.run / path) for path in self.stage.makes),
            "attempts": sum(
                line["event"] == "start" and line.get("fingerprint") == fingerprint for line in lines
            ),
            "units": units,
            "line": line_of(self.stage, units, self.log),
            "started": next(line["time"] for line in lines if line.get("fingerprint") == fingerprint),
            "finished": _now(),
        }
        write_record(self.run, name, record)
        return record

    def _command(self, number: int, command: Sequence[str]) -> None:
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
        _Status.begin(self.number)
        status, spent, stopped = processes.carry_out(
            command, self.run, self.log, self.lock, self.stage.gpus, self._watch
        )
        _Status.clear()
        self.done += spent
        own = {f"own_{key}": value for key, value in spent.out().items()}
        if status == 0 and not stopped:
            add_attempt_line(self.run, self.stage.name, "command", number=number, **own, **self.done.out())
            return
        if status == STOPPED and not stopped:
            _say(f"{self.stage.name}: was told to stop, and saved its state; run it again to go on")
            raise _Signalled(STOPPED)
        if stopped:
            raise StageError(f"{self.stage.name}: {stopped}; what is done stays")
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        said = last_line(self.log, 300).removeprefix("error: ")
        raise StageError(f"{self.stage.name}: `{_short(command)}` {how}: {said} (see {self.log})")

    def _watch(self, spent: Spent) -> str | None:
        """Show and store what a running command has spent; why it shall stop, if it shall."""
        so_far = self.done + spent
        _Status.show(last_line(self.log))
        # the longer it has taken, the rarer: a line of a stage of days is a minute old at most by then
        if so_far.seconds - self.beat >= max(BEAT, min(60.0, self.beat / 20)):
            self.beat = so_far.seconds
            add_attempt_line(self.run, self.stage.name, "beat", attempt=self.attempt, **so_far.out())
        total = (self.before + so_far).gpu_seconds / 3600
        if self.limit is not None and self.stage.gpus and total >= self.limit:
            return f"stopped at {total:.2f} GPU-hours, by --max_gpu_hours {self.limit:g}"
        return None

    def _check_least(self, units: dict[str, float]) -> None:
        least, samples = self.stage.least, units.get("samples", 0)
        if least is not None and samples < least:
            raise StageError(
                f"{self.stage.name}: has {samples:,.0f} samples and what comes next needs {least:,} "
                "(`least` in settings.yaml); what is done stays"
            )


def ask(planned: Sequence[PlannedStage], run: Path, yes: bool) -> None:
    """Say what is done anew, and ask once whether to.

    Raises:
        StageError: the answer was no, or there is no terminal.
    """
    if not unagreed(planned, run):
        return
    for line in explain(planned, run):
        _say(line)
    if not yes and not _answer("go on? [y/N] "):
        raise StageError("nothing was done; --yes does it without asking")
    agree(planned, run)


def _answer(question: str) -> bool:
    """Ask at the terminal, whatever standard input is; no where there is none, or in its background."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return False
        os.write(terminal, question.encode())
        return os.read(terminal, 100).strip().lower() in (b"y", b"yes")
    finally:
        os.close(terminal)


class _Status:
    """The last line of the log of what is running, on a terminal alone."""

    number, shown, when = "", "", 0.0

    @classmethod
    def begin(cls, number: str) -> None:
        cls.number, cls.shown, cls.when = number, "", 0.0

    @classmethod
    def show(cls, line: str) -> None:
        if sys.stdout.isatty() and line != cls.shown and time.monotonic() - cls.when > 0.5:
            cls.shown, cls.when = line, time.monotonic()
            width = os.get_terminal_size(sys.stdout.fileno()).columns
            print(f"\r\x1b[2K{f'{cls.number} {line}'[: width - 1]}", end="", flush=True)

    @classmethod
    def clear(cls) -> None:
        if sys.stdout.isatty():
            print("\r\x1b[2K", end="", flush=True)


class _Signalled(SystemExit):
    """SIGTERM, or SLURM's SIGUSR1, told the runner to end, or told its command."""


@contextmanager
def _signals() -> Iterator[None]:
    """End in order on SIGTERM and SIGUSR1, with the status that a shell gives a process killed by them."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise _Signalled(128 + number)

    before: dict[int, Any] = {n: signal.signal(n, end) for n in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    print(line.rstrip(), flush=True)


def _short(command: Sequence[str]) -> str:
    words = " ".join(command[1:4] if command[:2] == ("python", "-m") else command[:3])
    return words.removeprefix("-m ")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
