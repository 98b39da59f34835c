"""The commands about quality, as `python -m curation` lists them."""

from __future__ import annotations

from collections.abc import Callable

from curation.quality import grade_cli, selection_cli

COMMANDS: dict[str, Callable[..., None]] = {**grade_cli.COMMANDS, **selection_cli.COMMANDS}
