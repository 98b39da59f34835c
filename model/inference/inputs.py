"""Whatever a caller hands the editor as an image, video or mask, as uint8 frames.

Files, bytes, numpy arrays, torch tensors and PIL images are taken; everything else is refused by name. Videos
and masks of files are read when their frames are asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.config import Size
from model.sequence.interleave import SequenceError
from model.streaming.frames import FileFrames, Video
from shards.media import MediaError, Source, iter_frames, iter_mask, mask_shape, name_of, probe, read_image

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class Clip:
    """uint8 RGB [T, H, W, 3], an array or frames of a file that are read when asked for.

    `fps` is None where the input has none; `still` is an image. `file` is what a video was read from, None
    for pixels and images; `start` is its first frame there.
    """

    frames: Video
    fps: float | None
    still: bool
    file: Source | None = None
    start: int = 0

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.frames.shape[1], self.frames.shape[2]


def load_media(name: str, value: Any, start: int = 0, stop: int | None = None) -> Clip:
    """Turn an input into frames.

    Args:
        name: the element (`video1`, `image1`, `mask`); it decides how files and arrays are read. A mask is
            white where it marks.
        value: a path; the bytes of a file; uint8 [T, H, W, 3], [H, W, 3], or for masks [T, H, W] or [H, W] of
            bool or uint8 (above 127 is marked); a float tensor or array of the same shapes in [0, 1]; a PIL
            image; a list of PIL images.
        start, stop: frames of a video that are taken.

    Raises:
        SequenceError: of another type, shape or kind (a video given as an image), naming the element.
        shards.media.MediaError: an unreadable file. That a frame of a video is damaged is found when it is
            read.
    """
    if isinstance(value, str | bytes) and not value:
        raise SequenceError(f"{name}: is empty; give a file")
    if isinstance(value, str | Path | bytes):
        clip = _read_file(name, value, start, stop)
    else:
        clip = _read_pixels(name, value)
        if not clip.still and (start or stop is not None):
            taken = clip.frames[start:stop]
            if not len(taken):
                raise SequenceError(
                    f"{name}: no frames between {start} and {stop}, it has {len(clip.frames)}"
                )
            clip = replace(clip, frames=taken)
    if name.startswith("image") and not clip.still:
        if len(clip.frames) > 1:
            raise SequenceError(
                f"{name}: is a video of {len(clip.frames)} frames; name it video1, not image1"
            )
        clip = Clip(clip.frames, None, True)
    if name.startswith("video") and clip.still:
        raise SequenceError(f"{name}: is a single picture; name it image1, or give frames [T, H, W, 3]")
    return clip


def _read_pixels(name: str, value: Any) -> Clip:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    elif hasattr(value, "convert"):
        value = np.asarray(value.convert("RGB"))
    elif isinstance(value, list) and value and all(hasattr(v, "convert") for v in value):
        value = np.stack([np.asarray(v.convert("RGB")) for v in value])
    if not isinstance(value, np.ndarray):
        raise SequenceError(
            f"{name}: cannot use a {type(value).__name__}; give a file, an array or a PIL image"
        )
    if value.dtype == bool:
        value = np.where(value, np.uint8(255), np.uint8(0))
    elif np.issubdtype(value.dtype, np.floating):
        if not np.isfinite(value).all() or value.min(initial=0) < 0 or value.max(initial=0) > 1:
            raise SequenceError(f"{name}: float pixels must lie in [0, 1]")
        value = np.round(value * 255).astype(np.uint8)
    if value.dtype != np.uint8:
        raise SequenceError(f"{name}: pixels must be uint8, bool or float in [0, 1], not {value.dtype}")
    if name.startswith("mask") and (value.ndim == 2 or (value.ndim == 3 and value.shape[-1] != 3)):
        value = np.repeat(np.where(value > 127, np.uint8(255), np.uint8(0))[..., None], 3, axis=-1)
    still = value.ndim == 3
    frames = value[None] if still else value
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise SequenceError(f"{name}: needs [T, H, W, 3] or [H, W, 3] pixels, got {list(value.shape)}")
    return Clip(np.ascontiguousarray(frames), None, still)


def _read_file(name: str, source: str | Path | bytes, start: int, stop: int | None) -> Clip:
    image = name.startswith("image") or (
        not isinstance(source, bytes) and Path(source).suffix.lower() in IMAGE_SUFFIXES
    )
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise MediaError(f"{name}: {source}: no such file")
    if image:
        picture = read_image(source)
        if name.startswith("mask"):
            picture = np.where(picture > 127, np.uint8(255), np.uint8(0))
        return Clip(picture[None], None, True)
    if name.startswith("mask"):
        shape = *mask_shape(source), 3
        return Clip(FileFrames(name_of(source), shape, partial(_masks, source)), None, False)
    info = probe(source)
    count = (info.frames if stop is None else min(stop, info.frames)) - start
    if count < 1:
        raise MediaError(f"{name_of(source)}: no frames between {start} and {stop}, it has {info.frames}")
    shape = (count, info.height, info.width, 3)
    frames = FileFrames(name_of(source), shape, lambda a, b: iter_frames(source, start + a, start + b))
    return Clip(frames, info.fps, False, source, start)


def _masks(source: Source, start: int, stop: int) -> Iterator[np.ndarray]:
    """Frames of a mask's file, white where it marks."""
    for mask in itertools.islice(iter_mask(source), start, stop):
        yield np.repeat((mask * np.uint8(255))[..., None], 3, axis=-1)
