"""The commands about quality, as `python -m curation` lists them."""

from __future__ import annotations

from collections.abc import Callable

from curation.quality import grade_cli, plant_cli
from curation.quality.selection.cli import COMMANDS as SELECTION

COMMANDS: dict[str, Callable[..., None]] = {**grade_cli.COMMANDS, **plant_cli.COMMANDS, **SELECTION}
