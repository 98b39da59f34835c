"""Frames of a video that are read when they are asked for, so that a long one is never held.

They stand where an array uint8 [T, H, W, 3] stands: `len`, `shape`, a number, a slice or numbers in brackets.
"""

from __future__ import annotations

import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import overload

import numpy as np

from shards.media import MediaError

Opener = Callable[[int, int], Iterator[np.ndarray]]


class Frames(ABC):
    """uint8 RGB [T, H, W, 3] that is not in memory; a slice of step 1 or numbers give an array.

    Attributes:
        shape: (T, H, W, 3).
    """

    shape: tuple[int, int, int, int]

    def __len__(self) -> int:
        return self.shape[0]

    @overload
    def __getitem__(self, key: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray: ...

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        """One frame [H, W, 3], or several [T, H, W, 3]; MediaError where they do not decode."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                raise ValueError(f"frames are read one after the other, not in steps of {step}")
            return self.read(start, max(start, stop))
        if isinstance(key, np.ndarray):
            taken = [self[int(number)] for number in key]
            return np.stack(taken) if taken else np.empty((0, *self.shape[1:]), np.uint8)
        number = int(key) + len(self) * (key < 0)
        if not 0 <= number < len(self):
            raise IndexError(f"frame {key} of {len(self)}")
        frame: np.ndarray = self.read(number, number + 1)[0]
        return frame

    @abstractmethod
    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start:stop as uint8 [T, H, W, 3]."""

    def between(self, start: int, stop: int) -> Frames:
        """A stretch of these frames, not read either."""
        return PickedFrames(self, np.arange(len(self))[start:stop])


class FileFrames(Frames):
    """Frames of a file that is decoded forward by one decoder, opened anew to go back.

    The frames read last are kept, so that windows that overlap are read without going back. A decoder that
    has given the last frame is closed.

    Args:
        name: of the file, for messages.
        shape: (T, H, W, 3) as its header says.
        opener: gives the frames from one number to before another, uint8 [H, W, 3].
    """

    def __init__(self, name: str, shape: tuple[int, int, int, int], opener: Opener) -> None:
        self.name, self.shape, self._open = name, shape, opener
        self._source: Iterator[np.ndarray] | None = None
        self._next = 0  # number of the frame that the decoder gives next
        self._recent = np.empty((0, *shape[1:]), np.uint8)  # the frames before that one

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start:stop; MediaError where they do not decode or have another size."""
        first = self._next - len(self._recent)
        if start < first or start > self._next or (self._source is None and stop > self._next):
            self._source, self._next, self._recent = self._open(start, len(self)), start, self._recent[:0]
            first = start
        out = np.empty((stop - start, *self.shape[1:]), np.uint8)
        held = self._recent[start - first : stop - first]
        out[: len(held)] = held
        for number in range(start + len(held), stop):
            out[number - start] = self._decode()
        if stop == self._next:
            self._recent = out
        return out

    def _decode(self) -> np.ndarray:
        assert self._source is not None
        picture = next(self._source, None)
        if picture is None:
            raise MediaError(f"{self.name}: ends at frame {self._next} of {len(self)}")
        if picture.shape != self.shape[1:]:
            raise MediaError(f"{self.name}: the frame size changes inside the file")
        self._next += 1
        if self._next == len(self):
            self._source = None
        return picture


class PickedFrames(Frames):
    """Frames of another video by number, such as a stretch, or those shown at another rate.

    Args:
        frames: an array or frames that are not read yet.
        numbers: int [T], not decreasing, which of them are shown.
    """

    def __init__(self, frames: Frames | np.ndarray, numbers: np.ndarray) -> None:
        self.frames, self.numbers = frames, numbers
        self.shape = (len(numbers), *frames.shape[1:])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start:stop, read as one stretch of the other video."""
        numbers = self.numbers[start:stop]
        if not len(numbers):
            return np.empty((0, *self.shape[1:]), np.uint8)
        first = int(numbers[0])
        stretch = self.frames[first : int(numbers[-1]) + 1]
        return stretch if len(stretch) == len(numbers) else stretch[numbers - first]


class MaskFrames(Frames):
    """Masks that are made window by window and read later, one bit a pixel in a temporary file.

    Args:
        size: (height, width).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.shape = (0, *size, 3)
        self.marked = False
        self._lock = threading.Lock()  # stages of an edit read at once
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)

    def append(self, masks: np.ndarray) -> None:
        """Add masks bool [T, H, W]."""
        self._file.seek(0, 2)
        for mask in masks:
            self._file.write(np.packbits(mask).tobytes())
        self.shape = (len(self) + len(masks), *self.shape[1:])
        self.marked = self.marked or bool(masks.any())

    def masks(self, start: int, stop: int) -> np.ndarray:
        """Masks start:stop as bool [T, H, W]."""
        height, width = self.shape[1:3]
        each = -(-height * width // 8)
        with self._lock:
            self._file.seek(start * each)
            data = self._file.read((stop - start) * each)
        packed = np.frombuffer(data, np.uint8).reshape(-1, each)
        bits = np.unpackbits(packed, axis=1, count=height * width)
        return bits.reshape(-1, height, width).astype(bool)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Masks start:stop as frames, white where they mark."""
        white = self.masks(start, stop) * np.uint8(255)
        return np.repeat(white[..., None], 3, axis=-1)


Video = np.ndarray | Frames
