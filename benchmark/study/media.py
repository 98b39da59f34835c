"""A study's videos: all of one size, rate and encoding, so that nothing but their pictures differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmark.core.media import geometry_of, read_frames
from shards.media import iter_frames, resize, write_video
from shards.video_writer import SCALER as SCALER


def clip_frames(path: Path) -> Iterator[np.ndarray]:
    """uint8 RGB frames [H, W, 3] of a video, a picture, or a folder of pictures."""
    if path.is_dir() or path.suffix in (".png", ".jpg"):
        yield from read_frames(path)
    else:
        yield from iter_frames(path)


def prepare(out: Path, frames: Iterable[np.ndarray], fps: float, size: tuple[int, int], count: int) -> None:
    """Write `count` frames at a size (height, width) as every video of a study is written."""
    shown = (resize(frame, size) for frame, _ in zip(frames, range(count), strict=False))
    write_video(out, shown, fps)


def corrupted(frames: Iterable[np.ndarray], seed: int) -> Iterator[np.ndarray]:
    """A copy that nobody can take for the better one: frozen, in wrong colours, under blocks of noise."""
    random = np.random.default_rng(seed)
    still: np.ndarray | None = None
    for frame in frames:
        still = 255 - frame[..., ::-1] if still is None else still
        noise = random.integers(0, 256, still.shape, dtype=np.uint8)
        hidden = np.kron(
            random.random((-(-still.shape[0] // 8), -(-still.shape[1] // 8))) < 0.4, np.ones((8, 8), bool)
        )[: still.shape[0], : still.shape[1], None]
        yield np.where(hidden, noise, still)


__all__ = ["clip_frames", "corrupted", "geometry_of", "prepare"]
