"""Clean plates of a clip: one for all its frames, stored, or one for each, made again where it is needed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from curation.core.interfaces import MovingPlates, Plate
from curation.sources.clips import Clip, load_frames
from shards.media import read_image, write_image


def write_plate(folder: Path, plate: Plate) -> None:
    """Write a plate as plate.png and quality.png."""
    write_image(folder / "plate.png", plate.image)
    levels = np.stack([plate.noise, plate.agreement * 255, plate.noise * 0], axis=-1)
    write_image(folder / "quality.png", levels.round().clip(0, 255).astype(np.uint8))


def plates_of(clip: Clip, static: bool, folder: Path, maker: MovingPlates) -> Callable[[int], Plate | None]:
    """The plate of each frame: under a standing camera the one in `folder`, under a moving one its own."""
    if static:
        still = _plate(folder)
        return lambda t: still
    return _moving_plates(maker, clip)  # type: ignore[arg-type]  # hashed by identity


@functools.lru_cache(maxsize=1)
def _moving_plates(maker: MovingPlates, clip: Clip) -> Callable[[int], Plate | None]:
    return maker.plates(load_frames(clip))


@functools.lru_cache(maxsize=2)
def _plate(folder: Path) -> Plate:
    quality = read_image(folder / "quality.png").astype(np.float32)
    return Plate(read_image(folder / "plate.png"), quality[..., 0].copy(), quality[..., 1] / 255)
