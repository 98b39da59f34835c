"""The weights that come with the package, by name; no torch is needed to find them."""

from __future__ import annotations

from pathlib import Path

CONFIG = "config.json"
BUNDLED = Path(__file__).resolve().parents[1] / "weights"


def shipped(path: Path) -> Path:
    """The folder of weights that come with the package, if `path` is their name and no own folder."""
    named = not path.exists() and len(path.parts) == 1 and (BUNDLED / path / CONFIG).is_file()
    return BUNDLED / path if named else path
