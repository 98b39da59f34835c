"""What stands out from the clean plate, and which of it is one person: body, belongings and soft shadow.

The plate must show the background as this frame does, so a moving camera is aligned first. The masks are
exact where the difference is: a pixel left out would stay behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import cv2
import numpy as np

from curation.core.interfaces import Plate, Track
from curation.ops.masks import bounds, close, components, dilate, fill_holes, grow, largest, touching
from shards.limits import in_range

Window = tuple[slice, slice]  # rows, columns
FAR = 64  # pixels up to which the distance of a neighbour is measured
THRESHOLDS = ("reach_x", "reach_y", "trunk", "fullness", "neighbour")  # of ForegroundSettings


@dataclass(frozen=True)
class ForegroundSettings:
    """Thresholds in grey levels (0 to 255); lengths in pixels or in box heights, as said."""

    strong: float = 28.0  # largest channel difference that counts as an object
    noise_gain: float = 1.4  # a pixel that usually differs (a tape in the wind) needs more
    weak: float = 3.0  # smoothed brightness difference that counts as soft shadow
    shadow_reach: float = 0.3  # box heights: how far from the body a shadow is looked for
    reach_x: float = 0.28  # box heights: how far a person may stick out of the box sideways
    reach_y: float = 0.2  # box heights: the same upwards and downwards
    trunk: float = 0.52  # body heights: one person's trunk is never this wide
    fullness: float = 0.37  # area over squared height: one person who stands or walks has 0.2 to 0.35
    speck: int = 10  # pixels: smaller components are noise
    neighbour: int = 7  # pixels: a strange component this close to the body touches it

    def __post_init__(self) -> None:
        in_range("neighbour", self.neighbour, 0, FAR)

    def thresholds(self) -> dict[str, object]:
        """Those that are compared with what was measured."""
        return {name: getattr(self, name) for name in THRESHOLDS}

    def measuring(self) -> dict[str, object]:
        """Those that change what is measured."""
        return {name: value for name, value in asdict(self).items() if name not in THRESHOLDS}


class BodyMeasures(NamedTuple):
    """What is decided on of one person in one frame; a list in JSON.

    Attributes:
        area: pixels of the body.
        bounds: of the body in the picture; None when nothing stands out.
        neighbour: pixels from the body to the nearest strange component; None when it is farther than `FAR`.
        over: body's part outside of the box, sideways and upwards or downwards, in box heights.
        trunk, fullness: see `trunk_width` and `fullness`.
    """

    area: int
    bounds: tuple[float, float, float, float] | None = None
    neighbour: int | None = None
    over: tuple[float, float] = (0.0, 0.0)
    trunk: float = 0.0
    fullness: float = 0.0

    def reason(self, settings: ForegroundSettings) -> str:
        """Why the body cannot be used; "" when it can.

        "another object at the mask" when something strange touches it, "merged people" when it is larger
        than its box, "two people in one mask" when it is too broad for one, "no foreground".
        """
        if self.bounds is None:
            return "no foreground"
        if self.neighbour is not None and self.neighbour <= settings.neighbour:
            return "another object at the mask"
        if self.over[0] > settings.reach_x or self.over[1] > settings.reach_y:
            return "merged people"
        if self.trunk > settings.trunk or self.fullness > settings.fullness:
            return "two people in one mask"
        return ""


@dataclass(frozen=True)
class Foreground:
    """A window of one frame against the plate.

    `backdrop` uint8 RGB, `strong` and `weak` bool, all [h, w]; `gap` as of the plate.
    """

    window: Window
    backdrop: np.ndarray
    strong: np.ndarray
    weak: np.ndarray
    gap: int


def light_change(image: np.ndarray, plate: Plate) -> np.ndarray:
    """Slow change of light between plate and frame, float32 [H/8, W/8, 3], measured where nothing moves."""
    height, width = image.shape[:2]
    size = (max(1, width // 8), max(1, height // 8))
    apart = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    apart -= cv2.resize(plate.image, size, interpolation=cv2.INTER_AREA)
    moving = (largest(np.abs(apart)) > 14).astype(np.uint8)
    weight = 1 - cv2.dilate(moving, np.ones((3, 3), np.uint8)).astype(np.float32)
    smooth = cv2.GaussianBlur(apart * weight[..., None], (0, 0), 6)
    return smooth / np.maximum(cv2.GaussianBlur(weight, (0, 0), 6), 1e-3)[..., None]


def subtract_background(
    image: np.ndarray, plate: Plate, light: np.ndarray, window: Window, settings: ForegroundSettings
) -> Foreground:
    """Compare a window of a frame with the relit plate."""
    height, width = image.shape[:2]
    rows, columns = window
    here, noise = image[window], plate.noise[window]
    # Bilinear samples of the light map at this window's pixels.
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * light.shape[0] / height - 0.5
    x = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) * light.shape[1] / width - 0.5
    grid = np.meshgrid(x, y)
    change = cv2.remap(light, grid[0], grid[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    backdrop = np.clip(plate.image[window] + change + 0.5, 0, 255).astype(np.uint8)
    threshold = np.maximum(settings.strong, settings.noise_gain * noise + 10)
    apart = largest(cv2.absdiff(here, backdrop))
    strong = (cv2.blur(apart, (3, 3)) > 0.6 * threshold) & (apart > 0.5 * threshold)
    grey = cv2.cvtColor(here, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey -= cv2.cvtColor(backdrop, cv2.COLOR_RGB2GRAY)
    # Brightness that differs over an area is shadow; where the plate is restless it says nothing.
    weak = np.abs(cv2.GaussianBlur(grey, (0, 0), 1.6)) > settings.weak + 0.4 * np.maximum(noise - 8, 0)
    return Foreground(window, backdrop, strong, weak, plate.gap)


def window_of(box: np.ndarray, shape: tuple[int, ...], margin: float) -> Window:
    """The window `margin` box heights around a box."""
    left, top, right, bottom = grow(box, 1.0, shape, pad=margin * float(box[3] - box[1]))
    return slice(top, bottom), slice(left, right)


def body_of(
    seen: Foreground, box: np.ndarray, pose: np.ndarray | None, settings: ForegroundSettings
) -> tuple[np.ndarray, str]:
    """The person in `box` as bool [h, w] of the window, and why it cannot be used ("" when it can)."""
    body, measures = measure_body(seen, box, pose, settings)
    return body, measures.reason(settings)


def measure_body(
    seen: Foreground, box: np.ndarray, pose: np.ndarray | None, settings: ForegroundSettings
) -> tuple[np.ndarray, BodyMeasures]:
    """The person in `box` as bool [h, w] of the window, and what is decided on of it.

    `pose` is the segmenter's probability float32 [H, W], or None. No threshold of `settings` changes it.
    """
    height = float(box[3] - box[1])
    rows, columns = seen.window
    here = box - np.array([columns.start, rows.start, columns.start, rows.start], np.float32)
    strong = close(seen.strong, 1)
    x0, y0, x1, y1 = grow(here, 1.0, strong.shape, pad=0.08 * height)
    inside = np.zeros(strong.shape, bool)
    inside[y0:y1, x0:x1] = True
    person = inside if pose is None else pose[seen.window] > 0.5
    count, labels = components(strong)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    in_box = np.bincount(labels[inside], minlength=count + 1)
    in_person = np.bincount(labels[person], minlength=count + 1)
    mine = ((in_box >= 0.6 * sizes) | (in_person >= 0.5 * sizes)) & (sizes >= settings.speck)
    other = ~mine & (sizes >= settings.speck)
    mine[0] = other[0] = False
    body, strange = mine[labels], other[labels]
    if pose is not None and body.any():
        body |= person & dilate(body, 4)
    body = fill_holes(close(body, seen.gap))
    found = bounds(body)
    if found is None:
        return body, BodyMeasures(0)
    over = np.array([here[0] - found[0], here[1] - found[1], found[2] - here[2], found[3] - here[3]]) / height
    left, top, right, bottom = (found + np.tile([columns.start, rows.start], 2)).tolist()
    return body, BodyMeasures(
        area=int(body.sum()),
        bounds=(left, top, right, bottom),
        neighbour=distance(body, strange),
        over=(float(max(over[0], over[2])), float(max(over[1], over[3]))),
        trunk=trunk_width(body),
        fullness=fullness(body),
    )


def distance(body: np.ndarray, other: np.ndarray) -> int | None:
    """The least radius by which `dilate` grows a body into another mask; None when it is beyond `FAR`."""
    if not other.any():
        return None
    gaps = cv2.distanceTransform((~body).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    nearest = float(gaps[other].min())
    if nearest > FAR + 1:
        return None
    # A disc of whole pixels holds all within its radius, and some that are up to half a pixel farther.
    radius = int(np.ceil(nearest - 1e-3))
    if radius > 0 and (other & dilate(body, radius - 1)).any():
        radius -= 1
    return radius if radius <= FAR else None


def fullness(body: np.ndarray) -> float:
    """Area of a body mask over its squared height; 0 when the picture's upper edge cuts it."""
    rows = np.flatnonzero(body.any(1))
    return float(body.sum() / (rows[-1] + 1 - rows[0]) ** 2) if len(rows) and rows[0] > 1 else 0.0


