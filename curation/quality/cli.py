"""The commands about quality, as `python -m curation` lists them."""

from __future__ import annotations

from collections.abc import Callable

from curation.quality.selection.cli import COMMANDS as SELECTION

COMMANDS: dict[str, Callable[..., None]] = {**SELECTION}
