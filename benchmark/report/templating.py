"""How pages are made from templates, and how their content security policies know their own scripts."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2

from shards.reports.pages import ASSETS

TEMPLATES = Path(__file__).parent / "templates"


def environment(*folders: Path) -> jinja2.Environment:
    """The templates of folders, of this room, and what all pages share.

    Texts are escaped, names that are none refused.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES, ASSETS]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def joined(*names: str) -> str:
    """The texts of files that templates are found beside, one after the other."""
    made = environment()
    return "\n".join(made.loader.get_source(made, name)[0] for name in names)  # type: ignore[union-attr]


def policy_hash(text: str) -> str:
    """The source expression of a policy that allows an inline script or style, sha256-..., without quotes."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
