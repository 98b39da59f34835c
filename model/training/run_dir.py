"""A run's folder: whose it is, whether it is finished, and its curve.

The same configuration and data give the same folder's contents; another's are refused by name.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from model.config import ModelConfig
from model.inference.lora import LAYERS
from shards.aliases import renewed
from shards.errors import ConfigError
from shards.files import is_unused, naming, write_bytes, write_json
from shards.serialization import to_dict


def claim(folder: Path, identity: dict[str, Any], defaults: dict[str, Any] | None = None) -> None:
    """Take a run folder for `identity` (configuration and data), or see that it is already its.

    Args:
        defaults: the identity of a run without any settings. A setting that came after the folder's run was
            begun had, then, the value that it has there.

    Raises:
        ConfigError: the folder holds another run (the first field that differs is named), or something that
            is no run at all.
    """
    file = folder / "run.json"
    identity = json.loads(json.dumps(identity))
    if file.is_file():
        try:
            theirs = json.loads(file.read_text())
        except ValueError as error:
            raise ConfigError(f"{file}: {error}; delete {folder} or choose another --run") from error
        if isinstance(theirs, dict):  # the names in `data` are a mixture's, whatever settings were called
            theirs = {name: value if name == "data" else renewed(value) for name, value in theirs.items()}
        difference = first_difference(requested(theirs), identity, defaults=defaults or {})
        if difference:
            raise ConfigError(f"{folder} holds another run: {difference}; delete it or choose another --run")
        return
    if not is_unused(folder):
        raise ConfigError(f"{folder} exists and is no training run (no run.json); choose another --run")
    write_json(file, identity)


def requested(held: Any) -> Any:
    """What a run's `run.json` says was asked for: without the model that came of it.

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
        config = config | {
            "lora": lora | {"layers": None if lora.get("layers") == LAYERS else lora.get("layers")}
        }
    return {name: value for name, value in held.items() if name != "model"} | {"config": config}


def record_model(folder: Path, model: ModelConfig) -> None:
    """Add to a claimed folder's `run.json` the model that is trained, as the checkpoint's `config.json` is.

    It is not always the requested one: `train.init_from` brings a checkpoint's, and the codec's statistics
    and the widths of the encoders are only known once the data is open.
    """
    file = folder / "run.json"
    write_json(file, requested(json.loads(file.read_text())) | {"model": to_dict(model)})


def first_difference(theirs: Any, ours: Any, where: str = "", defaults: Any = None) -> str:
    """The first field in which two JSON values differ, in words; empty when they are equal.

    A field that `theirs` lacks has its value in `defaults`.
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        defaults = defaults if isinstance(defaults, dict) else {}
        for key in sorted(set(theirs) | set(ours)):
            default = defaults.get(key)
            pair = theirs.get(key, default), ours.get(key)
            if found := first_difference(*pair, f"{where}.{key}" if where else key, default):
                return found
        return ""
    return "" if theirs == ours else f"{where} is {theirs!r} there and {ours!r} here"


def finished(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished run, else None."""
    file = folder / "summary.json"
    if not file.is_file():
        return None
    summary: dict[str, Any] = json.loads(file.read_text())
    return summary


class MetricsCsv:
    """`curve.csv`: one line per step, flushed at once; no clock in it, so that equal runs are equal files."""

    def __init__(self, path: Path, done: int) -> None:
        """Continue after step `done`; later lines, of steps that were not saved, are dropped."""
        self.path = path
        self.columns = ("step", "samples", "tokens", "loss", "lr", "grad_norm")
        kept = []
        if done and path.is_file():
            kept = [row for row in csv.DictReader(io.StringIO(path.read_text())) if int(row["step"]) <= done]
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
        """Append a step; `samples` and `tokens` are those of the step, the file holds their running sums."""
        self.samples += samples
        self.tokens += tokens
        if self.first_loss is None:
            self.first_loss = values["loss"]
        numbers = [f"{values[c]:.9g}" for c in self.columns[3:]]
        with naming(self.path):
            self._file.write(",".join([str(step), str(self.samples), str(self.tokens), *numbers]) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
