"""One edit pair from one window of one track: masks, composition, and what is measured of both.

Everything here works on frames at the working size; encoding is the task's last step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import cv2
import numpy as np

from curation.core.interfaces import Detector, Plate, Segmenter
from curation.ops.masks import bounds, close, dilate, grow, large_parts, largest, touching
from curation.removal.background_subtraction import (
    Foreground,
    ForegroundSettings,
    light_change,
    measure_body,
    subtract_background,
    window_of,
    with_shadow,
)
from curation.removal.filters import GateSettings
from curation.removal.stages import FrameMeasures


@dataclass
class Pair:
    """A person cut out of a window.

    Source and target uint8 [T, H, W, 3]; `mask` bool is where they may differ, `body` the person alone;
    `frames` are the measures of each frame, up to one in which nothing stands out.
    """

    source: np.ndarray
    target: np.ndarray
    mask: np.ndarray
    body: np.ndarray
    frames: list[FrameMeasures]

    @property
    def outside(self) -> int:
        """The largest change outside the mask, in levels."""
        unmasked = zip(self.source, self.target, ~self.mask, strict=True)
        return max(int((largest(cv2.absdiff(a, b)) * m).max()) for a, b, m in unmasked)


def make_pair(
    frames: np.ndarray,
    boxes: np.ndarray,
    plates: list[Plate],
    segmenter: Segmenter,
    settings: ForegroundSettings,
    gates: GateSettings,
    grow_by: int,
    feather: int,
) -> Pair:
    """Cut the person in `boxes` [T, 4] out of `frames` [T, H, W, 3] and show the plate there instead.

    Everything that gates go by is measured; of `gates` only those that say where to look are used.
    """
    shape = frames.shape[:3]
    pair = Pair(frames, frames.copy(), np.zeros(shape, bool), np.zeros(shape, bool), [])
    for t, box in enumerate(boxes):
        pose = segmenter.segment(frames[t], box)[0] if t % gates.segment_every == 0 else None
        window = window_of(box, shape[1:], 0.8)
        light = light_change(frames[t], plates[t])
        seen = subtract_background(frames[t], plates[t], light, window, settings)
        body, measures = measure_body(seen, box, pose, settings)
        if measures.bounds is None:
            pair.frames.append(FrameMeasures(measures))
            break
        whole = with_shadow(seen, body, settings)
        strange = large_parts(close(seen.strong, 1) & ~dilate(body, 2), gates.stranger_pixels)
        # A stranger may stand in the shadow; it and its edge stay as they are.
        support = dilate(whole, grow_by + feather) & ~dilate(strange, grow_by)
        pair.target[t][window] = _mixed(frames[t][window], seen.backdrop, support, feather)
        pair.mask[t][window], pair.body[t][window] = support, body
        shown = plates[t].agreement[window][support]
        ring = _measure_ring(frames[t][window], seen, support, strange, gates, grow_by, feather)
        pair.frames.append(
            FrameMeasures(
                measures,
                stranger=bool((strange & dilate(body, grow_by + feather)).any()),
                agreement=float(np.percentile(shown, 5)) if shown.size else 0.0,
                confirmed=None if pose is None else _confirmed(seen, body, pose),
                **ring,
            )
        )
    return pair


def _confirmed(seen: Foreground, body: np.ndarray, pose: np.ndarray) -> float:
    """How much of a body bool [h, w] the segmenter's probability float32 [H, W] confirms."""
    person = dilate(pose[seen.window] > 0.4, 3)
    return float((body & person).sum() / max(1, body.sum()))


def _mixed(here: np.ndarray, backdrop: np.ndarray, support: np.ndarray, feather: int) -> np.ndarray:
    """The backdrop inside `support`, fading in over `feather` pixels from its edge; uint8 RGB [h, w, 3]."""
    depth = cv2.distanceTransform(support.astype(np.uint8), cv2.DIST_L2, 5)
    alpha = np.clip(depth / (feather + 1), 0, 1)
    picture = here.astype(np.float32)
    mixed = picture + alpha[..., None] * (backdrop - picture)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


class RingMeasures(TypedDict):
    """What is measured close around a mask, see `FrameMeasures`."""

    residual: int
    shadow: float
    ring_error: float | None


def _measure_ring(
    here: np.ndarray,
    seen: Foreground,
    support: np.ndarray,
    strange: np.ndarray,
    gates: GateSettings,
    grow_by: int,
    feather: int,
) -> RingMeasures:
    """Look close around the mask for what was left out of it."""
    ring = dilate(support, gates.ring) & ~support
    left = touching(seen.strong & ring & ~dilate(strange, grow_by), dilate(support, 1))
    near = dilate(support, 3) & ~support & ~dilate(strange, 2 * grow_by + feather)
    error = float(cv2.absdiff(here, seen.backdrop)[near].mean()) if near.any() else None
    share = float((seen.weak & near).sum() / max(1, near.sum()))
    return {"residual": int(left.sum()), "shadow": share, "ring_error": error}


def has_leftover(target: np.ndarray, masks: np.ndarray, detector: Detector, gates: GateSettings) -> bool:
    """Whether the object is still seen in the result uint8 [T, H, W, 3] in its masks bool [T, H, W].

    Looked for in the largest square around the mask, and in an enlarged crop.
    """
    for t in range(0, len(target), gates.check_every):
        frame, mask = target[t], masks[t]
        box = bounds(mask)
        if box is None:
            continue
        found = []
        for factor in (gates.check_zoom, 1e9):  # 1e9: as large a square as the frame holds
            left, top, right, bottom = square_around(box, factor, mask.shape)
            crop, _ = detector.detect(frame[top:bottom, left:right])
            found.append(crop + np.array([left, top, left, top], np.float32))
        # A neighbour outside the mask may be found; its box is not in the mask.
        if overlaps(mask, np.concatenate(found)):
            return True
    return False


def square_around(box: np.ndarray, factor: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A square `factor` times the longer side of the box, moved and cut to lie inside `shape`."""
    side = int(min(float(max(box[2] - box[0], box[3] - box[1])) * factor, shape[0], shape[1]))
    left = int(np.clip((box[0] + box[2] - side) / 2, 0, shape[1] - side))
    top = int(np.clip((box[1] + box[3] - side) / 2, 0, shape[0] - side))
    return left, top, left + side, top + side


def overlaps(mask: np.ndarray, boxes: np.ndarray) -> bool:
    """Whether any box has its centre in the mask [H, W], or a third of its area."""
    for box in boxes:
        left, top, right, bottom = grow(box, 1.0, mask.shape)
        inside = mask[top:bottom, left:right]
        if not inside.size:
            continue
        y, x = inside.shape[0] // 2, inside.shape[1] // 2
        if inside[y, x] or inside.mean() > 0.33:
            return True
    return False
