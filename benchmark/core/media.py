"""Frames and sizes of results: videos, pictures, folders of pictures.

Reads through `shards.media`; in the mode `official` videos are read as the published programs read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from benchmark.core.item import Geometry, Mode
from benchmark.core.stored_frames import read_stored
from shards.files import inside
from shards.media import probe, read_image, read_video

IMAGES = {".png", ".jpg", ".jpeg", ".webp"}

_reading: ContextVar[Mode] = ContextVar("_reading", default="corrected")


@contextmanager
def reading(mode: Mode) -> Iterator[None]:
    """Suites and systems that are opened within read their videos as this mode does, from then on."""
    token = _reading.set(mode)
    try:
        yield
    finally:
        _reading.reset(token)


def reading_mode() -> Mode:
    """What `reading` says here: to be kept by whoever reads later, maybe in another thread."""
    return _reading.get()


def locate(folder: Path, name: str) -> Path:
    """Where a video, a picture or a folder of pictures lies that a list names; see `shards.files.inside`.

    Raises OutsideError for what is not under `folder`, as every picture of a folder must be.
    """
    place = inside(folder, name)
    if place.is_dir():
        for entry in place.iterdir():
            inside(folder, str(entry.relative_to(folder)))
    return place


def geometry_of(path: Path, fps: float, mode: Mode = "corrected") -> Geometry:
    """Of a video, a picture, or a folder of pictures, which have the rate `fps`.

    In `official` a video of variable rate has as many frames as are stored.
    """
    if path.is_dir() or path.suffix in IMAGES:
        frames, height, width, _ = read_frames(path).shape
        return Geometry(frames, height, width, fps)
    info = probe(path)
    if mode == "official" and (info.variable_rate or path.suffix == ".gif"):
        return Geometry(len(read_frames(path, mode)), info.height, info.width, info.fps)
    return Geometry(info.frames, info.height, info.width, info.fps)


def read_frames(path: Path, mode: Mode = "corrected") -> np.ndarray:
    """uint8 RGB [T, H, W, 3] of a video, a picture, or a folder of pictures in the order of their names.

    `official` takes a video's stored frames, see `benchmark.core.stored_frames`.

    Raises shards.media.MediaError or ValueError naming the file.
    """
    if path.is_dir():
        pictures = [read_image(p) for p in sorted(path.iterdir()) if p.suffix in IMAGES]
        if len({p.shape for p in pictures}) != 1:
            raise ValueError(f"{path}: its pictures differ in size")
        return np.stack(pictures)
    if path.suffix in IMAGES:
        return read_image(path)[None]
    return read_stored(path) if mode == "official" else read_video(path)[0]
