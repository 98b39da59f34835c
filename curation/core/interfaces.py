"""Interfaces: what a task asks of its annotators, as small protocols.

Frames are uint8 RGB [H, W, 3], boxes float32 [N, 4] as (left, top, right, bottom) in pixels, masks bool
[H, W].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from curation.vlm.interface import Annotator


@dataclass
class Track:
    """One object through a clip. `boxes[i]` belongs to frame `start + i`; `score` is the mean confidence."""

    id: int
    start: int
    boxes: np.ndarray  # float32 [N, 4]
    score: float

    @property
    def stop(self) -> int:
        """First frame after the track."""
        return self.start + len(self.boxes)

    def box(self, frame: int) -> np.ndarray | None:
        """The box in `frame`, or None where the track is not."""
        return self.boxes[frame - self.start] if self.start <= frame < self.stop else None


@dataclass(frozen=True)
class Plate:
    """The scene without anything that moves.

    `image` uint8 RGB [H, W, 3]; `noise` float32 [H, W], how far a pixel usually is from it (0 to 255);
    `agreement` float32 [H, W], the share of frames that show it; `gap` pixels that are closed in a body
    found by it.
    """

    image: np.ndarray
    noise: np.ndarray
    agreement: np.ndarray
    gap: int = 2


@dataclass(frozen=True)
class Detections:
    """Objects found by their names in one frame: boxes float32 [N, 4], scores float32 [N] (0 to 1), names."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]


@dataclass(frozen=True)
class TrackedObject:
    """One object through a clip.

    `masks` bool [T, H, W]; `score` the mean confidence (0 to 1) of the detections that were joined in it,
    `seen` their number.
    """

    label: str
    score: float
    seen: int
    masks: np.ndarray


