"""Shards -> a trained editor; an instruction and media -> edited media.

`model.Editor` is loaded on first use, so that importing the package stays cheap and offline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.editor import Edit, Editor

__all__ = ["Edit", "Editor"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from model import editor

        return getattr(editor, name)
    raise AttributeError(f"module 'model' has no attribute {name!r}")
