"""A study's videos: all of one size, rate and encoding, so that nothing but their pictures differs.

Every clip of an item, the source too, has the size and length of that item, and every video of a study the
study's height. None has sound or metadata; names are random, times of change equal, and the files of an
item's results equally large: each ends in a `free` box, which players skip.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.core.item import Geometry, Item
from benchmark.core.media import IMAGES, geometry_of
from shards.errors import MediaError
from shards.media import Size, iter_frames, probe, read_image, resize, write_video

CRF = 18  # x264's, at which losses are not seen
STRETCH = 0.04  # by so much a result's aspect may differ from its source's and still fill the same frame
STILL = 2.0  # seconds for which a picture is shown
CHANGED = 946684800  # when every file was last changed: 2000-01-01T00:00:00Z


@dataclass(frozen=True)
class Clip:
    """A source or a result as it came.

    Attributes:
        source: a file, a folder of pictures, a file's bytes, or frames (uint8 RGB [T, H, W, 3]).
        name: for messages.
        geometry: of its frames; pictures have the rate of their source.
    """

    source: Path | bytes | np.ndarray
    name: str
    geometry: Geometry

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.geometry.frames / self.geometry.fps

    def frames(self, size: Size) -> Iterator[np.ndarray]:
        """Its frames at a size, uint8 RGB [H, W, 3], one in memory at a time unless it came as an array.

        Raises MediaError where one cannot be read, ends too early, or has another size than the first.
        """
        if isinstance(self.source, np.ndarray):
            yield from (resize(frame, size) for frame in self.source)
        elif isinstance(self.source, Path) and (self.source.is_dir() or self.source.suffix in IMAGES):
            for path in _pictures(self.source):
                picture = read_image(path)
                if picture.shape[:2] != (self.geometry.height, self.geometry.width):
                    raise MediaError(f"{path}: differs in size from the first picture of its folder")
                yield resize(picture, size)
        else:
            yield from iter_frames(self.source, size=size)


def result_clip(path: Path, fps: float) -> Clip:
    """A result; MediaError or ValueError naming the file where it cannot be read."""
    if not path.is_dir():
        return Clip(path, str(path), geometry_of(path, fps))
    pictures = _pictures(path)  # `geometry_of` would have all of them in memory
    height, width, _ = read_image(pictures[0]).shape
    return Clip(path, str(path), Geometry(len(pictures), height, width, fps))


def source_clip(item: Item) -> Clip:
    """An item's source; raises as its `load` does."""
    assert item.native is not None  # items with a fault are left out before
    name = f"source of item {item.id}"
    if item.encoded is None:
        return Clip(item.load().source, name, item.native)
    encoded = item.encoded()
    if not isinstance(encoded, bytes):
        return Clip(encoded, str(encoded), result_clip(encoded, item.native.fps).geometry)
    info = probe(encoded)
    return Clip(encoded, name, Geometry(info.frames, info.height, info.width, info.fps))


def _pictures(path: Path) -> list[Path]:
    """The pictures of a folder in their order, or the one that a file is."""
    return sorted(p for p in path.iterdir() if p.suffix in IMAGES) if path.is_dir() else [path]


def common_geometry(
    clips: Sequence[Clip], height: int, fps: float | None, max_seconds: float, cut: bool
) -> Geometry:
    """How the clips of an item are shown, the source being the first of them.

    Args:
        height: of the study, even; the width follows from the source's aspect, and is even too.
        fps: of the study; None for the source's.
        max_seconds: longer clips are cut; pictures are shown for `STILL` seconds.
        cut: whether clips of any lengths are cut to the shortest.

    Raises:
        MediaError: lengths that differ by more than a frame, unless `cut`.
    """
    first, source = clips[0], clips[0].geometry
    rate = source.fps if fps is None else fps
    seconds = [min(clip.seconds, max_seconds) for clip in clips]
    for clip, length in zip(clips, seconds, strict=True):
        if abs(length - seconds[0]) * min(clip.geometry.fps, source.fps) > 1 + 1e-6 and not cut:
            raise MediaError(
                f"{clip.name}: plays {clip.seconds:.2f} s, its source {first.name} {first.seconds:.2f} s; a "
                "result should be as long to a frame, or use --lengths cut, which cuts all to the shortest"
            )
    frames = max(1, int(min(seconds) * rate + 1e-6))
    if all(clip.geometry.frames == 1 for clip in clips):
        frames = max(1, round(STILL * rate))
    width = max(2, round(height * source.width / source.height / 2) * 2)
    return Geometry(frames, height, width, rate)


