"""The commands about quality, as `python -m curation` lists them."""

from __future__ import annotations

from collections.abc import Callable

COMMANDS: dict[str, Callable[..., None]] = {}
