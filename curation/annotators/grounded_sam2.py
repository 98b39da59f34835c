"""Grounded-SAM-2, improved: objects found by name at keyframes, followed by SAM 2 from where they were found.

The authors' demonstration loses scores, drops what one keyframe misses, and follows objects back for forty
frames. Here each track keeps the scores and names of its detections, detections join tracks by Hungarian
matching on IoU within a name, tracks that a keyframe misses stay, and each goes through the whole clip both
ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from curation.core.interfaces import (
    ClipDetector,
    Detections,
    ObjectFollower,
    OpenDetector,
    TrackedObject,
    VideoSegmenter,
)
from curation.ops.masks import bounds, iou
from curation.vlm.interface import Annotator, Backend


@dataclass
class _Track:
    masks: np.ndarray
    scores: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


class KeyframeDetector:
    """Finds objects by name in every `every`-th frame."""

    def __init__(self, detector: OpenDetector, every: int = 20) -> None:
        self.detector, self.every = detector, every

    @property
    def parts(self) -> dict[str, Annotator]:
        """The detector."""
        return {"detector": self.detector}

    def describe(self) -> Backend:
        """The detector and where it looks."""
        return self.detector.describe().also(every=self.every)

    def detect(self, frames: np.ndarray, names: Sequence[str]) -> dict[int, Detections]:
        """Keyframe -> the objects in it, of frames [T, H, W, 3], that one of `names` fits."""
        return {t: self.detector.find(frames[t], names) for t in range(0, len(frames), self.every)}


class TrackFollower:
    """Follows what was detected through the clip and joins what is one object.

    Args:
        join: least IoU of a detection with a track's box to belong to it.
        most: objects of one clip that are followed, the surest first.
    """

    def __init__(self, segmenter: VideoSegmenter, join: float = 0.5, most: int = 8) -> None:
        self.segmenter, self.join, self.most = segmenter, join, most

    @property
    def parts(self) -> dict[str, Annotator]:
        """The segmenter."""
        return {"segmenter": self.segmenter}

    def describe(self) -> Backend:
        """The segmenter and how tracks are joined."""
        return self.segmenter.describe().also(join=self.join, most=self.most)

    def follow(self, frames: np.ndarray, detected: Mapping[int, Detections]) -> list[TrackedObject]:
        """All objects of frames [T, H, W, 3] from their detections by keyframe, the surest first."""
        tracks: list[_Track] = []
        for t, found in sorted(detected.items()):
            joined = self._join(tracks, found, t)
            for number, track in joined.items():
                track.scores.append(float(found.scores[number]))
                track.labels.append(found.labels[number])
            fresh = [i for i in range(len(found.scores)) if i not in joined][: self.most - len(tracks)]
            if not fresh:
                continue
            masks, _ = self.segmenter.propagate(frames, t, found.boxes[fresh])
            for i, mask in zip(fresh, masks, strict=True):
                tracks.append(_Track(mask, [float(found.scores[i])], [found.labels[i]]))
        things = [
            TrackedObject(
                Counter(track.labels).most_common(1)[0][0],
                float(np.mean(track.scores)),
                len(track.scores),
                track.masks,
            )
            for track in tracks
        ]
        return sorted(things, key=lambda thing: -thing.score)

    def _join(self, tracks: list[_Track], found: Detections, t: int) -> dict[int, _Track]:
        """Detection number -> the track that it belongs to, one to one, with the largest total IoU."""
        agreement = np.zeros((len(tracks), len(found.scores)))
        for i, track in enumerate(tracks):
            box = bounds(track.masks[t])
            if box is not None and len(found.scores):
                same = [label in track.labels for label in found.labels]
                agreement[i] = iou(box[None], found.boxes)[0] * same
        pairs = zip(*linear_sum_assignment(-agreement), strict=True)
        return {int(j): tracks[i] for i, j in pairs if agreement[i, j] >= self.join}


class GroundedSam2:
    """Detector and segmenter together, each for a stage of its own: `detector` and `follower`.

    Args:
        every: frames from keyframe to keyframe.
        join: least IoU of a detection with a track's box to belong to it.
        most: objects of one clip that are followed, the surest first.
    """

    def __init__(
        self,
        detector: OpenDetector,
        segmenter: VideoSegmenter,
        every: int = 20,
        join: float = 0.5,
        most: int = 8,
    ) -> None:
        self.detector = KeyframeDetector(detector, every)
        self.follower = TrackFollower(segmenter, join, most)

    def annotators(self) -> tuple[ClipDetector, ObjectFollower]:
        """Both, as a task's stages take them."""
        return self.detector, self.follower
