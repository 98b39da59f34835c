"""What is decided on the measures of offline removal: where a track has windows, and which pairs are taken.

Nothing here looks at a pixel, so a changed gate computes no measure anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from curation.core.interfaces import Track
from curation.removal import filters as g
from curation.removal.background_subtraction import BodyMeasures, FollowedFrame, ForegroundSettings
from curation.removal.filters import GateSettings
from curation.removal.stages import CutOut, MeasuredTrack


class Window(NamedTuple):
    """Frames of a track, from `first` on, in which it is alone, whole and steady."""

    track: int
    first: int
    boxes: list[list[float]]
    score: float


class ExtendedTrack(NamedTuple):
    """A track with the frames that it is followed to, and the measures of all of them."""

    track: Track
    bodies: list[BodyMeasures | None]


def choose_windows(
    measured: Sequence[MeasuredTrack],
    shape: tuple[int, int],
    gates: GateSettings,
    settings: ForegroundSettings,
) -> tuple[list[Window], list[str]]:
    """The windows of all tracks of frames of `shape`, and a reason for each track without any."""
    tracks = [Track(t.id, t.start, np.array(t.boxes, np.float32), t.score) for t in measured]
    extended = [extend(m, t, tracks, shape, gates, settings) for m, t in zip(measured, tracks, strict=True)]
    others, windows, rejected = [one.track for one in extended], list[Window](), list[str]()
    for track, bodies in extended:
        reasons, areas = [], []
        for t, body in enumerate(bodies, start=track.start):
            reason, area = g.box_reason(track, t, others, shape, gates), 0
            if not reason:
                reason = g.CAMERA if body is None else body.reason(settings)
                area = 0 if body is None else body.area
            reasons.append(reason)
            areas.append(area)
        reasons = g.spread_two(g.mark_jumps(reasons, areas, gates), gates)
        spans = g.windows(reasons, gates)
        windows += [
            Window(track.id, track.start + a, track.boxes[a:b].round(2).tolist(), track.score)
            for a, b in spans
        ]
        if not spans:
            rejected.append(g.main_reason(reasons))
    return windows, rejected


def extend(
    measured: MeasuredTrack,
    track: Track,
    tracks: list[Track],
    shape: tuple[int, int],
    gates: GateSettings,
    settings: ForegroundSettings,
) -> ExtendedTrack:
    """A track with what it was followed to at both ends, as long as that is alone and whole."""

    def usable(frame: int, box: np.ndarray, body: BodyMeasures | None) -> bool:
        alone = Track(track.id, frame, box[None], track.score)
        if body is None or g.box_reason(alone, frame, tracks, shape, gates):
            return False
        return not body.reason(settings)

    def kept(end: int, followed: list[FollowedFrame], step: int) -> list[FollowedFrame]:
        start = track.start if step < 0 else track.stop - 1
        if not usable(start, track.boxes[end], measured.bodies[end]):
            return []
        for count, one in enumerate(followed):
            if not usable(start + step * (count + 1), np.array(one.guess, np.float32), one.seen):
                return followed[:count]
        return followed

    before, after = kept(0, measured.before, -1)[::-1], kept(-1, measured.after, 1)
    boxes = [np.array([one.box for one in part], np.float32).reshape(-1, 4) for part in (before, after)]
    bodies = [*(one.body for one in before), *measured.bodies, *(one.body for one in after)]
    joined = np.concatenate([boxes[0], track.boxes, boxes[1]])
    return ExtendedTrack(Track(track.id, track.start - len(before), joined, track.score), bodies)


def cut_out_reason(cut_out: CutOut, gates: GateSettings, settings: ForegroundSettings) -> str:
    """Why a cut-out person is not taken, by the first gate that refuses; "" when it is."""
    for frame in cut_out.frames:
        if reason := frame.body.reason(settings):
            return reason
        of_frame = (
            (frame.stranger, g.OTHER_OBJECT),
            (frame.agreement < gates.agreement, g.PLATE),
            (frame.residual > gates.residual_pixels, g.RESIDUAL),
            (frame.shadow > gates.shadow_share, g.SHADOW),
        )
        if reason := next((reason for fails, reason in of_frame if fails), ""):
            return reason
    areas = np.array([frame.body.area for frame in cut_out.frames])
    ratio = areas[1:] / areas[:-1] if len(areas) > 1 else np.ones(1)
    jump = max(ratio.max(), 1 / ratio.min()) > gates.area_jump
    trunks = [frame.body.trunk for frame in cut_out.frames]
    reasons = (
        (areas.min() < gates.min_area, g.TOO_SMALL),
        (ring_error(cut_out) > gates.ring_error, g.REGISTRATION),
        (jump or areas.max() / areas.min() > gates.area_spread, g.AREA_JUMP),
        (confirmed(cut_out) < gates.segmenter_share, g.DISAGREE),
        (float(np.percentile(trunks, 80)) > gates.trunk, g.TWO_PEOPLE),
        (cut_out.outside > 1, g.OUTSIDE),
        (cut_out.in_plate, g.DIRTY_PLATE),
    )
    return next((reason for fails, reason in reasons if fails), "")


def scores_of(cut_out: CutOut) -> dict[str, float]:
    """The scores of a pair."""
    return {
        "outside_change": float(cut_out.outside),
        "ring_error": round(ring_error(cut_out), 4),
        "shadow_share": round(max(0.0, *(frame.shadow for frame in cut_out.frames)), 4),
        "segmenter_share": round(confirmed(cut_out), 4),
        "mask_share": round(cut_out.mask_share, 5),
    }


def ring_error(cut_out: CutOut) -> float:
    """Grey levels by which the backdrop misses the picture close around the mask, on average."""
    errors = [frame.ring_error for frame in cut_out.frames if frame.ring_error is not None]
    return float(np.mean(errors)) if errors else 255.0


def confirmed(cut_out: CutOut) -> float:
    """Share of the body that the segmenter confirms, in the middle one of the frames that it looked at."""
    return float(np.median([f.confirmed for f in cut_out.frames if f.confirmed is not None]))
