"""Tracker: boxes carried from frame to frame by DIS optical flow, matched to detections by overlap.

Offline: between two detections the box is interpolated, so a track has no lag.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from curation.core.interfaces import Track
from curation.ops.masks import iou
from curation.vlm.interface import Backend


@dataclass
class _Open:
    """A track under construction: the carried box and the detections it has met."""

    box: np.ndarray
    hits: list[tuple[int, np.ndarray, float]] = field(default_factory=list)


class FlowTracker:
    """Hungarian matching at overlap `match`; a track ends after `patience` frames without a detection."""

    license = "Apache-2.0 (OpenCV)"

    def __init__(self, match: float = 0.3, patience: int = 9, min_hits: int = 3) -> None:
        self.match, self.patience, self.min_hits = match, patience, min_hits

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        settings = {"match": self.match, "patience": self.patience, "min_hits": self.min_hits}
        return Backend("dis-flow-iou", "", cv2.__version__, settings)

    def track(self, frames: np.ndarray, found: dict[int, tuple[np.ndarray, np.ndarray]]) -> list[Track]:
        """See `curation.core.interfaces.Tracker`. Tracks are ordered by their first frame, then from left to
        right.
        """
        flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)  # type: ignore[attr-defined]
        live: list[_Open] = []
        ended: list[_Open] = []
        before: np.ndarray | None = None
        for index, frame in enumerate(frames):
            # Half size: boxes need no more, and it costs a quarter.
            grey = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), None, fx=0.5, fy=0.5)
            if before is not None and live:
                moved = flow.calc(before, grey, None)
                for track in live:
                    track.box = track.box + 2 * np.tile(_motion(moved, track.box / 2), 2)
            before = grey
            if index in found:
                self._meet(live, index, *found[index])
            ended += [t for t in live if index - t.hits[-1][0] > self.patience]
            live = [t for t in live if index - t.hits[-1][0] <= self.patience]
        kept = [t for t in ended + live if len(t.hits) >= self.min_hits]
        kept.sort(key=lambda t: (t.hits[0][0], float(t.hits[0][1][0])))
        return [_finish(i, t) for i, t in enumerate(kept)]

    def _meet(self, live: list[_Open], index: int, boxes: np.ndarray, scores: np.ndarray) -> None:
        """Give each track its detection; detections without a track start one."""
        taken = set()
        if live and len(boxes):
            overlap = iou(np.stack([t.box for t in live]), boxes)
            for i, j in zip(*linear_sum_assignment(-overlap), strict=True):
                if overlap[i, j] >= self.match:
                    live[i].box = boxes[j]
                    live[i].hits.append((index, boxes[j], float(scores[j])))
                    taken.add(int(j))
        for j in range(len(boxes)):
            if j not in taken:
                live.append(_Open(boxes[j], [(index, boxes[j], float(scores[j]))]))


def _motion(flow: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Median flow [2] in the middle of a box: its edges show the background."""
    height, width = flow.shape[:2]
    dx, dy = 0.25 * (box[2] - box[0]), 0.15 * (box[3] - box[1])
    left, right = np.clip([box[0] + dx, box[2] - dx], 0, width).astype(int)
    top, bottom = np.clip([box[1] + dy, box[3] - dy], 0, height).astype(int)
    inside = flow[top : bottom + 1, left : right + 1].reshape(-1, 2)
    return np.median(inside, axis=0) if len(inside) else np.zeros(2, np.float32)


def _finish(number: int, track: _Open) -> Track:
    """Boxes for every frame from first to last detection: sizes by the median of five, then interpolated."""
    when = np.array([hit[0] for hit in track.hits])
    boxes = np.stack([hit[1] for hit in track.hits]).astype(np.float64)
    # One box that is too wide or too narrow gives way; the centre keeps its own detection.
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    padded = np.pad(size, ((2, 2), (0, 0)), mode="edge")
    size = np.median(np.stack([padded[k : k + len(size)] for k in range(5)]), axis=0)
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    grid = np.arange(when[0], when[-1] + 1)
    dense = np.stack([np.interp(grid, when, boxes[:, k]) for k in range(4)], axis=1)
    return Track(
        number, int(when[0]), dense.astype(np.float32), float(np.mean([hit[2] for hit in track.hits]))
    )
