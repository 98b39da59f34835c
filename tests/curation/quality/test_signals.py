"""Signals see the defects that they are about, and are null where they cannot be measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest

from curation.quality.duplicates import UNRELATED, NearDuplicates
from curation.quality.pairs import Pair
from curation.quality.signals_motion import SIGNALS as MOTION
from curation.quality.signals_motion import motion_signals
from curation.quality.signals_picture import SIGNALS as PICTURES
from curation.quality.signals_picture import picture_signals

Change = Callable[[np.ndarray], np.ndarray]
FRAMES, HEIGHT, WIDTH = 6, 96, 128


@cache
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, target and mask of a removal: a red disc goes, a blue square moves on over texture."""
    noise = np.random.default_rng(0).integers(60, 200, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    ground = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    target = np.repeat(ground[None], FRAMES, 0)
    for t, frame in enumerate(target):
        cv2.rectangle(frame, (90 + 3 * t, 10), (106 + 3 * t, 26), (30, 60, 200), -1)
    mask = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for one in mask:
        cv2.circle(one, (40, 60), 14, 1, -1)
    source = target.copy()
    source[mask > 0] = (210, 30, 30)
    return source, target, mask > 0


def removal(
    change: Change = lambda target: target, text: str = "Remove the red ball.", task: str = "object_removal"
) -> Pair:
    source, target, mask = scene()
    return Pair(change(target.copy()), source, mask, 10.0, task, text)


def signals(pair: Pair) -> dict[str, float | None]:
    return picture_signals(pair) | motion_signals(pair)


def brighter(target: np.ndarray) -> np.ndarray:
    return (target.astype(int) + 15).clip(0, 255).astype(np.uint8)


def flickering(target: np.ndarray) -> np.ndarray:
    target[1::2] = brighter(target[1::2])
    return target


def frozen(target: np.ndarray) -> np.ndarray:
    return np.repeat(target[:1], len(target), 0)


def dull(target: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in target])


def half_left(target: np.ndarray) -> np.ndarray:
    source, _, mask = scene()
    kept = mask.copy()
    kept[:, :, :40] = False
    target[kept] = source[kept]
    return target


def another_removed(target: np.ndarray) -> np.ndarray:
    source = scene()[0].copy()
    source[:, 10:27, 90:] = source[:, 30:47, 90:]  # the square goes, the disc stays
    return source


def barred(target: np.ndarray) -> np.ndarray:
    target[:, :12] = 0
    return target


@pytest.mark.parametrize(
    ("change", "signal", "worse"),
    [
        (brighter, "psnr_outside", -20),
        (brighter, "colour_shift_outside", 3),
        (another_removed, "changed_outside", 0.01),
        (another_removed, "unchanged_inside", 0.9),
        (another_removed, "leftover", 0.8),
        (half_left, "unchanged_inside", 0.3),
        (half_left, "leftover", 0.25),
        (flickering, "flicker_outside", 10),
        (flickering, "flicker_inside", 10),
        (flickering, "warp_excess", 3),
        (frozen, "motion_kept", -0.7),
        (frozen, "frozen", 1.0),
        (dull, "sharpness_outside", -0.5),
        (dull, "sharpness_weakest", -0.5),
        (barred, "bars", 0.1),
    ],
)
def test_a_defect_moves_its_signal(change: Change, signal: str, worse: float) -> None:
    clean, spoilt = (signals(removal(how))[signal] for how in (lambda target: target, change))
    assert clean is not None
    assert spoilt is not None
    assert (spoilt - clean) / worse >= 1, (clean, spoilt)


def test_a_swapped_pair_has_its_object_on_the_wrong_side() -> None:
    source, target, mask = scene()
    for task, text, sign in (
        ("object_removal", "Remove the red ball.", 1),
        ("object_addition", "Add a red ball.", -1),
    ):
        clean = picture_signals(Pair(target, source, mask, 10.0, task, text))
        swapped = picture_signals(Pair(source, target, mask, 10.0, task, text))
        for name in ("direction", "colour_words"):
            assert sign * (clean[name] or 0) > 0 > sign * (swapped[name] or 0), name


def test_colour_words_tell_the_right_colour_from_another() -> None:
    right, wrong = (
        picture_signals(removal(text=text))["colour_words"]
        for text in ("Remove the red ball.", "Remove the green ball.")
    )
    assert right is not None
    assert wrong is not None
    assert right > wrong + 30
    assert picture_signals(removal(text="Remove the ball."))["colour_words"] is None


def test_without_a_mask_the_edit_is_what_differs() -> None:
    source, target, mask = scene()
    pair = Pair(target, source, None, 10.0, "object_removal", "Remove it.")
    assert pair.edit is not None
    assert (pair.edit & mask).sum() / (pair.edit | mask).sum() > 0.8
    found = signals(pair)
    assert found["psnr_outside"] == 60
    assert found["unchanged_inside"] is None  # it would say what the estimate says
    assert found["mask_overlap"] is None


def test_what_cannot_be_measured_is_null() -> None:
    source, target, _ = scene()
    everything = signals(Pair(255 - source, source, None, 10.0, "style_transfer", "Invert it."))
    assert everything["psnr_outside"] is None  # nothing should have stayed
    assert everything["direction"] is None
    other_size = signals(Pair(target[:, :64], source, None, 10.0))
    assert {name for name, value in other_size.items() if value is not None} == {"bars", "frozen"}
    picture = motion_signals(Pair(target[:1], source[:1]))
    assert set(picture.values()) == {None}
    alone = signals(Pair(target))
    assert alone["changed_share"] is None
    assert alone["frozen"] == 0
    assert set(alone) == {signal.name for signal in (*PICTURES, *MOTION)}


def test_an_unsteady_mask_is_seen() -> None:
    source, target, mask = scene()
    torn = mask.copy()
    torn[3] = np.roll(mask[3], 40, axis=1)
    steady, jumping = (motion_signals(Pair(target, source, one, 10.0)) for one in (mask, torn))
    assert steady["mask_overlap"] == 1
    assert jumping["mask_overlap"] == 0
    torn[3], torn[4] = mask[3], False
    assert (motion_signals(Pair(target, source, torn, 10.0))["mask_area_variation"] or 0) > 0.3


def test_near_duplicates_are_told_from_other_edits_and_other_words() -> None:
    grader = NearDuplicates()
    clean, noisy = removal(), removal(lambda target: (target // 8) * 8)
    other = removal(another_removed)
    said = removal(text="Take the ball away.")
    marks = [grader.marks(pair) for pair in (clean, other, noisy, said, removal())]
    found = grader.compare([*marks, []], ["a", "a", "a", "a", "a", "a"])
    assert found["duplicate_distance"][1] == UNRELATED
    assert found["duplicate_of"][2] == 0
    assert (
        found["duplicate_distance"][3] > 0
    )  # other words for the same pixels; near the noisy one all the same
    assert (found["duplicate_distance"][4], found["duplicate_of"][4]) == (0, 0)
    assert np.isnan(found["duplicate_distance"][5])
    apart = grader.compare(marks[::4], ["object_removal", "object_addition"])
    assert apart["duplicate_distance"].tolist() == [UNRELATED, UNRELATED]
