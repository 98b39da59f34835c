"""Gates: why a candidate is not accepted, each with a name that the table counts.

Precision before recall: a pair that is not surely clean is left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from curation.core.interfaces import Track
from curation.ops.masks import covered, iou
from shards.errors import SettingError
from shards.frames import evenly_spaced

TOO_SHORT = "track ends before the window"
TOO_SMALL = "too small"
AT_BORDER = "at the border of the picture"
OTHER_TRACK = "another track inside the mask"
MERGED = "merged people"
TWO_PEOPLE = "two people in one mask"
OTHER_OBJECT = "another object at the mask"
NO_FOREGROUND = "no foreground"
AREA_JUMP = "mask-area jump"
CAMERA = "moving camera under the static recipe"
PLATE = "background rarely seen"
DIRTY_PLATE = "person in the background plate"
DISAGREE = "mask and segmenter disagree"
REGISTRATION = "background does not register"
OUTSIDE = "change outside the mask"
RESIDUAL = "residual foreground"
SHADOW = "shadow left behind"
LEFTOVER = "leftover object"


# of GateSettings, those that change what is measured: of a cut-out person, and of the finished pair
MEASURING = ("segment_every", "ring", "stranger_pixels")
CHECKING = ("check_every", "check_zoom")


@dataclass(frozen=True)
class GateSettings:
    """Thresholds; lengths in pixels of the working size unless said otherwise."""

    min_frames: int = 17
    max_frames: int = 33
    max_windows: int = 4  # per track
    min_height: float = 34.0
    min_area: int = 300  # pixels of the body
    apart: int = 8  # frames before and after two people were in one mask that are not used either
    border: float = 2.0
    other_overlap: float = 0.12  # of either box
    area_jump: float = 1.45  # from frame to frame
    area_spread: float = 2.2  # largest to smallest in a window
    agreement: float = 0.4  # share of frames that show the plate, at the worst twentieth of the mask
    segmenter_share: float = 0.4  # of the body that the segmenter confirms
    segment_every: int = 3
    trunk: float = (
        0.44  # body heights: width of the trunk in the widest fifth of a window; two people are wider
    )
    ring: int = 8  # around the mask, where nothing may stand out
    ring_error: float = 9.0  # grey levels by which the backdrop may miss the picture close around the mask
    residual_pixels: int = 8
    stranger_pixels: int = 12  # smaller things that stand out near the mask are noise
    shadow_share: float = 0.22  # of the ring
    check_every: int = 8  # frames between two looks of the detector at the result
    check_zoom: float = 1.8  # side of the enlarged crop, in mask sizes

    def __post_init__(self) -> None:
        if self.max_frames < self.min_frames:
            raise SettingError(f"max_frames: {self.max_frames} is less than min_frames, {self.min_frames}")

    def thresholds(self) -> dict[str, object]:
        """Those that are compared with what was measured."""
        measuring = (*MEASURING, *CHECKING)
        return {name: value for name, value in asdict(self).items() if name not in measuring}

    def measuring(self, names: tuple[str, ...]) -> dict[str, object]:
        """Those of `names`: they say where and how often something is measured."""
        return {name: getattr(self, name) for name in names}


def box_reason(
    track: Track, frame: int, tracks: list[Track], shape: tuple[int, ...], gates: GateSettings
) -> str:
    """What the boxes alone say against a track in a frame, "" when nothing."""
    box = track.box(frame)
    assert box is not None
    if box[3] - box[1] < gates.min_height:
        return TOO_SMALL
    edge = gates.border
    # A head above or feet below the picture do no harm: the person is as much removed.
    if box[0] < edge or box[2] > shape[1] - edge:
        return AT_BORDER
    others = [b for b in (t.box(frame) for t in tracks if t.id != track.id) if b is not None]
    if others:
        mine, rest = box[None], np.stack(others)
        if (
            max(covered(mine, rest).max(), covered(rest, mine).max(), iou(mine, rest).max())
            > gates.other_overlap
        ):
            return OTHER_TRACK
    return ""


def windows(reasons: list[str], gates: GateSettings) -> list[tuple[int, int]]:
    """Runs of frames without a reason, cut into (first, stop) of 4n+1 frames, as equal and as few as can be.

    4n+1 because video autoencoders take the first frame alone and then four at a time.
    """
    found: list[tuple[int, int]] = []
    start = 0
    for i, reason in enumerate([*reasons, "end"]):
        if not reason:
            continue
        length = i - start
        if length >= gates.min_frames:
            parts = max(1, -(-length // gates.max_frames))
            if length // parts < gates.min_frames:
                parts -= 1
            size = min(gates.max_frames, length // parts)
            size = max(gates.min_frames, (size - 1) // 4 * 4 + 1)
            found += [
                (start + k * (length // parts), start + k * (length // parts) + size) for k in range(parts)
            ]
        start = i + 1
    if len(found) > gates.max_windows:  # spread over the track
        found = [found[k] for k in evenly_spaced(len(found), gates.max_windows)]
    return found


def mark_jumps(reasons: list[str], areas: list[int], gates: GateSettings) -> list[str]:
    """Reasons with AREA_JUMP at the frames where a mask's area changes too fast."""
    marked = list(reasons)
    for i in range(1, len(reasons)):
        if reasons[i - 1] or reasons[i]:
            continue
        low, high = sorted((areas[i - 1], areas[i]))
        if high > gates.area_jump * max(low, 1):
            marked[i] = AREA_JUMP
    return marked


def spread_two(reasons: list[str], gates: GateSettings) -> list[str]:
    """Reasons with TWO_PEOPLE also shortly before and after: one hiding the other looks like one person."""
    marked = list(reasons)
    for i, reason in enumerate(reasons):
        if reason == TWO_PEOPLE:
            for k in range(max(0, i - gates.apart), min(len(reasons), i + gates.apart + 1)):
                marked[k] = marked[k] or TWO_PEOPLE
    return marked


def main_reason(reasons: list[str]) -> str:
    """The most frequent reason of a track that gave no window; TOO_SHORT when most of it was good."""
    told = [r for r in reasons if r]
    if len(told) * 2 < len(reasons):
        return TOO_SHORT
    return max(sorted(set(told)), key=told.count)
