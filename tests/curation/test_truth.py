"""The offline plates and body masks against exact ground truth (`make perf` prints all scenes)."""

from __future__ import annotations

import pytest

from tests.curation.truth import VIEWS, score


@pytest.mark.parametrize("view", VIEWS)
def test_masks_and_plates_are_near_the_truth(view: str | None) -> None:
    found = score(1, view)
    assert found.frames >= 6
    assert found.iou > 0.7  # the ball's own dark contact shadow is taken for it
    assert found.psnr > (60 if view is None else 40)
    assert found.psnr > found.telea + 20
