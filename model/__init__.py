"""Shards -> a trained editor; an instruction and media -> edited media.

The public names are loaded on first use, so that importing the package stays cheap and offline.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.inference.bundled import shipped
    from model.inference.edit import Edit
    from model.inference.editor import Editor

__all__ = ["Edit", "Editor", "shipped"]

_MODULES = {
    "Edit": "model.inference.edit",
    "Editor": "model.inference.editor",
    "shipped": "model.inference.bundled",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'model' has no attribute {name!r}")
