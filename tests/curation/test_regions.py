"""Boxes and masks: what grows grows, by as much as asked, and stays in the picture."""

from __future__ import annotations

import numpy as np
import pytest

from curation.ops.masks import bounds, covered, dilate, grow, iou


def test_a_mask_grows_by_as_many_pixels_as_asked() -> None:
    mask = np.zeros((40, 60), bool)
    mask[15:20, 20:30] = True
    for radius in (1, 3, 6):
        grown = dilate(mask, radius)
        assert (grown & mask).sum() == mask.sum()
        box = bounds(grown)
        assert box is not None
        assert box.tolist() == [20 - radius, 15 - radius, 30 + radius, 20 + radius]
    assert np.array_equal(dilate(mask, 0), mask)


def test_a_box_grows_about_its_middle_and_stays_in_the_picture() -> None:
    box = np.array([20, 10, 40, 20], np.float32)
    assert grow(box, 1.0, (50, 60)) == (20, 10, 40, 20)
    assert grow(box, 2.0, (50, 60)) == (10, 5, 50, 25)
    assert grow(box, 1.0, (50, 60), pad=4) == (16, 6, 44, 24)
    assert grow(box, 5.0, (50, 60)) == (0, 0, 60, 40)


def test_overlap_is_a_share_of_both_or_of_the_first() -> None:
    a, b = np.array([[0, 0, 10, 10]], np.float32), np.array([[5, 0, 25, 10]], np.float32)
    assert iou(a, b)[0, 0] == pytest.approx(50 / 250)
    assert covered(a, b)[0, 0] == pytest.approx(50 / 100)
    assert covered(b, a)[0, 0] == pytest.approx(50 / 200)
