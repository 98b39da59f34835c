"""One edit pair from one window of one track: masks, composition, and the checks of the result.

Everything here works on frames at the working size; encoding is the task's last step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from curation.core.interfaces import Detector, Plate, Segmenter
from curation.ops.masks import bounds, close, dilate, large_parts, largest, touching
from curation.removal import filters as g
from curation.removal.background_subtraction import (
    Foreground,
    ForegroundSettings,
    body_of,
    light_change,
    subtract_background,
    trunk_width,
    window_of,
    with_shadow,
)
from curation.removal.filters import GateSettings


@dataclass
class Pair:
    """Source and target uint8 [T, H, W, 3]; `mask` bool is where they may differ, `body` the person alone."""

    source: np.ndarray
    target: np.ndarray
    mask: np.ndarray
    body: np.ndarray
    scores: dict[str, float]


@dataclass
class FrameMeasures:
    """What is noted of the frames of a window, one value a frame.

    Attributes:
        confirmed: share of the body that the segmenter confirms, in the frames that it looked at.
        trunks: width of the trunk in body heights.
        shadow_shares: share of the ring around the mask that is shadow.
        ring_errors: grey levels by which the backdrop misses the picture close around the mask.
    """

    confirmed: list[float] = field(default_factory=list)
    trunks: list[float] = field(default_factory=list)
    shadow_shares: list[float] = field(default_factory=list)
    ring_errors: list[float] = field(default_factory=list)


class Rejected(Exception):
    """A candidate that a gate refused; the message is the gate's name."""


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

    Raises Rejected with the name of the first gate that refuses.
    """
    shape = frames.shape[:3]
    pair = Pair(frames, frames.copy(), np.zeros(shape, bool), np.zeros(shape, bool), {})
    measured = FrameMeasures()
    for t, box in enumerate(boxes):
        pose = segmenter.segment(frames[t], box)[0] if t % gates.segment_every == 0 else None
        window = window_of(box, shape[1:], 0.8)
        light = light_change(frames[t], plates[t])
        seen = subtract_background(frames[t], plates[t], light, window, settings)
        body = _body(seen, box, pose, settings, measured)
        whole = with_shadow(seen, body, settings)
        strange = _strangers(seen, body, gates, grow_by + feather)
        # A stranger may stand in the shadow; it and its edge stay as they are.
        support = dilate(whole, grow_by + feather) & ~dilate(strange, grow_by)
        pair.target[t][window] = _mixed(frames[t][window], seen.backdrop, support, feather)
        pair.mask[t][window], pair.body[t][window] = support, body
        if np.percentile(plates[t].agreement[window][support], 5) < gates.agreement:
            raise Rejected(g.PLATE)
        _check_ring(frames[t][window], seen, support, strange, gates, grow_by, feather, measured)
    pair.scores.update(_check_window(pair, gates, measured))
    return pair


def _body(
    seen: Foreground,
    box: np.ndarray,
    pose: np.ndarray | None,
    settings: ForegroundSettings,
    measured: FrameMeasures,
) -> np.ndarray:
    """The person, bool [h, w] of the window; notes how far the segmenter agrees. Raises Rejected."""
    body, reason = body_of(seen, box, pose, settings)
    if reason:
        raise Rejected(reason)
    if pose is not None:
        person = dilate(pose[seen.window] > 0.4, 3)
        measured.confirmed.append(float((body & person).sum() / max(1, body.sum())))
    measured.trunks.append(trunk_width(body))
    return body


def _strangers(seen: Foreground, body: np.ndarray, gates: GateSettings, margin: int) -> np.ndarray:
    """What stands out beside the body, bool [h, w]; Rejected where it comes within `margin` pixels of it."""
    strange = large_parts(close(seen.strong, 1) & ~dilate(body, 2), gates.stranger_pixels)
    if (strange & dilate(body, margin)).any():
        raise Rejected(g.OTHER_OBJECT)
    return strange


def _mixed(here: np.ndarray, backdrop: np.ndarray, support: np.ndarray, feather: int) -> np.ndarray:
    """The backdrop inside `support`, fading in over `feather` pixels from its edge; uint8 RGB [h, w, 3]."""
    depth = cv2.distanceTransform(support.astype(np.uint8), cv2.DIST_L2, 5)
    alpha = np.clip(depth / (feather + 1), 0, 1)
    picture = here.astype(np.float32)
    mixed = picture + alpha[..., None] * (backdrop - picture)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def _check_ring(
    here: np.ndarray,
    seen: Foreground,
    support: np.ndarray,
    strange: np.ndarray,
    gates: GateSettings,
    grow_by: int,
    feather: int,
    measured: FrameMeasures,
) -> None:
    """Look close around the mask for what was left out of it. Raises Rejected."""
    ring = dilate(support, gates.ring) & ~support
    left = touching(seen.strong & ring & ~dilate(strange, grow_by), dilate(support, 1))
    if left.sum() > gates.residual_pixels:
        raise Rejected(g.RESIDUAL)
    near = dilate(support, 3) & ~support & ~dilate(strange, 2 * grow_by + feather)
    share = float((seen.weak & near).sum() / max(1, near.sum()))
    if share > gates.shadow_share:
        raise Rejected(g.SHADOW)
    measured.shadow_shares.append(share)
    if near.any():
        measured.ring_errors.append(float(cv2.absdiff(here, seen.backdrop)[near].mean()))


def _check_window(pair: Pair, gates: GateSettings, measured: FrameMeasures) -> dict[str, float]:
    """The gates on a window as a whole, in the order in which they are counted; its scores."""
    areas = pair.body.sum((1, 2))
    if areas.min() < gates.min_area:
        raise Rejected(g.TOO_SMALL)
    ring_error = float(np.mean(measured.ring_errors)) if measured.ring_errors else 255.0
    if ring_error > gates.ring_error:
        raise Rejected(g.REGISTRATION)
    ratio = areas[1:] / areas[:-1]
    if max(ratio.max(), 1 / ratio.min()) > gates.area_jump or areas.max() / areas.min() > gates.area_spread:
        raise Rejected(g.AREA_JUMP)
    confirmed = float(np.median(measured.confirmed))
    if confirmed < gates.segmenter_share:
        raise Rejected(g.DISAGREE)
    if float(np.percentile(measured.trunks, 80)) > gates.trunk:
        raise Rejected(g.TWO_PEOPLE)
    unmasked = zip(pair.source, pair.target, ~pair.mask, strict=True)
    outside = max(int((largest(cv2.absdiff(a, b)) * m).max()) for a, b, m in unmasked)
    if outside > 1:
        raise Rejected(g.OUTSIDE)
    return {
        "outside_change": float(outside),
        "ring_error": round(ring_error, 4),
        "shadow_share": round(max(0.0, *measured.shadow_shares), 4),
        "segmenter_share": round(confirmed, 4),
        "mask_share": round(float(pair.mask.mean()), 5),
    }


def check_leftover(pair: Pair, detector: Detector, gates: GateSettings) -> None:
    """Look for the object in the result: in the largest square around the mask, and in an enlarged crop."""
    for t in range(0, len(pair.target), gates.check_every):
        frame, mask = pair.target[t], pair.mask[t]
        box = bounds(mask)
        assert box is not None  # a pair without mask was refused before
        found = []
        for factor in (gates.check_zoom, 1e9):  # 1e9: as large a square as the frame holds
            left, top, right, bottom = square_around(box, factor, mask.shape)
            crop, _ = detector.detect(frame[top:bottom, left:right])
            found.append(crop + np.array([left, top, left, top], np.float32))
        # A neighbour outside the mask may be found; its box is not in the mask.
        if g.overlaps(mask, np.concatenate(found)):
            raise Rejected(g.LEFTOVER)


def square_around(box: np.ndarray, factor: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A square `factor` times the longer side of the box, moved and cut to lie inside `shape`."""
    side = int(min(float(max(box[2] - box[0], box[3] - box[1])) * factor, shape[0], shape[1]))
    left = int(np.clip((box[0] + box[2] - side) / 2, 0, shape[1] - side))
    top = int(np.clip((box[1] + box[3] - side) / 2, 0, shape[0] - side))
    return left, top, left + side, top + side
