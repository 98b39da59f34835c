"""Boxes and masks: what grows grows, by as much as asked, and stays in the picture."""

from __future__ import annotations

import numpy as np
import pytest

from curation.ops.mask_augmentation import MODES, augment
from curation.ops.masks import bounds, covered, dilate, grow, iou
from shards.errors import SettingError


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


def l_shapes() -> np.ndarray:
    """An L that moves to the right, and frames without it: bool [5, 60, 100], 20 pixels wide and 12 high."""
    masks = np.zeros((5, 60, 100), bool)
    for t in range(4):
        masks[t, 20:32, 30 + t : 34 + t] = masks[t, 28:32, 30 + t : 50 + t] = True
    return masks


def test_each_mask_mode_makes_its_room() -> None:
    masks = l_shapes()
    widened = {mode: augment(masks, mode) for mode in MODES}
    assert np.array_equal(widened["original"], masks)
    areas = {mode: int(m[0].sum()) for mode, m in widened.items()}
    assert areas["original"] < areas["hull"] < areas["bbox"] == 20 * 12
    for mode, wide in widened.items():
        assert (wide & masks).sum() == masks.sum()
        assert not wide[4].any()  # nothing appears where the object is not
        box = bounds(wide[1])
        assert box is not None
        # 0.3 of its box on each side: 6 pixels across, 3 down
        assert box.tolist() == ([25, 17, 57, 35] if "expand" in mode else [31, 20, 51, 32])
        # the room is one for the whole clip: it moves with the object and does not flicker
        assert all(np.array_equal(np.roll(wide[0], t, axis=1), wide[t]) for t in range(4))
    assert bounds(augment(masks, "bbox_expand", 9.0)[0]).tolist() == [15, 10, 74, 46]  # type: ignore[union-attr]  # half way
    with pytest.raises(SettingError, match="mask mode 'box': none of original, "):
        augment(masks, "box")
