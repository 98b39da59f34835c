"""An item's fields as files, for programs and servers, and the files that come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.item import BenchmarkError
from benchmark.core.media import IMAGES, read_frames
from benchmark.systems.item_fields import Fields
from shards.media import read_image, write_image, write_video

CRF = 1  # of videos that are no file of the item's as it came


def written(fields: Fields, name: str, folder: Path) -> Any:
    """A field as it stands on a command line or in a form: media as the path of a file in `folder`.

    A clip that is not brought to another size or length is the item's own file, to the byte; others are
    H.264 at crf 1, masks white where they are True. Pictures are PNG. `references` is a list of paths. None
    where the item has no such field.
    """
    value = fields.get(name)
    if isinstance(value, list):
        paths = [folder / f"{name}{number}.png" for number in range(1, len(value) + 1)]
        for path, picture in zip(paths, value, strict=True):
            write_image(path, picture)
        return paths
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == bool:
        value = np.where(value, np.uint8(255), np.uint8(0))[..., None].repeat(3, axis=-1)
    if value.ndim == 3:
        path = folder / f"{name}.png"
        write_image(path, value)
        return path
    path = folder / f"{name}.mp4"
    first = next(iter(fields.loaded.inputs.items()), None)
    whole = value.shape == fields.loaded.source.shape
    if name == "video" and whole and first is not None and first[0].startswith("video"):
        path.write_bytes(first[1])
        return path
    even = [side + side % 2 for side in value.shape[1:3]]
    room = [(0, 0), (0, even[0] - value.shape[1]), (0, even[1] - value.shape[2]), (0, 0)]
    write_video(path, np.pad(value, room, mode="edge"), fields.loaded.fps, crf=CRF)
    return path


def frames_in(path: Path) -> np.ndarray:
    """uint8 RGB [T, H, W, 3] of a video, a picture or a folder of pictures that came back."""
    if path.is_dir() or path.suffix.lower() in IMAGES:
        return read_frames(path)
    head = path.read_bytes()[:12]
    if head.startswith((b"\x89PNG", b"\xff\xd8")) or (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
        return read_image(path)[None]
    return read_frames(path)


def suffix_of(data: bytes) -> str:
    """A suffix for a file that came without a name, by how its bytes begin; BenchmarkError for no medium."""
    known = ((b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"\x1a\x45\xdf\xa3", ".mkv"), (b"GIF8", ".gif"))
    for start, suffix in known:
        if data.startswith(start):
            return suffix
    if data[4:8] == b"ftyp":
        return ".mp4"
    if data[:4] == b"RIFF" and data[8:12] in (b"WEBP", b"AVI "):
        return ".webp" if data[8:12] == b"WEBP" else ".avi"
    raise BenchmarkError(f"answered {data[:40]!r}, which is no video or picture")
