"""The configurations that come with the package, wherever it is installed.

In a checkout they are `configs/` at its root; in a wheel they lie inside `shards`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def config_root() -> Path:
    """The folder `configs` of this installation."""
    installed = Path(str(resources.files("shards"))) / "configs"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "configs"


def config_file(path: str | Path) -> Path:
    """A configuration: the file at `path`, else the one that comes with the package under that name.

    So `configs/train/nano.yaml` means the same from any folder. A path that is neither is given back as it
    is, for its reader to refuse by name.
    """
    path = Path(path)
    packaged = config_root().parent / path
    return packaged if not path.exists() and path.parts[:1] == ("configs",) and packaged.is_file() else path