def trunk_width(body: np.ndarray) -> float:
    """Width of a body mask between 15 and 45 % of its height, as a share of the height.

    0 when the body is empty or cut by the picture's upper edge: then those rows are no trunk.
    """
    rows = np.flatnonzero(body.any(1))
    if not len(rows) or rows[0] <= 1:
        return 0.0
    top, height = rows[0], rows[-1] + 1 - rows[0]
    band = body[top + int(0.15 * height) : top + max(1, int(0.45 * height))].sum(1)
    return float(np.percentile(band, 90) / height) if len(band) else 0.0


class FollowedFrame(NamedTuple):
    """A frame that a track was followed to; a list in JSON.

    `guess` is the box [4] that was looked into and `seen` the body there; `box` is where the box moved by it,
    and `body` the one there.
    """

    guess: list[float]
    seen: BodyMeasures
    box: list[float]
    body: BodyMeasures


BodyAt = Callable[[int, np.ndarray], BodyMeasures | None]  # frame and box [4]; None where nothing is known


def follow(box: np.ndarray, body_at: BodyAt, start: int, step: int, stop: int) -> list[FollowedFrame]:
    """The frames after `start`, in direction `step`, as far as something stands out and keeps its height.

    The box keeps its size and moves with the centre of the body's bounds; `stop` is the first frame not to
    look at. Whether the body is alone and whole is decided afterwards: what is seen does not depend on it.
    """
    followed: list[FollowedFrame] = []
    before = body_at(start, box)
    velocity = np.zeros(2, np.float32)
    for frame in range(start + step, stop, step):
        if before is None or before.bounds is None:
            break
        guess = box + np.tile(velocity, 2)
        seen = body_at(frame, guess)
        if seen is None or seen.bounds is None:
            break
        now, last = np.array(seen.bounds, np.float32), np.array(before.bounds, np.float32)
        size, size_before = now[2:] - now[:2], last[2:] - last[:2]
        if abs(float(np.log(size[1] / size_before[1]))) > 0.2:  # it goes behind something, or joins something
            break
        moved = ((now[:2] + now[2:]) - (last[:2] + last[2:])) / 2
        box = (box + np.tile(moved, 2)).astype(np.float32)
        body = body_at(frame, box)
        if body is None:
            break
        followed.append(FollowedFrame(guess.tolist(), seen, box.tolist(), body))
        velocity = (0.7 * velocity + 0.3 * moved).astype(np.float32)
        before = seen
    return followed


