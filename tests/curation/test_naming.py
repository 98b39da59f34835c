"""Instruction texts: measured colours and places, the same for the same key, nothing invented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.text.templates import Appearance, captions, colour_name, instruction, measure


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((15, 15, 18), "dark"),
        ((128, 128, 128), "grey"),
        ((240, 240, 240), "light"),
        ((200, 30, 40), "red"),
        ((60, 90, 190), "blue"),
        ((40, 140, 60), "green"),
        ((230, 210, 60), "yellow"),
        ((110, 70, 40), "brown"),
    ],
)
def test_colours_have_their_everyday_name(rgb: tuple[int, int, int], name: str) -> None:
    assert colour_name(np.full((50, 3), rgb, np.uint8)) == name


def person(x: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frames = np.full((17, 120, 200, 3), 180, np.uint8)
    masks = np.zeros((17, 120, 200), bool)
    boxes = np.zeros((17, 4), np.float32)
    for t in range(17):
        left = x + step * t
        masks[t, 30:90, left : left + 20] = True
        frames[t, 30:60, left : left + 20] = (200, 30, 40)
        frames[t, 60:90, left : left + 20] = (20, 20, 24)
        boxes[t] = (left, 30, left + 20, 90)
    return frames, masks, boxes


def test_what_is_said_is_what_was_painted() -> None:
    assert measure(*person(10, 2)) == Appearance("red", "dark", "on the left", "right")
    assert measure(*person(160, -1)) == Appearance("red", "dark", "on the right", "")


looks = st.builds(
    Appearance,
    st.sampled_from(["red", "dark", "light"]),
    st.sampled_from(["red", "dark", "blue"]),
    st.sampled_from(["on the left", "in the middle", "on the right"]),
    st.sampled_from(["", "left", "right"]),
)


@given(looks, st.text("abcdef0123456789", min_size=1, max_size=12), st.booleans())
def test_texts_are_drawn_by_key_and_name_the_mask_when_they_should(
    look: Appearance, key: str, masked: bool
) -> None:
    for direction in ("removal", "addition"):
        text = instruction(key, look, direction, masked)
        assert text == instruction(key, look, direction, masked)
        assert ("<mask>" in text) == masked
        assert text.endswith(".")
        assert "  " not in text
        assert "{" not in text
        if not masked:
            assert look.place in text
            assert look.upper in text


def test_several_wordings_are_used_and_captions_differ() -> None:
    look = Appearance("red", "dark", "on the left", "right")
    assert len({instruction(str(i), look, "removal", False) for i in range(60)}) >= 8
    source, target = captions(look)
    assert source != target