class Detector(Annotator, Protocol):
    """Finds the objects that a task is about."""

    def detect(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes float32 [N, 4] and confidences float32 [N] (0 to 1)."""
        ...


class Tracker(Annotator, Protocol):
    """Joins detections into tracks."""

    def track(self, frames: np.ndarray, found: dict[int, tuple[np.ndarray, np.ndarray]]) -> list[Track]:
        """Tracks from frames [T, H, W, 3] and detections keyed by the frames that were looked at."""
        ...


class Segmenter(Annotator, Protocol):
    """Cuts one object out of a frame."""

    def segment(self, frame: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability float32 [H, W] (0 to 1) of the object in `box`; its joints float32 [J, 3] (x, y, p)."""
        ...


class CameraMotion(Annotator, Protocol):
    """Tells a camera that stands still from one that moves."""

    def motion(self, frames: np.ndarray) -> float:
        """Largest displacement of a picture corner against the middle frame, in pixels; inf when unknown."""
        ...


class PlateMaker(Annotator, Protocol):
    """Makes the clean plate of a clip whose camera stands still."""

    def plate(self, frames: np.ndarray) -> Plate:
        """The plate of frames [T, H, W, 3]."""
        ...


class MovingPlates(Annotator, Protocol):
    """Makes a clean plate for each frame of a clip whose camera moves."""

    def plates(self, frames: np.ndarray) -> Callable[[int], Plate | None]:
        """From frames [T, H, W, 3] a function of the frame's number; None where it does not register."""
        ...


class EdgeDetector(Annotator, Protocol):
    """Draws the edges of a clip."""

    def edges(self, frames: np.ndarray) -> np.ndarray:
        """White lines on black, uint8 [T, H, W, 3], of frames [T, H, W, 3]."""
        ...


class PersonDetector(Annotator, Protocol):
    """Finds people."""

    def people(self, frame: np.ndarray) -> np.ndarray:
        """Boxes float32 [N, 4] of the people in a frame."""
        ...


class PoseEstimator(Annotator, Protocol):
    """Finds the poses of people in boxes; `people` finds the boxes, with a model of its own."""

    people: PersonDetector

    def poses(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """COCO's 17 points, float32 [people, 17, 3] (x, y in pixels, visibility 0 to 1)."""
        ...


class Stylizer(Annotator, Protocol):
    """Paints a clip in another style, steady in time."""

    def styles(self) -> dict[str, str]:
        """Names of its styles, and each in words that follow "turn it into"."""
        ...

    def stylize(self, frames: np.ndarray, style: str) -> np.ndarray:
        """uint8 [T, H, W, 3] of frames [T, H, W, 3] in one of `styles`."""
        ...


class OpenDetector(Annotator, Protocol):
    """Finds objects by their names."""

    def find(self, frame: np.ndarray, names: Sequence[str]) -> Detections:
        """All objects in a frame [H, W, 3] that one of `names` fits."""
        ...


class VideoSegmenter(Annotator, Protocol):
    """Follows objects through a clip from a box in one frame, forwards and backwards."""

    def propagate(self, frames: np.ndarray, seed: int, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool [N, T, H, W] and presence float32 [N, T] of the objects in `boxes` [N, 4] of a frame."""
        ...


class ClipDetector(Annotator, Protocol):
    """Finds objects by their names in some frames of a clip."""

    def detect(self, frames: np.ndarray, names: Sequence[str]) -> dict[int, Detections]:
        """Frame -> the objects in it, of frames [T, H, W, 3], that one of `names` fits."""
        ...


class ObjectFollower(Annotator, Protocol):
    """Follows what was detected through a clip."""

    def follow(self, frames: np.ndarray, detected: Mapping[int, Detections]) -> list[TrackedObject]:
        """The objects of frames [T, H, W, 3] from their detections by frame."""
        ...


class ObjectFinder(Protocol):
    """Finds objects by name and follows them: two annotators, each for a stage of its own."""

    def annotators(self) -> tuple[ClipDetector, ObjectFollower]:
        """What finds objects in keyframes, and what follows them."""
        ...


class Inpainter(Annotator, Protocol):
    """Fills a hole in a clip; `prompted` says whether it looks at the prompt."""

    prompted: bool

    def inpaint(
        self, frames: np.ndarray, mask: np.ndarray, fps: float, prompt: str, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fill mask bool [T, H, W] with what `prompt` says or the background.

        Returns:
            The frames uint8 [T, H, W, 3], and the mask bool [T, H, W] of all that may have changed: it
            contains the given one and an inpainter's own rim, over which it blends. Outside the returned mask
            the frames are as given, to the bit.
        """
        ...


class VideoGenerator(Annotator, Protocol):
    """Generates a video from another one, of which parts are kept and parts guide it."""

    def generate(self, control: np.ndarray, mask: np.ndarray, prompt: str, seed: int = 0) -> np.ndarray:
        """uint8 [T, H, W, 3] by a caption.

        Args:
            control: uint8 [T, H, W, 3]; where mask is False it is kept, where it is True it guides (depth, a
                sketch), or is grey for nothing.
            mask: bool [T, H, W], True is generated.
            prompt: what the whole video shows.
            seed: of the noise, another one for each candidate.
        """
        ...


class ImageEditor(Annotator, Protocol):
    """Edits a picture by an instruction."""

    def edit(self, image: np.ndarray, instruction: str, seed: int = 0) -> np.ndarray:
        """uint8 [H, W, 3], of the size of image [H, W, 3] and in registration with it."""
        ...


class DepthEstimator(Annotator, Protocol):
    """Estimates how near everything is."""

    def inverse_depth(self, frames: np.ndarray) -> np.ndarray:
        """float32 [T, H, W] of frames [T, H, W, 3]: larger is nearer, one unknown scale for the clip."""
        ...


class CameraMover(Annotator, Protocol):
    """Shows a clip from a camera that moves."""

    def movements(self) -> tuple[str, ...]:
        """What it can do, in the paper's words (Pan Left)."""
        ...

    def move(
        self, frames: np.ndarray, movement: str, fps: float, caption: str, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The clip as its own camera sees it, cut to fit, and as the moving one does: uint8 [T, H, W, 3]."""
        ...


class Captioner(Annotator, Protocol):
    """Says what a clip shows."""

    def caption(self, frames: np.ndarray, people: int | None) -> str:
        """A caption of frames [T, H, W, 3]; `people` where somebody counted them."""
        ...
