"""The settings of a size, `configs/speedrun/<size>/settings.yaml`, as the script takes them.

A flat mapping: a text, number or truth value becomes a variable of the script, and a list of texts an array.
There are two exceptions: `by_gpus` has options by number of GPUs and stage, for `<stage>_options`; `slurm`
has what jobs ask for (`slurm.JobOptions`), for `slurm_options`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.command import nearest
from shards.errors import SettingError
from shards.limits import read_yaml, shown
from shards.resources import config_root

BY_GPUS, SLURM = "by_gpus", "slurm"
KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Names that mean something to bash or to the script itself.
TAKEN = {"path", "home", "ifs", "root", "size", "out", "run", "stage", "train", "config"}


def folder_of(size: str) -> Path:
    """The folder of a size: one of configs/speedrun by its name, or any folder with a settings.yaml.

    Raises:
        SettingError: there is none.
    """
    known = config_root() / "speedrun" / size
    for folder in (known, Path(size)):
        if (folder / "settings.yaml").is_file():
            return folder
    sizes = sorted(path.parent.name for path in (config_root() / "speedrun").glob("*/settings.yaml"))
    raise SettingError(
        f"size {shown(size)}: no such size{nearest(size, sizes)}; there are {', '.join(sizes)}, "
        "or give a folder with a settings.yaml"
    )


def read_settings(size: str, changes: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The settings of a size.

    Args:
        size: as for `folder_of`.
        changes: replace settings that are there.

    Raises:
        SettingError: no such size, or a setting that is no text, number, truth value or list of those.
    """
    path = folder_of(size) / "settings.yaml"
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise SettingError(f"{path}: expected names and values, got {shown(settings)}")
    for name in changes:
        if name not in settings:
            raise SettingError(f"--set {name}: {path} has no such setting{nearest(name, list(settings))}")
    settings = {**settings, **changes}
    for name, value in settings.items():
        if not isinstance(name, str) or not KEY.fullmatch(name) or name in TAKEN:
            raise SettingError(
                f"{path}: {shown(name)}: a name is lower-case letters, digits and _, and not taken"
            )
        if name in (BY_GPUS, SLURM):
            continue
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, str | int | float | None) or "\n" in str(part):
                raise SettingError(f"{path}: {name}: expected a line, number or list, got {shown(part)}")
    return settings


def gpu_options(settings: Mapping[str, Any], gpus: int) -> dict[str, list[str]]:
    """By stage: the options of its command on so many GPUs, of the entry of `by_gpus` just below.

    Raises:
        SettingError: `by_gpus` is no mapping of numbers to stages to options.
    """
    entries = settings.get(BY_GPUS) or {}
    numbered = isinstance(entries, dict) and all(isinstance(number, int) for number in entries)
    stages = list(entries.values()) if numbered else [None]
    if not all(isinstance(s, dict) and all(isinstance(o, dict) for o in s.values()) for s in stages):
        raise SettingError(f"{BY_GPUS}: expected options by stage by number of GPUs, got {shown(entries)}")
    number = max((number for number in entries if number <= gpus), default=min(entries, default=None))
    return {
        name: [word for key, value in options.items() for word in (f"--{key}", _text(value))]
        for name, options in ({} if number is None else entries[number]).items()
    }


def shell_variables(settings: Mapping[str, Any], gpus: int | None) -> str:
    """Assignments for bash: `base=nano`, `graded=(curated/removal imported/pairs)`.

    Args:
        gpus: that the run has; those of the settings when None.
    """
    number = int(settings.get("gpus") or 0) if gpus is None else gpus
    lines = []
    for name, value in {**settings, "gpus": number}.items():
        if isinstance(value, list):
            lines.append(f"{name}=({' '.join(shlex.quote(_text(part)) for part in value)})")
        elif name not in (BY_GPUS, SLURM):
            lines.append(f"{name}={shlex.quote(_text(value))}")
    for stage, words in gpu_options(settings, number).items():
        lines.append(f"{stage}_options=({' '.join(map(shlex.quote, words))})")
    if not isinstance(asked := settings.get(SLURM) or {}, dict):
        raise SettingError(f"{SLURM}: expected what jobs ask for by name, got {shown(asked)}")
    words = [shlex.quote(f"--slurm.{name}={_text(value)}") for name, value in asked.items()]
    return "\n".join([*lines, f"slurm_options=({' '.join(words)})"])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
