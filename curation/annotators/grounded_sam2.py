"""Grounded-SAM-2, improved: objects found by name at keyframes, followed by SAM 2 from where they were found.

The authors' demonstration loses scores, drops what one keyframe misses, and follows objects back for forty
frames. Here each track keeps the scores and names of its detections, detections join tracks by Hungarian
matching on IoU within a name, tracks that a keyframe misses stay, and each goes through the whole clip both
ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from curation.core.interfaces import Detections, OpenDetector, TrackedObject, VideoSegmenter
from curation.ops.masks import bounds, iou
from curation.vlm.interface import Annotator, Backend


@dataclass
class _Track:
    masks: np.ndarray
    scores: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


class GroundedSam2:
    """Detector and segmenter together.

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
        self.detector, self.segmenter = detector, segmenter
        self.every, self.join, self.most = every, join, most

    @property
    def parts(self) -> dict[str, Annotator]:
        """The annotators that it is made of."""
        return {"detector": self.detector, "segmenter": self.segmenter}

    def describe(self) -> Backend:
        """Both models and the recipe."""
        settings = {"every": self.every, "join": self.join, "most": self.most}
        return Backend.of_parts("grounded-sam2", self.parts, **settings)

    def objects(self, frames: np.ndarray, names: Sequence[str]) -> list[TrackedObject]:
        """All objects of frames [T, H, W, 3] that one of `names` fits, the surest first."""
        tracks: list[_Track] = []
        for t in range(0, len(frames), self.every):
            found = self.detector.find(frames[t], names)
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
