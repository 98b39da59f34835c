"""Instruction texts: measured colours and places, words that fit one person alone, drawn by key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ops.appearance import Person, trunk_and_legs
from curation.text.people import captions, describe_person, instruction
from curation.text.templates import colour_name


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


RED, BLACK, BLUE = (42.0, 50.0, 30.0), (3.0, 0.0, 0.0), (35.0, 2.0, -22.0)
SIZE, FRAMES = (120, 200), 17


def person(x: float, step: float = 0.0, feet: float = 90.0, upper: Any = BLACK, lower: Any = BLACK) -> Person:
    """Somebody 60 pixels high whose box begins at `x` and moves by `step` a frame."""
    left = x + step * np.arange(FRAMES)
    boxes = np.stack([left, np.full(FRAMES, feet - 60), left + 20, np.full(FRAMES, feet)], axis=-1)
    return Person(np.arange(FRAMES), boxes, upper, lower)


def exact(one: Person, *others: Person) -> list[str]:
    return describe_person(one, others, SIZE, FRAMES).exact


def test_what_is_said_is_what_was_painted() -> None:
    frame, body = np.full((120, 40, 3), 180, np.uint8), np.zeros((120, 40), bool)
    body[20:100, 10:30] = True
    frame[20:62, 10:30], frame[62:100, 10:30] = (200, 30, 40), (20, 20, 24)
    upper, lower = trunk_and_legs(frame, body)
    assert upper is not None
    said = describe_person(person(10, 2, upper=upper, lower=lower), [], SIZE, FRAMES).plain
    assert "person on the left in a red top and dark trousers walking to the right" in said
    assert not any("left" in words for words in exact(person(150, 2)))
    assert "person walking to the left" in exact(person(150, -2))
    assert trunk_and_legs(frame, np.zeros((120, 40), bool)) == (None, None)


def test_words_fit_one_person_alone() -> None:
    """Of two who look alike neither is named by looks, only by where they are."""
    twin, other = person(20), person(160)
    assert "person in dark clothes" not in exact(twin, other)
    assert "leftmost person" in exact(twin, other)
    assert "rightmost person" in exact(other, twin)
    red = person(90, upper=RED)
    assert "person in a red top" in exact(red, twin, other)
    assert "second person from the left" in exact(red, twin, other)
    # who is the leftmost of those in red need not be the leftmost of all
    assert "leftmost person in a red top" in exact(person(60, upper=RED), red, twin)
    assert "leftmost person" not in exact(person(60, upper=RED), red, twin)
    assert "person closest to the camera" in exact(person(20, feet=110), person(22))
    assert "person closest to the person in a red top" in exact(person(70), red, person(160))


def test_what_two_could_see_differently_is_not_said() -> None:
    assert not exact(person(100), person(103))  # nobody is surely farther to the left
    nearly = (31.0, 5.0, -12.0)  # grey to one, blue to another
    assert "person in blue trousers" not in exact(person(20, lower=BLUE), person(160, lower=nearly))
    unknown = person(160, upper=None, lower=None)
    assert "person in dark clothes" not in exact(person(20), unknown)
    dark_blue = (18.0, 3.0, -20.0)
    assert "person in blue trousers" not in exact(person(20, lower=BLUE), person(160, lower=dark_blue))
    brief = Person(np.arange(3), person(160).boxes[:3], BLACK, BLACK)
    assert "person walking to the right" not in exact(person(20, 2), person(100, 1))
    assert "person standing still" not in exact(person(20), brief)


people = st.builds(
    person,
    st.sampled_from([10.0, 40.0, 90.0, 150.0]),
    st.sampled_from([-2.0, 0.0, 2.0]),
    st.sampled_from([80.0, 90.0, 115.0]),
    st.sampled_from([RED, BLACK, None]),
    st.sampled_from([BLUE, BLACK, None]),
)


@settings(max_examples=40, deadline=None)
@given(
    people, st.lists(people, max_size=4), st.text("abcdef0123456789", min_size=1, max_size=12), st.booleans()
)
def test_texts_are_drawn_by_key_and_name_the_mask_when_they_should(
    one: Person, others: list[Person], key: str, masked: bool
) -> None:
    words = describe_person(one, others, SIZE, FRAMES)
    for direction in ("removal", "addition"):
        text = instruction(key, words, direction, masked)
        assert text == instruction(key, words, direction, masked)
        if not text:
            assert not masked
            assert not (words.exact if direction == "removal" else words.plain)
            continue
        assert ("<mask>" in text) == masked
        assert text.endswith(".")
        assert "  " not in text
        assert "{" not in text
        if direction == "removal" and not masked:
            assert any(phrase in text for phrase in words.exact)


@settings(max_examples=40, deadline=None)
@given(people, st.lists(people, min_size=1, max_size=3))
def test_no_words_fit_two_people(one: Person, others: list[Person]) -> None:
    """What is exact for one is exact for nobody else of the same window."""
    everybody = [one, *others]
    said = [exact(p, *(o for o in everybody if o is not p)) for p in everybody]
    for i, mine in enumerate(said):
        for theirs in said[i + 1 :]:
            assert not set(mine) & set(theirs)


def test_several_wordings_are_used_and_captions_differ() -> None:
    words = describe_person(person(20, 2, upper=RED), [person(160)], SIZE, FRAMES)
    assert len({instruction(str(i), words, "removal", False) for i in range(60)}) >= 40
    source, target = captions("A dark scene", "A dark scene", words)
    assert "red" in source
    assert "red" not in target
    assert "person in dark clothes" in target
