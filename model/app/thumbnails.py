"""Rows of small pictures that are clicked: what a session made, and the examples that come with the page."""

from __future__ import annotations

import base64
import html
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.app.service import EditOutput
from shards.media import resize

THUMBNAIL = 72  # pixels of height
KEPT = 8  # results of a session that are shown
SESSIONS = 500  # whose results are remembered; those that never close their page are forgotten in order
FOLDER = Path(__file__).parent / "examples"


@dataclass(frozen=True)
class Example:
    """A clip that comes with the page, an instruction for it, and whether the region is found first."""

    file: str
    text: str
    ground: bool = False

    @property
    def path(self) -> Path:
        """Where the clip is."""
        return FOLDER / self.file


EXAMPLES = (
    Example("yellow_cube.mp4", "<video1> Remove the yellow cube."),
    Example("red_cube.mp4", "<video1> Make the red cube blue.", ground=True),
    Example("green_egg.mp4", "<video1> Remove the green egg."),
)


@dataclass(frozen=True)
class Entry:
    """A result with all that was asked for: the values that a run takes, in that order."""

    values: tuple[Any, ...]
    result: EditOutput


class History:
    """The last results of every session; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, deque[Entry]] = OrderedDict()

    def add(self, session: str, entry: Entry) -> None:
        """Remember a result; the oldest of more than `KEPT` goes."""
        with self._lock:
            self._sessions.setdefault(session, deque(maxlen=KEPT)).appendleft(entry)
            self._sessions.move_to_end(session)
            while len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)

    def entries(self, session: str) -> list[Entry]:
        """The results of a session that are still there, the newest first."""
        with self._lock:
            return [entry for entry in self._sessions.get(session, ()) if entry.result.path.is_file()]

    def end_session(self, session: str) -> None:
        """Forget a session."""
        with self._lock:
            self._sessions.pop(session, None)


def thumbnail_row(title: str, pictures: Iterable[tuple[np.ndarray, str]]) -> str:
    """HTML of buttons, each a picture, uint8 RGB [H, W, 3], with words; "" without any.

    A button's `data-index` is its place in the row.
    """
    buttons = [
        f'<button type="button" data-index="{index}" title="{html.escape(words)}">'
        f'<img alt="" src="{data_address(_small(picture))}"><span>{html.escape(words)}</span></button>'
        for index, (picture, words) in enumerate(pictures)
    ]
    if not buttons:
        return ""
    return f'<p class="row-title">{html.escape(title)}</p><div class="thumbnails">{"".join(buttons)}</div>'


def data_address(picture: np.ndarray) -> str:
    """A picture, uint8 RGB [H, W, 3], as a `data:` address, JPEG."""
    flipped = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _small(picture: np.ndarray) -> np.ndarray:
    width = max(2, round(picture.shape[1] * THUMBNAIL / picture.shape[0]))
    return resize(picture, (THUMBNAIL, min(width, 3 * THUMBNAIL)))
