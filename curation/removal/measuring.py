"""What is measured of all tracks of a clip before anything is decided on them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from curation.core.interfaces import Plate, Track
from curation.ops.appearance import trunk_and_legs
from curation.removal import background_subtraction as foreground
from curation.removal.background_subtraction import BodyMeasures, FollowedFrame, ForegroundSettings
from curation.removal.stages import Look, MeasuredTrack

LOOK_EVERY = 4  # frames between two looks at the colours of a person
CutOutBody = tuple[foreground.Window, np.ndarray, BodyMeasures]


def measure_tracks(
    frames: np.ndarray,
    tracks: list[Track],
    plate_of: Callable[[int], Plate | None],
    settings: ForegroundSettings,
    reach: int,
) -> list[MeasuredTrack]:
    """The body of each track in each of its frames, and in up to `reach` frames beyond both of its ends.

    Args:
        frames: uint8 [T, H, W, 3]; `plate_of` a frame's number is its plate, None where there is none.
    """

    @functools.cache
    def light(t: int) -> np.ndarray:
        plate = plate_of(t)
        assert plate is not None  # asked only for frames that have one
        return foreground.light_change(frames[t], plate)

    def cut_out(t: int, box: np.ndarray) -> CutOutBody | None:
        plate = plate_of(t)
        window = foreground.window_of(box, frames.shape[1:3], 0.5)
        if plate is None or any(side.stop <= side.start for side in window):  # it has left the picture
            return None
        seen = foreground.subtract_background(frames[t], plate, light(t), window, settings)
        return window, *foreground.measure_body(seen, box, None, settings)

    def body(t: int, box: np.ndarray) -> BodyMeasures | None:
        found = cut_out(t, box)
        return None if found is None else found[2]

    def measured(track: Track) -> MeasuredTrack:
        def followed(end: int, start: int, step: int, stop: int) -> list[FollowedFrame]:
            return foreground.follow(track.boxes[end], body, start, step, stop)

        bodies, looks = list[BodyMeasures | None](), list[Look]()
        for t, box in enumerate(track.boxes, start=track.start):
            found = cut_out(t, box)
            bodies.append(None if found is None else found[2])
            if found is not None and (t % LOOK_EVERY == 0 or t == track.start):
                looks.append(Look(t, *trunk_and_legs(frames[t][found[0]], found[1])))
        before = followed(0, track.start, -1, max(-1, track.start - reach - 1))
        after = followed(-1, track.stop - 1, 1, min(len(frames), track.stop + reach))
        return MeasuredTrack(
            track.id, track.start, track.boxes.tolist(), track.score, bodies, before, after, looks
        )

    return [measured(track) for track in tracks]
