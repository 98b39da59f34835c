"""What is known of the stages of a run: `stages/NAME.json` of those that are done, and every attempt.

A record is written last, atomically: a stage without one is not done. Attempts are lines of
`stages/NAME.attempts.jsonl`, so that the seconds of a killed one are counted to its last sign of life.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import ConfigError, EditVerseError
from shards.files import write_json
from shards.limits import read_json

STAGES = "stages"
LOGS = "logs"
RECIPE = "recipe.sh"  # in STAGES: the commands as they were last given


@dataclass(frozen=True)
class Spent:
    """What was spent: seconds of the clock, of processors, and of GPUs."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        """Both."""
        return Spent(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.gpu_seconds + other.gpu_seconds,
        )

    def out(self) -> dict[str, float]:
        """For JSON, to a hundredth of a second."""
        return {name: round(value, 2) for name, value in vars(self).items()}


def read_mapping(path: Path) -> dict[str, Any]:
    """What a JSON object in a file says; nothing where the file is absent, damaged or no object."""
    try:
        value = read_json(path)
    except (FileNotFoundError, EditVerseError):
        return {}
    return value if isinstance(value, dict) else {}


def read_record(run: Path, stage: str) -> dict[str, Any] | None:
    """The record of a stage that is done; None of one that is not.

    Raises:
        ConfigError: the file is damaged.
    """
    path = run / STAGES / f"{stage}.json"
    try:
        value = read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("fingerprint"), str):
        raise ConfigError(f"{path}: damaged; delete it, and the stage is done again")
    return value


def write_record(run: Path, stage: str, record: Mapping[str, Any]) -> None:
    """Say that a stage is done."""
    write_json(run / STAGES / f"{stage}.json", record)


def attempt_lines(run: Path, stage: str) -> list[dict[str, Any]]:
    """Events of all attempts at a stage: "start", "beat", "command", "end", "replaced"; oldest first.

    A line that was cut short, as by a kill or a full disk, is left out.
    """
    try:
        text = (run / STAGES / f"{stage}.attempts.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "event" in value:
            found.append(value)
    return found


def add_attempt_line(run: Path, stage: str, event: str, **fields: Any) -> None:
    """Append an event, on disk when this returns; it begins a new line whatever was cut short before."""
    path = run / STAGES / f"{stage}.attempts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        torn = handle.tell() > 0 and _last_byte(path) != b"\n"
        handle.write(b"\n" * torn + json.dumps({"event": event, **fields}).encode() + b"\n")
        handle.flush()
        os.fsync(handle.fileno())


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1)


def spent_on(lines: Iterable[Mapping[str, Any]], fingerprint: str | None = None) -> Spent:
    """What attempts took, those that were killed included.

    Args:
        lines: of `attempt_lines`.
        fingerprint: count only attempts at the stage as it is with this one; all when None.
    """
    total, last, counts = Spent(), Spent(), False
    for line in lines:
        if line["event"] == "start":
            total, last = total + last, Spent()
            counts = fingerprint is None or line.get("fingerprint") == fingerprint
        elif counts and "seconds" in line:
            last = Spent(*(float(line.get(name, 0.0)) for name in vars(Spent())))
    return total + last


def last_start(lines: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The start of the last attempt, with what it was done from; None if there was none."""
    starts = [line for line in lines if line["event"] == "start"]
    return starts[-1] if starts else None


def commands_done(lines: Iterable[Mapping[str, Any]], fingerprint: str) -> list[Mapping[str, Any]]:
    """The "command" events of what is finished of the stage with this fingerprint, in their order."""
    done: list[Mapping[str, Any]] = []
    counts = False
    for line in lines:
        if line["event"] == "start":
            counts = line.get("fingerprint") == fingerprint
            done = done if counts else []
        elif line["event"] == "replaced" or line.get("status") == "done":  # from its beginning, if ever again
            done = []
        elif counts and line["event"] == "command":
            done.append(line)
    return done


def spent_by_run(run: Path) -> Spent:
    """What all attempts at all stages of a run took."""
    total = Spent()
    for path in sorted((run / STAGES).glob("*.attempts.jsonl")):
        total += spent_on(attempt_lines(run, path.name.removesuffix(".attempts.jsonl")))
    return total


def read_bill_rows(run: Path) -> dict[str, dict[str, Any]]:
    """The rows of `bill.json` by stage, of which something is known; none where there is no bill.

    Raises:
        ConfigError: the file is damaged.
    """
    path = run / "bill.json"
    try:
        value = read_json(path)
    except FileNotFoundError:
        return {}
    try:
        rows = {row["stage"]: row for row in value["stages"]}
        return {
            name: row for name, row in rows.items() if any(map(row.get, ("hours", "gpu_hours", "disk_gib")))
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}: damaged ({error}); delete it, and the script writes it again") from None
