"""Frames and sizes of results: videos, pictures, folders of pictures.

Reads through `shards.media`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.core.item import Geometry
from shards.files import inside
from shards.media import probe, read_image, read_video

IMAGES = {".png", ".jpg", ".jpeg", ".webp"}


def locate(folder: Path, name: str) -> Path:
    """Where a video, a picture or a folder of pictures lies that a list names; see `shards.files.inside`.

    Raises OutsideError for what is not under `folder`, as every picture of a folder must be.
    """
    place = inside(folder, name)
    if place.is_dir():
        for entry in place.iterdir():
            inside(folder, str(entry.relative_to(folder)))
    return place


def geometry_of(path: Path, fps: float) -> Geometry:
    """Of a video, a picture, or a folder of pictures, which have the rate `fps`."""
    if path.is_dir() or path.suffix in IMAGES:
        frames, height, width, _ = read_frames(path).shape
        return Geometry(frames, height, width, fps)
    info = probe(path)
    return Geometry(info.frames, info.height, info.width, info.fps)


def read_frames(path: Path) -> np.ndarray:
    """uint8 RGB [T, H, W, 3] of a video, a picture, or a folder of pictures in the order of their names.

    Raises shards.media.MediaError or ValueError naming the file.
    """
    if path.is_dir():
        pictures = [read_image(p) for p in sorted(path.iterdir()) if p.suffix in IMAGES]
        if len({p.shape for p in pictures}) != 1:
            raise ValueError(f"{path}: its pictures differ in size")
        return np.stack(pictures)
    return read_image(path)[None] if path.suffix in IMAGES else read_video(path)[0]
