"""The commands of data sets, as `python -m curation` lists them."""

from __future__ import annotations

from collections.abc import Callable

from curation.datasets.exporters.command import export, formats

COMMANDS: dict[str, Callable[..., None]] = {"export": export, "formats": formats}