def with_shadow(seen: Foreground, body: np.ndarray, settings: ForegroundSettings) -> np.ndarray:
    """The body and the soft shadow that touches it, bool [h, w] of the window; no strange objects."""
    found = bounds(body)
    if found is None:
        return body
    reach = max(3, round(settings.shadow_reach * float(found[3] - found[1])))
    near = dilate(body, reach) & ~dilate(close(seen.strong & ~dilate(body, 2), 1), 2)
    weak = cv2.morphologyEx((seen.weak & near).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3))) > 0
    return fill_holes(close(touching(weak | body, body), 2))


def regroup(track: Track, frames: int, plate_of: Callable[[int], Plate | None]) -> Track:
    """A track of a moving camera with the boxes of what moves by itself, followed from its first detection.

    A detector's box often holds half of a person who is cut by the picture's edge; the moving region has all.
    """

    def region(t: int, seed: np.ndarray) -> np.ndarray | None:
        plate = plate_of(t)
        if plate is None:
            return None
        found = touching(plate.noise < 255, seed)
        return found if found.any() else None

    first = plate_of(track.start)
    if first is None:
        return track
    seed = np.zeros(first.noise.shape, bool)
    left, top, right, bottom = grow(track.boxes[0], 0.8, seed.shape)
    seed[top:bottom, left:right] = True
    start = region(track.start, seed)
    if start is None:
        return track
    boxes = {track.start: bounds(start)}
    for step, stop in ((1, frames), (-1, -1)):
        before = start
        for t in range(track.start + step, stop, step):
            now = region(t, dilate(before, 6))
            if now is None or not 0.4 < now.sum() / before.sum() < 2.5:
                break
            boxes[t], before = bounds(now), now
    order = sorted(boxes)
    return Track(
        track.id, order[0], np.stack([b for b in (boxes[t] for t in order) if b is not None]), track.score
    )
