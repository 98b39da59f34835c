"""A run's folder: whose it is, whether it is finished, and its curve.

The same configuration and data give the same folder's contents; another's are refused by name.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import ModelConfig
from model.inference.lora import LAYERS
from shards.aliases import renewed
from shards.errors import ConfigError
from shards.files import is_unused, naming, write_bytes, write_json
from shards.serialization import to_dict

log = logging.getLogger(__name__)

RECORDED = ("model", "changes")  # in run.json, beside what was asked for


# settings that a run may go on with another value of, from the step at which it is resumed
CHANGEABLE = tuple(
    f"config.{name}"
    for name in (
        "optim.clip",
        "optim.max_skipped",
        "train.num_loss_samples",
        "train.num_val_samples",
        "train.precision",
        "train.save_every",
        "train.steps",
        "train.validate_every",
        "train.validate_loss_every",
    )
)


@dataclass(frozen=True)
class Change:
    """A field in which two identities differ, and its value in both; None where it is missing."""

    field: str
    before: Any
    now: Any

    @property
    def allowed(self) -> bool:
        """Whether a run may go on with it: a row of its mixture is new, or the setting is `CHANGEABLE`."""
        new_row = self.field.startswith("data.") and self.before is None and isinstance(self.now, dict)
        return new_row or self.field in CHANGEABLE


def claim(
    folder: Path, identity: dict[str, Any], defaults: dict[str, Any] | None = None, step: int = 0
) -> None:
    """Take a run folder for `identity` (configuration and data), or see that it is already its.

    What a run may change while it lasts is logged, and kept in `run.json` under `changes`.

    Args:
        defaults: the identity of a run without any settings. A setting that came after the folder's run was
            begun had, then, the value that it has there.
        step: that the run has reached.

    Raises:
        ConfigError: the folder holds another run (the first field that differs is named), or something that
            is no run at all.
    """
    file = folder / "run.json"
    identity = json.loads(json.dumps(identity))
    if file.is_file():
        try:
            held = json.loads(file.read_text())
        except ValueError as error:
            raise ConfigError(f"{file}: {error}; delete {folder} or choose another --run") from error
        theirs = held
        if isinstance(theirs, dict):  # the names in `data` are a mixture's, whatever settings were called
            theirs = {name: value if name == "data" else renewed(value) for name, value in theirs.items()}
        changes = list(differences(requested(theirs), identity, defaults=defaults or {}))
        for change in changes:
            if not change.allowed:
                raise ConfigError(
                    f"{folder} holds another run: {change.field} is {change.before!r} there and "
                    f"{change.now!r} here; delete it or choose another --run"
                )
        if changes:
            _record_changes(file, held, identity, changes, step)
        return
    if not is_unused(folder):
        raise ConfigError(f"{folder} exists and is no training run (no run.json); choose another --run")
    write_json(file, identity)


def _record_changes(
    file: Path, held: dict[str, Any], identity: dict[str, Any], changes: list[Change], step: int
) -> None:
    """Say what a run goes on with, and keep it beside what it is now."""
    for change in changes:
        log.info(
            "%s: from step %d on %s is %r, no longer %r",
            file.parent,
            step,
            change.field.removeprefix("config."),
            change.now,
            change.before,
        )
    made = [{"step": step, "field": c.field, "before": c.before, "now": c.now} for c in changes]
    kept = {name: held[name] for name in RECORDED if name in held}
    write_json(file, identity | kept | {"changes": [*held.get("changes", []), *made]})


def requested(held: Any) -> Any:
    """What a run's `run.json` says was asked for: without the model that came of it, and past changes.

    With `train.init_from` no model is asked for. Runs that were begun before 2026-11-28 have the default one
    there, which is not what they trained.
    """
    if not isinstance(held, dict):
        return held
    config = held.get("config")
    if (
        isinstance(config, dict)
        and isinstance(config.get("train"), dict)
        and config["train"].get("init_from")
    ):
        config = {name: value for name, value in config.items() if name != "model"}
    if isinstance(config, dict) and isinstance(lora := config.get("lora"), dict):
        # how the default was written before there was one for each family
        layers = None if lora.get("layers") == LAYERS else lora.get("layers")
        config = config | {"lora": {"base": "float32"} | lora | {"layers": layers}}
    return {name: value for name, value in held.items() if name not in RECORDED} | {"config": config}


def record_model(folder: Path, model: ModelConfig) -> None:
    """Add to a claimed folder's `run.json` the model that is trained, as the checkpoint's `config.json` is.

    It is not always the requested one: `train.init_from` brings a checkpoint's, and the codec's statistics
    and the widths of the encoders are only known once the data is open.
    """
    file = folder / "run.json"
    held = json.loads(file.read_text())
    kept = {name: held[name] for name in RECORDED if name in held}
    write_json(file, requested(held) | kept | {"model": to_dict(model)})


def differences(theirs: Any, ours: Any, where: str = "", defaults: Any = None) -> Iterator[Change]:
    """The fields in which two JSON values differ, in order.

    A field that `theirs` lacks has its value in `defaults`.
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        defaults = defaults if isinstance(defaults, dict) else {}
        for key in sorted(set(theirs) | set(ours)):
            default = defaults.get(key)
            pair = theirs.get(key, default), ours.get(key)
            yield from differences(*pair, f"{where}.{key}" if where else key, default)
    elif theirs != ours:
        yield Change(where, theirs, ours)


def finished(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished run, else None."""
    file = folder / "summary.json"
    if not file.is_file():
        return None
    summary: dict[str, Any] = json.loads(file.read_text())
    return summary


class MetricsCsv:
    """`curve.csv`: one line per step, flushed at once; no clock in it, so that equal runs are equal files.

    Args:
        done: lines of later steps, which were not saved, are dropped.
        optional: columns of what is not measured in every step; empty then. Those of the file that are not
            among them stay.
    """

    def __init__(self, path: Path, done: int, optional: Sequence[str] = ()) -> None:
        self.path = path
        always = ("step", "samples", "tokens", "loss", "lr", "grad_norm")
        kept: list[dict[str, str]] = []
        if done and path.is_file():
            reader = csv.DictReader(io.StringIO(path.read_text()))
            optional = list(
                dict.fromkeys([*(n for n in reader.fieldnames or () if n not in always), *optional])
            )
            kept = [row for row in reader if int(row["step"]) <= done]
        self.columns = (*always, *optional)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_bytes(path, buffer.getvalue().encode())
        self.samples = int(kept[-1]["samples"]) if kept else 0
        self.tokens = int(kept[-1]["tokens"]) if kept else 0
        self.first_loss = float(kept[0]["loss"]) if kept else None
        self._file = path.open("a")

    def add(self, step: int, samples: int, tokens: int, values: dict[str, float]) -> None:
        """Append a step; `samples` and `tokens` are those of the step, the file holds their running sums.

        `values` has the other columns, the optional ones if they were measured.
        """
        self.samples += samples
        self.tokens += tokens
        if self.first_loss is None:
            self.first_loss = values["loss"]
        numbers = [f"{values[c]:.9g}" if c in values else "" for c in self.columns[3:]]
        with naming(self.path):
            writer = csv.writer(self._file, lineterminator="\n")
            writer.writerow([step, self.samples, self.tokens, *numbers])
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
