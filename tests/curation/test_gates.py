"""Gates and windows: properties for any track, and the reasons for chosen ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation.core.interfaces import Track
from curation.removal import filters
from curation.removal.filters import GateSettings, box_reason, main_reason, mark_jumps, windows

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
