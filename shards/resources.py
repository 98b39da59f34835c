"""Folders of an installation: the configurations that come with the package, and the cache of this machine.

In a checkout the configurations are `configs/` at its root; in a wheel they lie inside `shards`.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path


def cache_root() -> Path:
    """Where copies of remote files are kept on this machine: `EDITVERSE_CACHE`, or ~/.cache/editverse."""
    if chosen := os.environ.get("EDITVERSE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "editverse"


def config_root() -> Path:
    """The folder `configs` of this installation."""
    installed = Path(str(resources.files("shards"))) / "configs"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "configs"


def config_file(path: str | Path) -> Path:
    """A configuration: the file at `path`, else the one that comes with the package under that name.

    So `configs/train/nano.yaml` means the same from any folder. A path that is neither is given back as it
    is, for its reader to refuse by name.
    """
    return _else_packaged(Path(path), path)


def named_in(file: str | Path, path: str | Path) -> Path:
    """The configuration that another one, `file`, names: relative to the folder of `file`.

    What is not there may be one that comes with the package, as for `config_file`.
    """
    return _else_packaged(Path(os.path.normpath(Path(file).parent / path)), path)


def _else_packaged(place: Path, path: str | Path) -> Path:
    packaged = config_root().parent / path
    known = Path(path).parts[:1] == ("configs",) and packaged.is_file()
    return packaged if known and not place.exists() else place
