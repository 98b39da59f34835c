"""A mask that was drawn on one frame, and its way through the clip.

The drawing arrives as brush strokes, a few kilobytes of numbers: Gradio's ImageEditor would need WebGL, and
keeps whatever is sent to it in memory without a limit, which `model.app.security` does not let through.
Following the motion is plain: from frame to frame, the shift, turn and scaling that most pixels under the
mask make, by dense optical flow (DIS, Kroeger et al., arXiv 1603.03590). The outline stays as it was drawn:
it does not bend with what moves its limbs, nothing is found again that was hidden, and it drifts over
hundreds of frames. Warping the mask pixel by pixel frayed it: of a textured square that moved five pixels a
frame, 0.27 (IoU) was left after 19 frames, and 0.81 this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.app.service import RequestRejected, is_video
from model.inference.two_pass import as_clause
from shards.errors import EditVerseError
from shards.limits import parse_json
from shards.media import iter_frames, probe, read_image, resize

MAX_DRAWING = 100_000  # characters
MAX_SIDE = 1024  # of the picture that was drawn on
MAX_RADIUS, MAX_DRAWN = 256, 10_000  # of a brush; points of all strokes, a second of work
FLOW_SIDE = 256  # longer side at which motion is estimated; the mask itself keeps its size
MAX_POINTS, MIN_POINTS = 2000, 12  # pixels under the mask that tell how it moves
BAD = "the drawing is malformed; clear it and draw again"


@dataclass(frozen=True)
class Stroke:
    """A line of a round brush: its points int32 [n, 2] (x, y), its radius, and whether it erases."""

    points: np.ndarray
    radius: int
    erases: bool


@dataclass(frozen=True)
class Drawing:
    """Strokes in the order in which they were made, on a picture of (height, width), of frame `frame`."""

    frame: int
    size: tuple[int, int]
    strokes: Sequence[Stroke]

    def render(self, height: int, width: int) -> np.ndarray:
        """The mask bool [height, width]: what was painted and not erased afterwards."""
        rows, columns = self.size
        mask = np.zeros((rows, columns), np.uint8)
        for stroke in self.strokes:
            value = (0,) if stroke.erases else (255,)
            cv2.polylines(mask, [stroke.points], False, value, 2 * stroke.radius)  # with round ends
            cv2.circle(mask, stroke.points[0].tolist(), stroke.radius, value, -1)
        scaled = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        marked: np.ndarray = scaled > 127
        return marked


def read_drawing(text: str) -> Drawing:
    """The drawing that the page sent.

    Args:
        text: JSON: `frame`, `size` [width, height], `strokes` with `radius`, `erases`, `points` [x, y, ...].

    Raises:
        RequestRejected: it is none, or nothing is drawn.
    """
    try:
        value = parse_json(text, "the drawing")
    except EditVerseError:
        raise RequestRejected(BAD) from None
    width, height = _whole_numbers(_field(value, "size"), 1, MAX_SIDE, 2)
    (frame,) = _whole_numbers([_field(value, "frame")], 0, 1 << 20, 1)
    strokes = _field(value, "strokes")
    if not isinstance(strokes, list):
        raise RequestRejected(BAD)
    if not strokes:
        raise RequestRejected("nothing is drawn yet: paint over what is to be changed")
    drawing = Drawing(frame, (height, width), [_stroke(stroke) for stroke in strokes])
    if sum(len(stroke.points) for stroke in drawing.strokes) > MAX_DRAWN:
        raise RequestRejected("too much is drawn; clear it and use a broader brush")
    return drawing


def _stroke(value: Any) -> Stroke:
    points = _whole_numbers(_field(value, "points"), -MAX_SIDE, 2 * MAX_SIDE)
    (radius,) = _whole_numbers([_field(value, "radius")], 1, MAX_RADIUS, 1)
    erases = _field(value, "erases")
    if not points or len(points) % 2 or not isinstance(erases, bool):
        raise RequestRejected(BAD)
    return Stroke(np.array(points, np.int32).reshape(-1, 2), radius, erases)


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise RequestRejected(BAD)
    return value[name]


def _whole_numbers(value: Any, least: int, most: int, count: int | None = None) -> list[int]:
    """The list, if it holds whole numbers from `least` to `most`, and `count` of them if that is given."""
    fits = isinstance(value, list) and all(type(n) is int and least <= n <= most for n in value)
    if not fits or (count is not None and len(value) != count):
        raise RequestRejected(BAD)
    numbers: list[int] = value
    return numbers


def frame_at(path: Path, index: int) -> np.ndarray:
    """Frame `index` of a video, the last one where it has fewer, or the picture: uint8 RGB [H, W, 3].

    Raises:
        MediaError: the file cannot be read.
    """
    if not is_video(path):
        return read_image(path)
    index = min(index, probe(path).frames - 1)
    return next(iter_frames(path, start=index, stop=index + 1))


def propagate(path: Path, mask: np.ndarray, index: int, follow: bool) -> np.ndarray:
    """Masks of all frames of a video, from the one of frame `index`.

    Args:
        path: of the video.
        mask: bool [H, W].
        follow: move it with what it covers; else it stays where it is.

    Returns:
        bool [T, H, W].

    Raises:
        MediaError: the file cannot be read.
    """
    count = probe(path).frames
    if not follow:
        return np.repeat(mask[None], count, axis=0)
    rows, columns = mask.shape
    scale = min(1.0, FLOW_SIDE / max(rows, columns))
    size = max(16, round(rows * scale)), max(16, round(columns * scale))
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in iter_frames(path, size=size)]
    index = min(index, len(grey) - 1)
    masks = np.zeros((len(grey), rows, columns), bool)
    masks[index] = mask
    for number, moved in _followed(grey[index:], mask):
        masks[index + number] = moved
    for number, moved in _followed(grey[index::-1], mask):
        masks[index - number] = moved
    return masks


def _followed(frames: Sequence[np.ndarray], mask: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(1, mask of the second frame), (2, ...): the drawn one, moved as most of the pixels under it move."""
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rows, columns = mask.shape
    height, width = frames[0].shape
    shrink = np.diag([width / columns, height / rows, 1.0])
    drawn = mask.astype(np.uint8) * 255
    way = np.eye(3)  # from the frame that was drawn on, in its pixels
    for number in range(1, len(frames)):
        here = cv2.warpAffine(drawn, (shrink @ way)[:2], (width, height)) > 127
        points = np.argwhere(here)[:, ::-1].astype(np.float32)
        points = points[:: max(1, len(points) // MAX_POINTS)]
        if len(points) >= MIN_POINTS:
            flow = flow_of.calc(frames[number - 1], frames[number], None)  # type: ignore[call-overload]
            moved = points + flow[points[:, 1].astype(int), points[:, 0].astype(int)]
            step, _ = cv2.estimateAffinePartial2D(points, moved, ransacReprojThreshold=1.0)
            if step is not None:
                way = np.linalg.inv(shrink) @ np.vstack([step, [0, 0, 1]]) @ shrink @ way
        yield number, cv2.warpAffine(drawn, way[:2], (columns, rows)) > 127


def with_mask(text: str, sources: Sequence[str]) -> str:
    """The instruction with the tag of the mask, in the form that models are trained on, unless it has it."""
    if "<mask>" in text:
        return text
    source = next((f"<{name}>" for name in sources if text.lstrip().startswith(f"<{name}> ")), None)
    if source is None:
        return f"{text.rstrip()} <mask>".lstrip()
    return f"{source} Use <mask> to {as_clause(text.lstrip().removeprefix(source).strip())}"


def overlay(picture: np.ndarray, mask: np.ndarray, height: int = 120) -> np.ndarray:
    """The picture, small, with the mask in red on it: uint8 RGB [height, w, 3]; the mask may be smaller."""
    picture = resize(picture, (mask.shape[0], mask.shape[1]))
    red = np.where(mask[..., None], (picture * 0.4 + np.array([255, 40, 40]) * 0.6).astype(np.uint8), picture)
    width = max(2, round(picture.shape[1] * height / picture.shape[0]))
    return resize(red, (height, width))
