"""Posters: the first frame of a video of the page as a small JPEG, shown until the video is loaded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from shards.files import write_bytes
from shards.media import iter_frames, resize, shrunk_size

LONGEST = 288  # pixels of the longer side
QUALITY = 70


def poster_of(video: Path) -> Path:
    """Where a video's poster lies, made now if it is not there; MediaError for an unreadable video."""
    path = video.with_suffix(".jpg")
    if not path.is_file():
        write_poster(video, next(iter_frames(video, stop=1)))
    return path


def write_poster(video: Path, frame: np.ndarray) -> None:
    """Write `frame`, uint8 RGB [H, W, 3], as the poster beside a video."""
    from PIL import Image

    size = shrunk_size((frame.shape[0], frame.shape[1]), LONGEST)
    held = io.BytesIO()
    Image.fromarray(resize(frame[None], size)[0]).save(held, "JPEG", quality=QUALITY)
    write_bytes(video.with_suffix(".jpg"), held.getvalue())
