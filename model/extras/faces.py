"""Faces in a window of a video, by the Haar cascade that ships with OpenCV (Viola and Jones 2001).

Its limits are those of the detector: faces from the front, upright, of at least a twelfth of the shorter
side. It is wrong too often to be used unasked: of 250 frames of a street (`bikes.mp4`) it marks a poster in
40, and none of the two faces that are there; of 300 frames seen from above (`vtest.avi`) it marks none.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from shards.media import shrunk_size

EVERY = 4  # frames from one search to the next; between them faces are followed
SIDE = 480  # pixels of the longer side that is searched
SMALLEST = 1 / 12  # of the shorter side; smaller ones take several times as long to search for
VOTES = 3  # detections at one place that count as one face
SAME = 0.3  # intersection over union of two boxes from which on they are one face
LIKENESS = 0.6  # correlation of a face with itself a frame later, below which it is lost
GROWN = 1.3  # of the detector's box: it ends at chin and eyebrows

Box = tuple[int, int, int, int]  # left, top, width, height


def find_faces(frames: np.ndarray) -> np.ndarray:
    """Where faces are: uint8 [T, H, W], 255 in an ellipse around each, of frames uint8 RGB [T, H, W, 3].

    A face of a video counts where it was detected twice; between, it is followed by its looks.
    """
    height, width = frames.shape[1:3]
    rows, columns = shrunk_size((height, width), SIDE)
    grey = [
        cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (columns, rows), interpolation=cv2.INTER_AREA)
        for f in frames
    ]
    searched = {t: _detect(grey[t]) for t in range(0, len(grey), EVERY)}
    marked = np.zeros(frames.shape[:3], np.uint8)
    tracks: list[dict[int, Box]] = []
    for start, boxes in searched.items():
        for box in boxes:
            if _any(box, [track[start] for track in tracks if start in track]):
                continue
            ahead = _follow(grey, range(start, len(grey)), box)
            tracks.append(_follow(grey, range(start, -1, -1), box) | ahead)
    for track in tracks:
        seen = [t for t, boxes in searched.items() if t in track and _any(track[t], boxes)]
        if len(seen) < min(2, len(searched)):
            continue
        for t, box in track.items():
            _draw(marked[t], box, (width / columns, height / rows))
    return marked


@cache
def _cascade() -> cv2.CascadeClassifier:
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_alt2.xml"))


def _detect(grey: np.ndarray) -> list[Box]:
    least = max(20, round(min(grey.shape) * SMALLEST))
    found = _cascade().detectMultiScale(grey, 1.1, VOTES, minSize=(least, least))
    return [(int(x), int(y), int(w), int(h)) for x, y, w, h in found]


def _follow(grey: list[np.ndarray], times: Iterable[int], box: Box) -> dict[int, Box]:
    """Boxes of a face by frame, from the first of `times` until it is no more like itself."""
    track: dict[int, Box] = {}
    x, y, w, h = box
    pattern = None
    for t in times:
        if pattern is not None:
            left, top = max(0, x - w // 3), max(0, y - h // 3)
            around = grey[t][top : y + h + h // 3, left : x + w + w // 3]
            score = cv2.matchTemplate(around, pattern, cv2.TM_CCOEFF_NORMED)
            _, best, _, (dx, dy) = cv2.minMaxLoc(score)
            if best < LIKENESS:
                break
            x, y = left + dx, top + dy
        track[t] = (x, y, w, h)
        pattern = grey[t][y : y + h, x : x + w]
    return track


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(0, across) * max(0, down)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def _any(box: Box, boxes: list[Box]) -> bool:
    return any(_overlap(box, other) > SAME for other in boxes)


def _draw(marked: np.ndarray, box: Box, scale: tuple[float, float]) -> None:
    x, y, w, h = box
    centre = round((x + w / 2) * scale[0]), round((y + h / 2) * scale[1])
    axes = round(w / 2 * scale[0] * GROWN), round(h / 2 * scale[1] * GROWN)
    cv2.ellipse(marked, centre, axes, 0, 0, 360, (255,), -1)
