"""Serve the page in a Space, where the address of the outside is given by the environment.

The page's own guard stays before Gradio (`model/app/security.py`): only the Space's host name is answered.
"""

import os

from model import Editor
from model.app.server import serve
from model.app.service import AppConfig

MEGABYTES = 50  # of a file: a Space is shared, and small


def settings() -> AppConfig:
    """The address, and limits for a machine that strangers share."""
    host = os.environ.get("SPACE_HOST", "").lower()
    return AppConfig(
        host="0.0.0.0",
        port=int(os.environ.get("PORT", "7860")),
        queue=20,
        max_upload_mb=MEGABYTES,
        max_frames=120,
        max_stored_mb=2000,
        allowed_hosts=(host,) if host else (),
    )


if __name__ == "__main__":
    serve(Editor.from_pretrained(os.environ.get("EDITVERSE_CHECKPOINT", "nano")), settings())
