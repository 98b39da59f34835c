"""What `scripts/speedrun.sh --print` prints, read: stages in their order, each with its commands.

The text is a shell script itself. A stage begins with a comment, and every other line is one command:

    # stage gates --needs curation\\,imports --makes data/clean --least 100
    python -m curation filter data/imported/pairs --rules gates/rules.yaml --out data/clean/pairs
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.command import nearest
from shards.errors import ConfigError

BEGIN = "# stage "
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
PYTHON = "python"  # as the text has it; carried out by the interpreter that runs the runner
OPTIONS = ("needs", "makes", "counts", "least", "gpus")
LAUNCHER = (PYTHON, "-m", "torch.distributed.run")


class RecipeError(ConfigError):
    """A text that is no recipe; the message names the line and the stage."""


@dataclass(frozen=True)
class Stage:
    """A stage of a speedrun.

    Attributes:
        name: a word of lower-case letters, digits and underscores.
        commands: argument lists, carried out one after the other without a shell.
        needs: stages before it whose output it reads.
        makes: files and folders, relative to the run, that are moved away before it is done anew with other
            settings.
        counts: of `makes`, the folders of shards whose samples are its outcome; all of them when empty.
        least: samples that must be in those when it is done; None for any number.
        gpus: that it works on; 0 for none.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    needs: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    least: int | None = None
    gpus: int = 0


def without_launcher(command: tuple[str, ...]) -> tuple[str, ...]:
    """A command without torchrun and its options: how many processes share the work does not change it."""
    if command[:3] == LAUNCHER and "--" in command:
        return (*command[:2], *command[command.index("--") + 1 :])
    return command


def is_training(command: Sequence[str]) -> bool:
    """Whether several processes share the command: training and distillation, a process per GPU."""
    return tuple(without_launcher(tuple(command))[1:3]) == ("-m", "model") and bool(
        {"fit", "distill"} & set(command)
    )


def read_recipe(text: str) -> tuple[Stage, ...]:
    """The stages of a recipe.

    Raises:
        RecipeError: a line that is no shell words, a command before the first stage, a stage without a
            command or twice, an unknown option, or a need that is no stage before it.
    """
    stages: list[Stage] = []
    lines: list[tuple[str, ...]] = []
    head: tuple[str, dict[str, str]] | None = None

    def finish() -> None:
        if head is not None:
            stages.append(_stage(head[0], head[1], lines, [stage.name for stage in stages]))

    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line.removeprefix("#") if line.startswith(BEGIN) else line, comments=False)
        except ValueError as error:
            raise RecipeError(f"recipe, line {number}: {error}: {line[:80]!r}") from None
        if line.startswith(BEGIN):
            finish()
            head, lines = _head(words[1:], number), []
        elif line.startswith(("#", "cd ")) or not words:
            continue
        elif head is None:
            raise RecipeError(f"recipe, line {number}: a command before the first stage: {line[:80]!r}")
        else:
            lines.append(tuple(words))
    finish()
    if not stages:
        raise RecipeError("recipe: has no stage; it is what scripts/speedrun.sh --print prints")
    return tuple(stages)


def _head(words: Sequence[str], number: int) -> tuple[str, dict[str, str]]:
    name, *rest = words or [""]
    if not NAME.fullmatch(name):
        raise RecipeError(f"recipe, line {number}: {name[:40]!r} is no name of a stage")
    options: dict[str, str] = {}
    for option, value in zip(rest[::2], [*rest[1::2], ""], strict=False):
        if (known := option.removeprefix("--")) not in OPTIONS or not option.startswith("--"):
            close = nearest(known, OPTIONS, "--")
            raise RecipeError(f"recipe, line {number}: stage {name}: no option {option}{close}")
        options[known] = value
    return name, options


def _stage(name: str, options: dict[str, str], lines: Sequence[tuple[str, ...]], before: list[str]) -> Stage:
    numbers = {}
    for option in ("least", "gpus"):
        if value := options.get(option, ""):
            if not value.isdigit():
                raise RecipeError(f"recipe: stage {name}: --{option} {value[:40]}: expected a whole number")
            numbers[option] = int(value)
    needs, makes, counts = (
        tuple(filter(None, options.get(option, "").split(","))) for option in ("needs", "makes", "counts")
    )
    if name in before:
        raise RecipeError(f"recipe: stage {name} is there twice")
    if not lines:
        raise RecipeError(f"recipe: stage {name} has no command")
    if unknown := [need for need in needs if need not in before]:
        raise RecipeError(f"recipe: stage {name} needs {unknown[0]}, which is no stage before it")
    if odd := [path for path in (*makes, *counts) if Path(path).is_absolute() or ".." in Path(path).parts]:
        raise RecipeError(f"recipe: stage {name}: --makes {odd[0]}: is no path inside the run's folder")
    return Stage(name, tuple(lines), needs, makes, counts, numbers.get("least"), numbers.get("gpus", 0))
