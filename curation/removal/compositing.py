"""One edit pair from one window of one track: masks, composition, and the checks of the result.

Everything here works on frames at the working size; encoding is the task's last step.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from curation.core.interfaces import Detector, Plate, Segmenter
from curation.ops.masks import bounds, close, dilate, large_parts, largest, touching
from curation.removal import filters as g
from curation.removal.background_subtraction import (
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
    mask, body = np.zeros(shape, bool), np.zeros(shape, bool)
    target = frames.copy()
    worst_ring = 0.0
    confirmed: list[float] = []
    trunks: list[float] = []
    ring_errors: list[float] = []
    for t, box in enumerate(boxes):
        pose = None
        if t % gates.segment_every == 0:
            pose, _ = segmenter.segment(frames[t], box)
        seen = subtract_background(
            frames[t], plates[t], light_change(frames[t], plates[t]), window_of(box, shape[1:], 0.8), settings
        )
        mine, reason = body_of(seen, box, pose, settings)
        if reason:
            raise Rejected(reason)
        if pose is not None:
            person = dilate(pose[seen.window] > 0.4, 3)
            confirmed.append(float((mine & person).sum() / max(1, mine.sum())))
        trunks.append(trunk_width(mine))
        whole = with_shadow(seen, mine, settings)
        strange = large_parts(close(seen.strong, 1) & ~dilate(mine, 2), gates.stranger_pixels)
        if (strange & dilate(mine, grow_by + feather)).any():
            raise Rejected(g.OTHER_OBJECT)
        # A stranger may stand in the shadow; it and its edge stay as they are.
        support = dilate(whole, grow_by + feather) & ~dilate(strange, grow_by)
        alpha = np.clip(cv2.distanceTransform(support.astype(np.uint8), cv2.DIST_L2, 5) / (feather + 1), 0, 1)
        here = frames[t][seen.window].astype(np.float32)
        mixed = here + alpha[..., None] * (seen.backdrop - here)
        target[t][seen.window] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
        mask[t][seen.window], body[t][seen.window] = support, mine
        if np.percentile(plates[t].agreement[seen.window][support], 5) < gates.agreement:
            raise Rejected(g.PLATE)
        ring = dilate(support, gates.ring) & ~support
        left = touching(seen.strong & ring & ~dilate(strange, grow_by), dilate(support, 1))
        if left.sum() > gates.residual_pixels:
            raise Rejected(g.RESIDUAL)
        near = dilate(support, 3) & ~support & ~dilate(strange, 2 * grow_by + feather)
        share = float((seen.weak & near).sum() / max(1, near.sum()))
        if share > gates.shadow_share:
            raise Rejected(g.SHADOW)
        worst_ring = max(worst_ring, share)
        if near.any():
            ring_errors.append(float(cv2.absdiff(frames[t][seen.window], seen.backdrop)[near].mean()))
    areas = body.sum((1, 2))
    if areas.min() < gates.min_area:
        raise Rejected(g.TOO_SMALL)
    ring_error = float(np.mean(ring_errors)) if ring_errors else 255.0
    if ring_error > gates.ring_error:
        raise Rejected(g.REGISTRATION)
    ratio = areas[1:] / areas[:-1]
    if max(ratio.max(), 1 / ratio.min()) > gates.area_jump or areas.max() / areas.min() > gates.area_spread:
        raise Rejected(g.AREA_JUMP)
    if float(np.median(confirmed)) < gates.segmenter_share:
        raise Rejected(g.DISAGREE)
    if float(np.percentile(trunks, 80)) > gates.trunk:
        raise Rejected(g.TWO_PEOPLE)
    unmasked = zip(frames, target, ~mask, strict=True)
    outside = max(int((largest(cv2.absdiff(a, b)) * m).max()) for a, b, m in unmasked)
    if outside > 1:
        raise Rejected(g.OUTSIDE)
    scores = {
        "outside_change": float(outside),
        "ring_error": round(ring_error, 4),
        "shadow_share": round(worst_ring, 4),
        "segmenter_share": round(float(np.median(confirmed)), 4),
        "mask_share": round(float(mask.mean()), 5),
    }
    return Pair(frames, target, mask, body, scores)


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
