"""Which frames of a sample's elements a visit takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from shards.index import IndexEntry
from shards.sample import SampleError

# Their pictures are a first frame, which shards of before `frame_of` do not say.
FIRST_FRAME_TASKS = ("image_to_video", "propagation")


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
    """The windows that a visit of a sample may draw: frames (start, stop) of every element, at most `most`.

    Elements as long as the target begin together: anywhere, or at `crops` places (`DataConfig.crops`); others
    give their first frames. Where a picture is a frame of an element, it keeps its relative place: the window
    of a first frame begins with it, that of a last frame ends with it, any other is inside.

    Args:
        ignored: a picture that need not keep its place.

    Raises:
        SampleError: two pictures that no window holds at their places.
    """

    def __init__(
        self, entry: IndexEntry, target: str, most: int, crops: int | None, ignored: str | None = None
    ) -> None:
        self.entry, self.most, self.ignored = entry, most, ignored
        self._lengths = {name: frames for name, (_, frames, _, _) in entry.media.items()}
        self._length = self._lengths[target]
        together = [name for name, frames in self._lengths.items() if frames == self._length]
        pinned = self._pinned(together)
        # those of other elements, which begin at one place
        self._firsts = {name: self._pinned([name]) or 0 for name in self._lengths if name not in together}
        last = max(0, self._length - most)
        self._starts: Sequence[int]
        if pinned is not None:
            self._starts = [pinned]
        elif crops is None:
            self._starts = range(last + 1)
        else:
            self._starts = sorted({round(i * last / max(1, crops - 1)) for i in range(crops)})

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> dict[str, tuple[int, int]]:  # type: ignore[override]  # no slices
        start = self._starts[number]
        firsts = {name: self._firsts.get(name, start) for name in self._lengths}
        return {n: (first, min(first + self.most, self._lengths[n])) for n, first in firsts.items()}

    def _pinned(self, together: Collection[str]) -> int | None:
        """Where the window of elements of one length begins for their pictures; None where they have none."""
        found: dict[int, str] = {}
        for image, video, frame in frames_in_pictures(self.entry):
            if video in together and image != self.ignored and self._lengths[video] > self.most:
                length = self._lengths[video]
                start = round(frame * (length - self.most) / (length - 1))
                found.setdefault(start, f"{image} is frame {frame} of {video}")
        if len(found) > 1:
            raise SampleError(
                f"{self.entry.key}: {' and '.join(found.values())}: no window of {self.most} frames has both "
                "at their places; raise media.frames"
            )
        return next(iter(found), None)
