"""When a stage is done: its commands, the contents of all that they are told by, and the stages before it.

A stage is skipped while this is what it was. Of a configuration in YAML or JSON counts what it says, so that
comments, layout and the order of keys cost nothing; configurations that it names are followed. What lies in
the run's folder, or what a command is told to write, is made by the stages themselves and counts by them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editverse.speedrun.recipe import Stage, without_launcher
from shards.errors import EditVerseError
from shards.files import sha256_of
from shards.hashing import digest
from shards.limits import read_json, read_yaml
from shards.resources import config_file, config_root, named_in

CONFIGS = (".yaml", ".yml", ".json")
TABLES = (".csv", ".jsonl", ".txt")  # lists of clips, labels: by their bytes
OUTPUTS = ("--out", "--dir", "--workspace")  # options whose folder is written
# Settings of a training that the encoding of its data does not read: they may change without encoding anew.
NOT_ENCODING = frozenset(
    {"run", "optim", "parallel", "lora", "distill"}
    | {f"train.{name}" for name in ("steps", "seed", "precision", "threads", "deterministic", "wandb")}
    | {f"train.{name}" for name in ("save_every", "max_checkpoints", "validate_every", "num_val_samples")}
    | {"train.validate_loss_every"}
    | {f"data.{name}" for name in ("batch_size", "token_budget", "text_drop_prob", "edit_weight")}
    | {f"data.{name}" for name in ("workers", "prefetch", "cache_gib")}
)
MAX_CONFIG = 16 * 2**20  # bytes of a configuration whose contents are read
MAX_ENTRIES = 100_000  # files of a folder that are looked at


@dataclass(frozen=True)
class Inputs:
    """What a stage is done from.

    Attributes:
        commands: argument lists.
        files: sha256 (hexadecimal) by path of every configuration, list and folder that the commands name.
        needs: fingerprint by name of the stages that it needs.
    """

    commands: tuple[tuple[str, ...], ...]
    files: dict[str, str]
    needs: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Of all of it, 64 hexadecimal digits."""
        return digest([self.commands, self.files, self.needs])

    def changes(self, before: Mapping[str, Any]) -> list[str]:
        """What is not as it was: files by their path, else the first command that differs, else the needs.

        Args:
            before: a record of the stage with "commands", "files" and "needs".
        """
        files = before.get("files", {})
        named = [path for path, value in self.files.items() if path in files and files[path] != value]
        if named:
            return named
        commands = [tuple(command) for command in before.get("commands", [])]
        if commands != list(self.commands):
            added = [command for command in self.commands if command not in commands]
            return [_difference(added[0], commands)] if added else ["fewer commands"]
        if set(files) != set(self.files):
            return sorted(set(files) ^ set(self.files))
        return [name for name, value in self.needs.items() if before.get("needs", {}).get(name) != value]


def _difference(command: Sequence[str], before: Sequence[Sequence[str]]) -> str:
    """The words of a command that its most similar forerunner does not have; the command if there is none."""
    alike = max(before, key=lambda other: len(set(command) & set(other)), default=())
    new = [word for word in command if word not in alike]
    words = " ".join(new if alike and new else command)
    return f"the command ({words if len(words) <= 120 else words[:117] + '...'})"


def inputs_of(stages: Sequence[Stage], run: Path) -> dict[str, Inputs]:
    """What each stage is done from, by its name.

    Args:
        run: the run's folder, in which the commands are carried out.
    """
    found: dict[str, Inputs] = {}
    pairs = [pair for stage in stages for command in stage.commands for pair in itertools.pairwise(command)]
    made = {word for before, word in pairs if before in OUTPUTS}
    for stage in stages:
        files: dict[str, str] = {}
        for command in stage.commands:
            for word in set(command) - made:
                for part in {word, word.partition("=")[2]}:
                    _add(files, part, run, run, NOT_ENCODING if "precompute" in command else frozenset())
        needs = {need: found[need].fingerprint for need in stage.needs}
        commands = tuple(map(without_launcher, stage.commands))
        found[stage.name] = Inputs(commands, dict(sorted(files.items())), needs)
    return found


def _add(
    files: dict[str, str], word: str, base: Path, run: Path, unread: frozenset[str] = frozenset()
) -> None:
    """Add the file or folder that a word names, outside of the run, and those that it names itself.

    Args:
        unread: keys of the file, with dots, that do not count.
    """
    if not word or "\n" in word or len(word) > 1000 or "\0" in word:
        return
    known = word.startswith("configs/") and not (base / word).exists()
    path = config_file(word) if known else Path(os.path.normpath(base / word))
    if path.is_relative_to(run.resolve()) or path.is_relative_to(run):
        return
    name = shown(path)
    if name in files:
        return
    if path.is_file() and path.suffix in CONFIGS and path.stat().st_size <= MAX_CONFIG:
        value = _without(_parsed(path), unread)
        files[name] = digest(_plain(value))
        for text in _texts(value):
            _add_named(files, text, path, run)
    elif path.is_file() and path.suffix in TABLES:
        files[name] = sha256_of(path)
    elif path.is_dir() and "/" in word and path != config_root().parent:
        files[name] = digest(sorted(_entries(path)))


def _add_named(files: dict[str, str], text: str, config: Path, run: Path) -> None:
    """Add a configuration that another one names; data that one names is a folder of the run."""
    if text.endswith((*CONFIGS, *TABLES)) and len(text) <= 1000 and "\0" not in text:
        _add(files, str(named_in(config, text)), run, run)


def _parsed(path: Path) -> Any:
    """What a configuration says; its bytes' sha256 where it cannot be read."""
    try:
        return read_json(path) if path.suffix == ".json" else read_yaml(path)
    except EditVerseError:  # its own reader says what is wrong with it
        return sha256_of(path)


def _without(value: Any, unread: frozenset[str], before: str = "") -> Any:
    if not unread or not isinstance(value, dict):
        return value
    return {
        key: _without(item, unread, f"{before}{key}.")
        for key, item in value.items()
        if f"{before}{key}" not in unread
    }


def _plain(value: Any) -> Any:
    """The same in JSON's kinds, with keys that it can sort: texts, which tell `1` from `"1"`."""
    if isinstance(value, dict):
        return {f"{type(key).__name__}:{key}": _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)  # a date of YAML's


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(item)


def _entries(folder: Path) -> Iterator[tuple[str, int]]:
    """Names, relative to the folder, and sizes of its files; those that begin with a dot do not count."""
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and name != "lock":
                path = Path(place, name)
                yield str(path.relative_to(folder)), path.stat().st_size if path.exists() else 0
                seen += 1
        if seen > MAX_ENTRIES:
            return


def shown(path: Path) -> str:
    """A path by which a file is the same to all installations: a job on a cluster has a copy of the code.

    What comes with the package is `configs/...` in each of them; anything else is where it is.
    """
    root = config_root()
    return f"configs/{path.relative_to(root)}" if path.is_relative_to(root) else str(path)
