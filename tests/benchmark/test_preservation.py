"""What an edit leaves alone: drift, noise, seams, faces; the change is given, wanted or measured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmark.core.item import Geometry, Loaded, Reference, Unscored, Worded
from benchmark.metrics.preservation import ColourDrift, FaceIdentity, PsnrPreserved, Seam, change_of
from tests.benchmark import synthetic

T, H, W = 3, 64, 96
HOLE = (slice(None), slice(20, 44), slice(30, 60))
SOURCE = synthetic.drawn(3, T, H, W) // 2 + 60  # 60 to 178: there is room for shifts


def reference_of(target: np.ndarray | None = None, mask: np.ndarray | None = None) -> Reference:
    return Reference(Loaded(SOURCE, target, mask, 8.0, {}), Geometry(T, H, W, 8.0))


def mask() -> np.ndarray:
    inside = np.zeros((T, H, W), bool)
    inside[HOLE] = True
    return inside


def pasted(levels: int) -> np.ndarray:
    """The source with its hole so much brighter."""
    edited = SOURCE.copy()
    edited[HOLE] += np.uint8(levels)
    return edited


def worded(found: float | Unscored) -> Worded:
    assert isinstance(found, Worded), found
    return found


def test_what_is_inside_the_change_does_not_count() -> None:
    """Whichever way the region is known, and the score says which."""
    edited = pasted(60)
    for reference, said in (
        (reference_of(mask=mask()), "the given mask"),
        (reference_of(target=edited), "where the target differs"),
        (reference_of(), "where the result differs"),
    ):
        change = change_of(reference, edited)
        assert not isinstance(change, Unscored)
        assert (change.inside == mask()).mean() > 0.98
        assert worded(ColourDrift()(reference, edited)) == 0
        assert worded(PsnrPreserved()(reference, edited)) == math.inf
        assert said in worded(Seam()(reference, edited)).words
    # the mask goes before the target, the target before the result
    assert change_of(reference_of(target=SOURCE, mask=mask()), edited).by == "mask"  # type: ignore[union-attr]
    assert change_of(reference_of(target=edited), SOURCE).by == "target"  # type: ignore[union-attr]


def test_a_tint_is_drift_and_noise_is_not() -> None:
    tint, noise = pasted(60).astype(int), pasted(60).astype(int)
    tint[..., 0] += 8
    tint[..., 2] -= 8
    noise += np.random.default_rng(0).choice([-8, 8], noise.shape)
    of_tint, of_noise = (np.clip(v, 0, 255).astype(np.uint8) for v in (tint, noise))
    reference = reference_of(mask=mask())
    assert 4 < worded(ColourDrift()(reference, of_tint)) < 12
    assert worded(ColourDrift()(reference, of_noise)) < 0.6
    # 10 log10(255^2 / 64), and of the tint 2 of 3 channels
    assert worded(PsnrPreserved()(reference, of_noise)) == pytest.approx(30.07, abs=0.01)
    assert worded(PsnrPreserved()(reference, of_tint)) == pytest.approx(31.83, abs=0.01)


def test_a_pasted_patch_has_a_seam_that_a_feathered_one_has_not() -> None:
    reference = reference_of(mask=mask())
    hard = worded(Seam()(reference, pasted(20)))
    assert 5 < hard < 15
    import cv2

    ramp = cv2.GaussianBlur(mask()[0].astype(np.float32), (0, 0), 6.0)[None, ..., None]
    soft = (SOURCE + 20 * ramp).round().astype(np.uint8)
    assert worded(Seam()(reference, soft)) < hard / 4
    assert worded(Seam()(reference, SOURCE)) == 0
    # an edge that is wanted is no seam
    assert worded(Seam()(reference_of(target=pasted(20), mask=mask()), pasted(20))) == 0
    # where all of a frame is changed there is no border in it
    found = Seam()(reference_of(mask=np.ones((T, H, W), bool)), pasted(20))
    assert isinstance(found, Unscored)
    assert "no border" in found.reason


def test_a_copied_source_has_no_region_of_its_own() -> None:
    found = ColourDrift()(reference_of(), SOURCE)
    assert isinstance(found, Unscored)
    assert "nothing was changed" in found.reason
    whole = PsnrPreserved()(reference_of(mask=np.ones((T, H, W), bool)), SOURCE)
    assert isinstance(whole, Unscored)
    assert "nothing is to be kept" in whole.reason


def test_with_an_empty_mask_all_is_to_be_kept() -> None:
    """As of an edit about nothing: whatever an editor does to it then counts."""
    reference = reference_of(target=SOURCE, mask=np.zeros((T, H, W), bool))
    assert worded(ColourDrift()(reference, SOURCE)) == 0
    assert worded(PsnrPreserved()(reference, SOURCE)) == math.inf
    brighter = worded(PsnrPreserved()(reference, pasted(20)))
    share = mask().mean()
    assert brighter == pytest.approx(10 * math.log10(255**2 / (400 * share)), abs=1e-6)
    assert "the given mask is empty" in brighter.words
    seam = Seam()(reference, pasted(20))
    assert isinstance(seam, Unscored)
    assert "no border" in seam.reason


class Corners:
    """Finds a face of 16 pixels in the upper left quarter, and one in the change, if they are bright.

    Its vector is the colour there.
    """

    identity = "corners"

    def faces(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes = np.array([[4.0, 2.0, 20.0, 18.0], [36.0, 24.0, 52.0, 40.0]])
        vectors = np.stack([frame[10, 12], frame[32, 44]]).astype(float)
        there = vectors.max(axis=1) > 10
        return boxes[there], vectors[there]


def test_faces_outside_the_change_are_compared_with_their_own() -> None:
    reference = reference_of(mask=mask())
    metric = FaceIdentity(Corners())
    kept = worded(metric(reference, pasted(60)))  # the one in the change does not count
    assert kept == pytest.approx(1.0)
    assert kept.words.startswith("3 faces; ")
    gone = SOURCE.copy()
    gone[:, :20, :24] = 0
    assert worded(metric(reference, gone)) == 0
    found = FaceIdentity()(reference, SOURCE)
    assert isinstance(found, Unscored)
    assert "no model of faces" in found.reason
