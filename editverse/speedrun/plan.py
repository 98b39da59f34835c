"""Which stages of a run are done, which are to be done, and which anew since something changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from editverse.speedrun.fingerprint import Inputs, inputs_of
from editverse.speedrun.recipe import Stage
from editverse.speedrun.records import (
    STAGES,
    attempt_lines,
    last_start,
    read_bill_rows,
    read_mapping,
    read_record,
)
from shards.files import write_json

AGREED = "agreed.json"


@dataclass(frozen=True)
class PlannedStage:
    """A stage, and what is to happen with it.

    Attributes:
        state: "done"; "go on" with an attempt that did not end, or begin; "anew": it was begun or done from
            something else, and what it made is moved away first.
        changes: why it is done anew: files, a command, or stages that it needs.
        own: whether something of its own changed, not only a stage that it needs.
    """

    stage: Stage
    inputs: Inputs
    state: Literal["done", "go on", "begin", "anew"]
    changes: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether it is done anew for a change of its own, and not only of a stage that it needs."""
        return bool(set(self.changes) - set(self.stage.needs))


def plan(stages: Sequence[Stage], run: Path) -> list[PlannedStage]:
    """What a run of these stages in a folder will do."""
    planned = []
    for stage, inputs in zip(stages, inputs_of(stages, run).values(), strict=True):
        before: Mapping[str, Any] | None = read_record(run, stage.name)
        done = before is not None
        before = before or last_start(attempt_lines(run, stage.name))
        if before is None or not (done or any((run / path).exists() for path in stage.makes)):
            planned.append(PlannedStage(stage, inputs, "begin"))
        elif before.get("fingerprint") != inputs.fingerprint:
            changes = tuple(inputs.changes(before)) or ("a setting",)
            planned.append(PlannedStage(stage, inputs, "anew", changes))
        else:
            planned.append(PlannedStage(stage, inputs, "done" if done else "go on"))
    return planned


def explain(planned: Sequence[PlannedStage], run: Path) -> list[str]:
    """Lines that say what changed, what is done anew for it, and what the bill says of that."""
    anew = [item for item in planned if item.state == "anew"]
    lines = [f"{item.stage.name}: changed: {', '.join(item.changes)}" for item in anew if item.own]
    if not anew:
        return []
    rows = read_bill_rows(run)
    names = [item.stage.name for item in anew]
    known = [rows[name] for name in names if name in rows]
    hours = sum(float(row.get("hours") or 0.0) for row in known)
    gpu_hours = sum(float(row.get("gpu_hours") or 0.0) for row in known)
    bill = f"{duration(hours * 3600)}, {gpu_hours:.2f} GPU-hours by the bill" if known else "no bill"
    return [
        *lines,
        f"done anew: {', '.join(names)} ({bill}); what they made is moved to {run / 'replaced'}",
    ]


def unagreed(planned: Sequence[PlannedStage], run: Path) -> list[PlannedStage]:
    """Stages that are done anew and were not agreed to as they are now."""
    agreed = read_mapping(run / STAGES / AGREED)
    return [
        item
        for item in planned
        if item.state == "anew" and agreed.get(item.stage.name) != item.inputs.fingerprint
    ]


def agree(planned: Sequence[PlannedStage], run: Path) -> None:
    """Remember that all that the plan does anew was agreed to."""
    new = {item.stage.name: item.inputs.fingerprint for item in planned if item.state == "anew"}
    write_json(run / STAGES / AGREED, read_mapping(run / STAGES / AGREED) | new)


def duration(seconds: float) -> str:
    """Seconds in words: "43 s", "1 min 12 s", "3 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.1f} days"
