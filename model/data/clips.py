"""Which frames of a sample's elements a visit takes: at which rate, and which window of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.index import IndexEntry
from shards.sample import SampleError

# Their pictures are a first frame, which shards of before `frame_of` do not say.
FIRST_FRAME_TASKS = ("image_to_video", "propagation")


@dataclass(frozen=True)
class ClipConfig:
    """How the clips of a data set are taken.

    Attributes:
        frames: most of a window.
        crops: places at which a window may begin, see `DataConfig.crops`.
        fps: frames per second to which every video is brought first; None leaves each at its own rate.
    """

    frames: int
    crops: int | None = None
    fps: float | None = None


def frame_indices(frames: int, rate: float | None, fps: float | None) -> NDArray[np.int64]:
    """Which frames of an element are shown at `fps` frames per second, int64 [T], not decreasing.

    Frame k is the one that is nearest to k / fps; the duration stays, to the nearest frame. A rate above the
    element's own shows frames more than once.

    Args:
        rate: the element's own; None of an image, which is left as it is.
        fps: None takes every frame once.
    """
    if fps is None or rate is None:
        return np.arange(frames)
    shown = np.arange(max(1, round(frames * fps / rate)))
    return np.minimum(np.floor(shown * (rate / fps) + 0.5).astype(np.int64), frames - 1)


def num_frames(entry: IndexEntry, name: str, fps: float | None) -> int:
    """Frames of an element at `fps`; raises SampleError where its own rate is not known."""
    kind, frames, *_ = entry.media[name]
    if fps is None or kind == "image":
        return frames
    if name not in entry.fps:
        raise SampleError(
            f"{entry.key}: its index does not say the frame rate of {name}, which a row's fps needs; run "
            "`python -m shards index` on its folder"
        )
    return len(frame_indices(frames, entry.fps[name], fps))


def frames_in_pictures(entry: IndexEntry) -> Iterator[tuple[str, str, int]]:
    """(image, video, frame) of each image that is a frame of one of the sample's videos.

    By `frame_of`; where a sample of `FIRST_FRAME_TASKS` does not say it, its images are the first frame of
    every video that is as long as the first target.
    """
    if entry.frame_of or entry.task not in FIRST_FRAME_TASKS:
        yield from ((image, video, frame) for image, (video, frame) in entry.frame_of.items())
        return
    length = entry.media[entry.targets[0]][1]
    images = [name for name, (kind, *_) in entry.media.items() if kind == "image"]
    videos = [n for n, (kind, frames, *_) in entry.media.items() if kind == "video" and frames == length]
    yield from ((image, video, 0) for image in images for video in videos)


class Windows(Sequence[dict[str, tuple[int, int]]]):
    """The windows that a visit of a sample may draw: frames (start, stop) of every element.

    They are counted at the clips' rate (`frame_indices`). Elements as long as the target begin together:
    anywhere, or at `crops` places; others give their first frames. Where a picture is a frame of an element,
    it keeps its relative place: the window of a first frame begins with it, that of a last frame ends with
    it, any other is inside.

    Args:
        ignored: a picture that need not keep its place.

    Raises:
        SampleError: two pictures that no window holds at their places, or a rate that is not known.
    """

    def __init__(self, entry: IndexEntry, target: str, clip: ClipConfig, ignored: str | None = None) -> None:
        self.entry, self.clip, self.ignored = entry, clip, ignored
        self._lengths = {name: num_frames(entry, name, clip.fps) for name in entry.media}
        length = self._lengths[target]
        together = [name for name, frames in self._lengths.items() if frames == length]
        pinned = self._pinned(together)
        # those of other elements, which begin at one place
        self._firsts = {name: self._pinned([name]) or 0 for name in self._lengths if name not in together}
        last = max(0, length - clip.frames)
        self._starts: Sequence[int]
        if pinned is not None:
            self._starts = [pinned]
        elif clip.crops is None:
            self._starts = range(last + 1)
        else:
            self._starts = sorted({round(i * last / max(1, clip.crops - 1)) for i in range(clip.crops)})

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> dict[str, tuple[int, int]]:  # type: ignore[override]  # no slices
        start = self._starts[number]
        firsts = {name: self._firsts.get(name, start) for name in self._lengths}
        return {n: (first, min(first + self.clip.frames, self._lengths[n])) for n, first in firsts.items()}

    def _pinned(self, together: Collection[str]) -> int | None:
        """Where the window of elements of one length begins for their pictures; None where they have none."""
        found: dict[int, str] = {}
        most = self.clip.frames
        for image, video, frame in frames_in_pictures(self.entry):
            length = self._lengths[video]
            if video not in together or image == self.ignored or length <= most:
                continue
            rates = self.clip.fps, self.entry.fps.get(video)
            shown = round(frame * rates[0] / rates[1]) if rates[0] and rates[1] else frame
            start = round(min(shown, length - 1) * (length - most) / (length - 1))
            found.setdefault(start, f"{image} is frame {frame} of {video}")
        if len(found) > 1:
            raise SampleError(
                f"{self.entry.key}: {' and '.join(found.values())}: no window of {most} frames has both at "
                "their places; raise model.media.frames, or frames of its row"
            )
        return next(iter(found), None)
