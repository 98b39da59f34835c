"""What the stages of offline removal give, as the workspace stores it: detections, tracks, scene, windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curation.core.interfaces import Track
from curation.core.results import StageResult


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


class Window(NamedTuple):
    """Frames of a track, from `first` on, in which it is alone, whole and steady; a list in JSON."""

    track: int
    first: int
    boxes: list[list[float]]


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
class SceneResult(StageResult):
    """Whether the camera stands still, and by how many pixels it moves; a still one's plate is in the folder.

    `people` are the boxes [N, 4] of people that the detector sees in the plate; None under a moving camera.
    """

    static: bool
    motion: float
    people: list[list[float]] | None = None


@dataclass(frozen=True, kw_only=True)
class WindowResult(StageResult):
    """The windows of all tracks, and a reason for each track without any."""

    windows: list[Window]
    rejected: list[str]