def is_stretched(clip: Geometry, shown: Geometry) -> bool:
    """Whether a clip fills the frame in which it is shown; one of another aspect gets black bars."""
    ratio = clip.width / clip.height * shown.height / shown.width
    return abs(ratio - 1) <= STRETCH


def shown_frames(clip: Clip, shown: Geometry) -> Iterator[np.ndarray]:
    """A clip's frames as they are shown, uint8 RGB [H, W, 3]: of the nearest times, the last one held."""
    size, bars = (shown.height, shown.width), None
    if not is_stretched(clip.geometry, shown):
        scale = min(shown.height / clip.geometry.height, shown.width / clip.geometry.width)
        size = (
            max(1, round(clip.geometry.height * scale)),
            max(1, round(clip.geometry.width * scale)),
        )
        top, left = (shown.height - size[0]) // 2, (shown.width - size[1]) // 2
        bars = (slice(top, top + size[0]), slice(left, left + size[1]))
    step = clip.geometry.fps / shown.fps
    frames = enumerate(clip.frames(size))
    at, picture = next(frames)
    for n in range(shown.frames):
        wanted = min(round(n * step), clip.geometry.frames - 1)
        while at < wanted:
            at, picture = next(frames)
        if bars is None:
            yield picture
        else:
            canvas = np.zeros((shown.height, shown.width, 3), np.uint8)
            canvas[bars] = picture
            yield canvas


def corrupted(frames: Iterable[np.ndarray], fps: float, seed: int) -> Iterator[np.ndarray]:
    """A copy that nobody can take for the better one: a still in wrong colours under a flicker of blocks."""
    random = np.random.default_rng(seed)
    first, rest = _peek(frames)
    height, width = first.shape[:2]
    still = 255 - first[..., ::-1]
    side = max(2, height // 12)
    grid = (-(-height // side), -(-width // side))
    hold = max(1, round(fps / 6))
    picture = still
    for n, _ in enumerate(rest):
        if n % hold == 0:
            blocks = random.integers(0, 256, (*grid, 3), dtype=np.uint8)
            hidden = (random.random(grid) < 0.5)[..., None]
            over, at = (np.repeat(np.repeat(a, side, 0), side, 1)[:height, :width] for a in (blocks, hidden))
            picture = np.where(at, over, still)
        yield picture


def _peek(frames: Iterable[np.ndarray]) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The first frame, and all of them."""
    iterator = iter(frames)
    first = next(iterator)
    return first, itertools.chain([first], iterator)


def write_clip(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write a video as all of a study are: H.264 yuv420p, a key frame a second, playable as it arrives."""
    write_video(path, frames, fps, crf=CRF, key_every=max(1, round(fps)), exact=False)


def even_out(paths: Iterable[Path]) -> None:
    """Make files equally large and equally old, so that neither tells one from another.

    An mp4 file may end in a box `free` (ISO/IEC 14496-12, 8.1.2) of any content.
    """
    paths = list(paths)
    largest = max(path.stat().st_size for path in paths)
    for path in paths:
        size = largest + 8 - path.stat().st_size
        with path.open("ab") as handle:
            handle.write(struct.pack(">I4s", size, b"free"))
            handle.write(bytes(size - 8))
            handle.flush()
            os.fsync(handle.fileno())
        os.utime(path, (CHANGED, CHANGED))
