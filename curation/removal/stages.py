"""What the stages of offline removal give, as the workspace stores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curation.core.interfaces import Track
from curation.core.results import StageResult
from curation.ops.appearance import Lab
from curation.removal.background_subtraction import BodyMeasures, FollowedFrame


class FrameDetections(NamedTuple):
    """What the detector saw in a frame: boxes [N, 4] in pixels and their confidences [N]; a list in JSON."""

    frame: int
    boxes: list[list[float]]
    scores: list[float]


class StoredTrack(NamedTuple):
    """A `Track` as plain values; a list of them in JSON."""

    id: int
    start: int
    boxes: list[list[float]]
    score: float


class Look(NamedTuple):
    """Median colours of a person's trunk and legs in a frame, None of one not seen; a list in JSON."""

    frame: int
    upper: Lab | None
    lower: Lab | None


class MeasuredTrack(NamedTuple):
    """A track and what is decided on of it; a list in JSON.

    Attributes:
        boxes: of the frames from `start` on; `bodies` in them, None where a frame has no plate.
        before, after: how far it can be followed beyond its first and its last frame.
        looks: of the person, in some of its frames.
    """

    id: int
    start: int
    boxes: list[list[float]]
    score: float
    bodies: list[BodyMeasures | None]
    before: list[FollowedFrame]
    after: list[FollowedFrame]
    looks: Sequence[Look] = ()


class FrameMeasures(NamedTuple):
    """What is decided on of one frame of a cut-out person; a list in JSON.

    Attributes:
        body: of the person.
        stranger: whether something else stands out where the mask fades.
        agreement: share of the clip's frames that show the plate, at the worst twentieth of the mask.
        residual: pixels close around the mask that belong to what was taken out.
        shadow: share of the ring around the mask that is shadow.
        ring_error: grey levels by which the backdrop misses the picture close around the mask.
        confirmed: share of the body that the segmenter confirms, in the frames that it looked at.
    """

    body: BodyMeasures
    stranger: bool = False
    agreement: float = 0.0
    residual: int = 0
    shadow: float = 0.0
    ring_error: float | None = None
    confirmed: float | None = None


@dataclass(frozen=True, kw_only=True)
class DetectionResult(StageResult):
    """The detections of a clip, in the frames that were looked at."""

    found: list[FrameDetections]


@dataclass(frozen=True, kw_only=True)
class TrackResult(StageResult):
    """The tracks of a clip."""

    tracks: list[StoredTrack]

    def as_tracks(self) -> list[Track]:
        """The tracks with arrays for boxes."""
        return [Track(t.id, t.start, np.array(t.boxes, np.float32), t.score) for t in self.tracks]


@dataclass(frozen=True, kw_only=True)
class CameraResult(StageResult):
    """By how many pixels the camera moves."""

    motion: float


@dataclass(frozen=True, kw_only=True)
class PlateResult(StageResult):
    """The clean plate of a clip whose camera stands still, in the folder; nothing under a moving one.

    `people` are the boxes [N, 4] of people that the detector sees in the plate; None under a moving camera.
    """

    people: list[list[float]] | None = None


@dataclass(frozen=True, kw_only=True)
class BodyResult(StageResult):
    """All tracks of a clip, measured."""

    tracks: list[MeasuredTrack]


@dataclass(frozen=True, kw_only=True)
class CutOut(StageResult):
    """A person cut out of a window: mask.mkv, and patch.npy with the pixels that the target has in the mask.

    Attributes:
        frames: the measures of each frame, up to one in which nothing stands out.
        outside: largest change outside the mask, in levels.
        mask_share: of the pixels of the window.
        in_plate: whether a person that is seen in the plate lies in the mask.
    """

    frames: list[FrameMeasures]
    outside: int = 0
    mask_share: float = 0.0
    in_plate: bool = False


@dataclass(frozen=True, kw_only=True)
class LeftoverResult(StageResult):
    """Whether the detector still sees the object in the pair."""

    found: bool
