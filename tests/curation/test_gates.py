"""Gates and windows: properties for any track, and the reasons for chosen ones."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.interfaces import Track
from curation.ops.masks import dilate
from curation.removal import filters
from curation.removal.background_subtraction import (
    BodyMeasures,
    FollowedFrame,
    ForegroundSettings,
    distance,
)
from curation.removal.decisions import choose_windows, cut_out_reason, extend
from curation.removal.filters import GateSettings, box_reason, main_reason, mark_jumps, windows
from curation.removal.stages import CutOut, FrameMeasures, MeasuredTrack
from shards.errors import SettingError

GATES = GateSettings()


@given(
    st.lists(st.sampled_from(["", "", "", "", "", "", "", "", "", "", "", "", filters.MERGED]), max_size=400)
)
def test_windows_are_clean_disjoint_and_of_allowed_length(reasons: list[str]) -> None:
    found = windows(reasons, GATES)
    assert len(found) <= 2 * len(reasons)
    for first, stop in found:
        assert 0 <= first < stop <= len(reasons)
        assert GATES.min_frames <= stop - first <= GATES.max_frames
        assert (stop - first) % 4 == 1
        assert not any(reasons[first:stop])
    assert all(a[1] <= b[0] for a, b in pairwise(found))
    longest = max(map(len, "".join("x" if r else "." for r in reasons).split("x")), default=0)
    assert bool(found) == (longest >= GATES.min_frames)


def test_a_jump_of_the_mask_area_breaks_the_window() -> None:
    areas = [1000] * 20 + [1600] * 20
    marked = mark_jumps([""] * 40, areas, GATES)
    assert marked[20] == filters.AREA_JUMP
    assert all(not (first <= 20 < stop) for first, stop in windows(marked, GATES))


def test_boxes_alone_refuse_small_people_the_border_and_company() -> None:
    shape = (360, 480)

    def track(number: int, *box: float) -> Track:
        return Track(number, 0, np.array([box], np.float32), 0.9)

    alone = track(0, 100, 100, 130, 180)
    assert box_reason(alone, 0, [alone], shape, GATES) == ""
    beside = track(1, 180, 100, 210, 180)
    assert box_reason(alone, 0, [alone, beside], shape, GATES) == ""
    over = track(1, 115, 110, 145, 190)
    assert box_reason(alone, 0, [alone, over], shape, GATES) == filters.OTHER_TRACK
    assert box_reason(track(0, 100, 100, 110, 120), 0, [], shape, GATES) == filters.TOO_SMALL
    assert box_reason(track(0, -3, 100, 27, 180), 0, [], shape, GATES) == filters.AT_BORDER


def test_a_track_without_window_names_its_main_reason() -> None:
    assert main_reason([filters.MERGED] * 9 + [filters.OTHER_OBJECT] * 3 + [""]) == filters.MERGED
    assert main_reason([""] * 10) == filters.TOO_SHORT


def test_no_window_can_be_longer_than_the_longest() -> None:
    with pytest.raises(SettingError, match="max_frames: 9 is less than min_frames, 17"):
        GateSettings(max_frames=9)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_a_distance_is_the_least_growth_that_touches(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    body, other = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    for into in (body, other):
        into[random.integers(0, 20, count), random.integers(0, 30, count)] = True
    least = next((r for r in range(40) if (other & dilate(body, r)).any()), None)
    assert distance(body, other) == least
    assert distance(body, np.zeros_like(body)) is None


# ---- decisions on stored measures -------------------------------------------------------------------------

BODY = BodyMeasures(900, (100.0, 100.0, 130.0, 180.0), None, (0.0, 0.0), 0.3, 0.2)
SETTINGS = ForegroundSettings()


def test_each_measure_of_a_body_has_its_reason() -> None:
    for changed, reason in (
        ({}, ""),
        ({"bounds": None}, filters.NO_FOREGROUND),
        ({"neighbour": 7}, filters.OTHER_OBJECT),
        ({"neighbour": 8}, ""),
        ({"over": (0.29, 0.0)}, filters.MERGED),
        ({"over": (0.0, 0.21)}, filters.MERGED),
        ({"trunk": 0.53}, filters.TWO_PEOPLE),
        ({"fullness": 0.38}, filters.TWO_PEOPLE),
    ):
        assert BODY._replace(**changed).reason(SETTINGS) == reason  # type: ignore[arg-type]


def cut_out(**changed: Any) -> CutOut:
    """A person whom no gate refuses; `changed` are measures of the second frame of three or of the window."""
    frame = FrameMeasures(BODY, False, 0.9, 0, 0.05, 3.0, 0.8)
    of_frame = {name: value for name, value in changed.items() if name in FrameMeasures._fields}
    rest = {name: value for name, value in changed.items() if name not in of_frame}
    return CutOut(frames=[frame, frame._replace(**of_frame), frame], **rest)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"body": BODY._replace(neighbour=2)}, filters.OTHER_OBJECT),
        ({"stranger": True}, filters.OTHER_OBJECT),
        ({"agreement": 0.39}, filters.PLATE),
        ({"residual": 9}, filters.RESIDUAL),
        ({"shadow": 0.23}, filters.SHADOW),
        ({"residual": 9, "agreement": 0.39}, filters.PLATE),  # the first in order
        ({"body": BODY._replace(area=299)}, filters.TOO_SMALL),
        ({"body": BODY._replace(area=1400)}, filters.AREA_JUMP),
        ({"ring_error": 22.0}, filters.REGISTRATION),
        ({"body": BODY._replace(trunk=0.5)}, ""),  # one broad frame of three is none too many
        ({"outside": 2}, filters.OUTSIDE),
        ({"in_plate": True}, filters.DIRTY_PLATE),
    ],
)
def test_the_first_gate_that_refuses_a_pair_is_told(changed: dict[str, Any], reason: str) -> None:
    assert cut_out_reason(cut_out(**changed), GATES, SETTINGS) == reason


def test_a_track_goes_on_as_far_as_the_person_is_alone() -> None:
    def box(t: int) -> list[float]:
        return [100.0 + t, 100.0, 130.0 + t, 180.0]

    def followed(t: int, body: BodyMeasures = BODY) -> FollowedFrame:
        return FollowedFrame(box(t), body, box(t), body)

    after = [followed(20), followed(21), followed(22, BODY._replace(neighbour=3)), followed(23)]
    track = MeasuredTrack(4, 0, [box(t) for t in range(20)], 0.9, [BODY] * 20, [], after)
    whole = Track(4, 0, np.array(track.boxes, np.float32), 0.9)
    for near, length in ((7, 22), (2, 24)):
        settings = ForegroundSettings(neighbour=near)
        assert len(extend(track, whole, [whole], (360, 480), GATES, settings).bodies) == length
    other = Track(5, 21, np.array([box(21)], np.float32), 0.9)  # is where the person goes
    assert len(extend(track, whole, [whole, other], (360, 480), GATES, SETTINGS).bodies) == 21
    (window,), rejected = choose_windows([track], (360, 480), GateSettings(min_frames=21), SETTINGS)
    assert (window.track, window.first, len(window.boxes), rejected) == (4, 0, 21, [])
    refused = choose_windows([track], (360, 480), GateSettings(min_frames=25), SETTINGS)
    assert refused == ([], [filters.TOO_SHORT])
    unseen = track._replace(bodies=[*[BODY] * 19, None], after=[])
    assert choose_windows([unseen], (360, 480), GateSettings(min_frames=20), SETTINGS)[1]
