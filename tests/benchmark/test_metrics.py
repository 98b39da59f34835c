"""Metrics: perfect for equal frames, monotone in noise, consistent with one another and with torchmetrics.

Regions partition the frame, and a metric reads only its own.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import structural_similarity_index_measure

from benchmark.core.item import Geometry, Loaded, Reference, Unscored, same_times, shrink_mask
from benchmark.core.optical_flow import backward_flow
from benchmark.metrics import Metric, default_metrics
from benchmark.metrics.base import score
from benchmark.metrics.psnr import masked_mse
from benchmark.metrics.ssim import ssim_map
from benchmark.metrics.temporal import TemporalConsistency
from shards.media import read_video, write_video

METRICS = {m.name: m for m in default_metrics()}
AGAINST_TARGET = ["psnr_inside", "psnr_outside", "ssim_inside", "ssim_outside"]


def noisy(frames: np.ndarray, sigma: float, where: np.ndarray | None = None) -> np.ndarray:
    """Frames with Gaussian noise, everywhere or in a region [T, H, W]; any sigma scales the same noise."""
    noise = np.random.default_rng(0).normal(size=frames.shape) * sigma
    changed = np.clip(np.round(frames + noise), 0, 255).astype(np.uint8)
    return changed if where is None else np.where(where[..., None], changed, frames)


def value(metric: Metric, reference: Reference, result: np.ndarray) -> float:
    score = metric(reference, result)
    assert not isinstance(score, Unscored), score
    return score


def test_the_target_is_perfect_and_the_source_keeps_its_background(reference: Reference) -> None:
    assert value(METRICS["edit_hit"], reference, reference.target) == 1
    assert value(METRICS["edit_hit"], reference, reference.source) == 0
    for where in ("inside", "outside"):
        assert value(METRICS[f"psnr_{where}"], reference, reference.target) == math.inf
        assert value(METRICS[f"ssim_{where}"], reference, reference.target) == pytest.approx(1, abs=1e-6)
    assert value(METRICS["background_change"], reference, reference.source) == 0
    assert value(METRICS["warp_error"], reference, reference.target) < 0.5  # its plate stands still


@pytest.mark.parametrize("name", [*AGAINST_TARGET, "warp_error", "background_change"])
def test_more_noise_is_never_better(name: str, reference: Reference) -> None:
    metric = METRICS[name]
    start = reference.source if name == "background_change" else reference.target
    scores = [value(metric, reference, noisy(start, sigma)) for sigma in (0, 4, 10, 25, 60)]
    better = sorted(scores, reverse=metric.higher_is_better)
    assert scores == better
    assert len(set(scores)) == len(scores)


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_a_region_is_not_moved_by_changes_far_from_it(where: str, reference: Reference) -> None:
    inside, outside = reference.inside, reference.outside
    assert isinstance(inside, np.ndarray)
    assert isinstance(outside, np.ndarray)
    other = outside if where == "inside" else inside
    damaged = noisy(reference.target, 40, other)
    assert value(METRICS[f"psnr_{where}"], reference, damaged) == math.inf
    if where == "outside":
        assert value(METRICS["background_change"], reference, damaged) == pytest.approx(
            value(METRICS["background_change"], reference, reference.target)
        )


@given(seed=st.integers(0, 1000), shape=st.tuples(st.integers(1, 4), st.integers(4, 20), st.integers(4, 20)))
@settings(max_examples=40, deadline=None)
def test_mse_of_the_parts_recombines_to_the_whole(seed: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(2))
    mask = rng.random(shape) < 0.4
    parts = [m for m in (mask, ~mask) if m.any()]
    whole = sum(masked_mse(a, b, m) * m.sum() for m in parts) / mask.size
    assert whole == pytest.approx(np.mean((a.astype(float) - b) ** 2))


def test_inside_and_outside_leave_a_band_between_them(reference: Reference) -> None:
    assert isinstance(reference.inside, np.ndarray)
    assert isinstance(reference.outside, np.ndarray)
    assert not (reference.inside & reference.outside).any()
    assert (~reference.inside & ~reference.outside).any()


def test_psnr_of_a_constant_offset_is_known(reference: Reference) -> None:
    flat = Reference(
        Loaded(*(np.full((2, 32, 32, 3), v, np.uint8) for v in (9, 100)), np.ones((2, 32, 32), bool), 5, {}),
        Geometry(2, 32, 32, 5),
    )
    result = np.full((2, 32, 32, 3), 110, np.uint8)
    assert value(METRICS["psnr_inside"], flat, result) == pytest.approx(20 * math.log10(255 / 10))
    outside = METRICS["psnr_outside"](flat, result)
    assert isinstance(outside, Unscored)
    assert "covers everything" in outside.reason


def test_a_background_is_kept_or_lost_against_the_source() -> None:
    source, target = (np.full((2, 32, 32, 3), level, np.uint8) for level in (100, 130))
    mask = np.zeros((2, 32, 32), bool)
    mask[:, 12:20, 12:20] = True
    item = Reference(Loaded(source, target, mask, 5, {}), Geometry(2, 32, 32, 5))
    assert value(METRICS["background_change"], item, source) == 0
    assert value(METRICS["background_change"], item, target) == 30
    edited = source.copy()
    edited[mask] = 0
    assert value(METRICS["background_change"], item, edited) == 0


def test_ssim_over_the_whole_frame_is_that_of_torchmetrics(reference: Reference) -> None:
    result = noisy(reference.target, 12)
    ours = np.mean([ssim_map(a, b) for a, b in zip(reference.target, result, strict=True)])
    x, y = (torch.from_numpy(v).permute(0, 3, 1, 2).double() for v in (reference.target, result))
    theirs = structural_similarity_index_measure(y, x, data_range=255.0)
    assert ours == pytest.approx(float(theirs), abs=1e-5)


def test_ssim_does_not_depend_on_which_comes_first(reference: Reference) -> None:
    a, b = reference.target[0], noisy(reference.target, 20)[0]
    np.testing.assert_allclose(ssim_map(a, b), ssim_map(b, a), atol=1e-6)


def test_flow_finds_a_known_shift_and_the_warped_error_vanishes() -> None:
    rng = np.random.default_rng(1)

    texture = cv2.GaussianBlur(rng.integers(0, 256, (80, 120, 3), dtype=np.uint8), (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    frames = np.stack([texture[8:72, 8 + 2 * t : 96 + 2 * t] for t in range(4)])  # moves left 2 px a frame
    place, visible = backward_flow(frames[0], frames[1])
    x = np.arange(88, dtype=np.float32)[None]
    shift = (place[..., 0] - x)[visible]
    assert np.median(shift) == pytest.approx(2, abs=0.2)
    mask = np.zeros(frames.shape[:3], bool)
    moving = Reference(Loaded(frames, frames, mask, 10, {}), Geometry(4, 64, 88, 10))
    follows = value(METRICS["warp_error"], moving, frames)
    frozen = value(METRICS["warp_error"], moving, np.repeat(frames[:1], 4, axis=0))
    assert follows < 0.1 * frozen


@pytest.mark.parametrize(
    ("mask", "names", "reason"),
    [
        (None, ["psnr_inside", "psnr_outside", "ssim_inside", "background_change"], "no mask"),
        (np.zeros((3, 32, 32), bool), ["psnr_inside", "ssim_inside"], "empty"),
    ],
)
def test_a_missing_region_is_unscored_with_the_reason(
    mask: np.ndarray | None, names: list[str], reason: str
) -> None:
    frames = np.full((3, 32, 32, 3), 80, np.uint8)
    bare = Reference(Loaded(frames, frames, mask, 10, {}), Geometry(3, 32, 32, 10))
    for name in names:
        score = METRICS[name](bare, frames)
        assert isinstance(score, Unscored)
        assert reason in score.reason
    if mask is not None:
        assert value(METRICS["psnr_outside"], bare, frames) == math.inf


@pytest.mark.parametrize(
    ("frames", "size", "reason"), [(1, 32, "one frame"), (3, 8, "too small for optical flow")]
)
def test_what_cannot_be_warped_is_unscored(frames: int, size: int, reason: str) -> None:
    clip = np.zeros((frames, size, size, 3), np.uint8)
    reference = Reference(Loaded(clip, clip, None, 10, {}), Geometry(frames, size, size, 10))
    score = METRICS["warp_error"](reference, clip)
    assert isinstance(score, Unscored)
    assert reason in score.reason


def test_a_mask_that_shrinks_keeps_every_pixel_it_touched() -> None:
    mask = np.zeros((1, 32, 32), bool)
    mask[0, 7, 7] = True
    small = shrink_mask(mask, (8, 8))
    assert small.sum() == 1
    assert small[0, 1, 1]


@given(frames=st.integers(1, 30), fps=st.sampled_from([5.0, 10.0, 24.0, 30.0]), wanted=st.integers(1, 40))
def test_frames_are_matched_by_time(frames: int, fps: float, wanted: int) -> None:
    clip = np.arange(frames)
    same = same_times(clip, fps, Geometry(wanted, 1, 1, fps))
    np.testing.assert_array_equal(same, np.minimum(np.arange(wanted), frames - 1))
    halved = same_times(clip, 2 * fps, Geometry(wanted, 1, 1, fps))
    np.testing.assert_array_equal(halved, np.minimum(2 * np.arange(wanted), frames - 1))


@given(st.integers(0, 14), st.integers(0, 14), st.integers(0, 60))
def test_mask_iou_is_that_of_the_masks(a: int, b: int, haze: int) -> None:
    def mask(left: int) -> np.ndarray:
        made = np.zeros((2, 16, 16, 3), np.uint8)
        made[:, 2:10, left : left + 2] = 255
        return made

    wanted, given_ = mask(a), mask(b)
    item = Reference(Loaded(wanted, wanted, None, 10, {}), Geometry(2, 16, 16, 10))
    hazy = np.clip(given_.astype(int) + np.where(given_ > 0, -haze, haze), 0, 255).astype(np.uint8)
    both, either = ((wanted > 0) & (given_ > 0)).sum(), ((wanted > 0) | (given_ > 0)).sum()
    assert value(METRICS["mask_iou"], item, hazy) == pytest.approx(both / either)


def test_only_masks_have_an_iou(reference: Reference) -> None:
    score = METRICS["mask_iou"](reference, reference.target)
    assert isinstance(score, Unscored)
    assert "no mask" in score.reason


def test_an_edit_hits_its_object_and_no_other() -> None:
    source = np.full((2, 40, 60, 3), 90, np.uint8)
    source[:, 5:15, 5:15], source[:, 25:35, 40:50] = 200, 210
    mask = np.zeros((2, 40, 60), bool)
    mask[:, 5:15, 5:15] = True
    mask = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0 for m in mask])
    hit = METRICS["edit_hit"]
    right, wrong, both = source.copy(), source.copy(), source.copy()
    right[:, 5:15, 5:15] = wrong[:, 25:35, 40:50] = both[:, 5:35, 5:50] = 90
    item = Reference(Loaded(source, right, mask, 10, {}), Geometry(2, 40, 60, 10))
    idle = Reference(Loaded(source, source, mask, 10, {}), Geometry(2, 40, 60, 10))
    assert isinstance(hit(idle, right), Unscored)
    assert value(hit, item, right) == 1
    assert [value(hit, item, frames) for frames in (source, wrong, both)] == [0, 0, 0]
    assert value(hit, item, noisy(right, 3)) == 1
    shaded = source.copy()
    shaded[:, 5:15, 26:38] = 40  # a shadow, which the mask leaves out and the target loses
    shadow = Reference(Loaded(shaded, right, mask, 10, {}), Geometry(2, 40, 60, 10))
    assert value(hit, shadow, right) == 1


@pytest.fixture(scope="module")
def recolouring() -> Reference:
    """A chequered, shaded red ball that becomes green, moving over a striped floor with a blue box."""
    y, x = np.mgrid[0:96, 0:128]
    source = np.empty((5, 96, 128, 3), np.uint8)
    target, mask = source.copy(), np.zeros((5, 96, 128), bool)
    for t in range(5):
        floor = 120 + 25 * np.sin(x / 11)[..., None] + np.zeros(3)
        floor[10:30, 95:120] = (30, 50, 190)
        radius = np.hypot(y - 52, x - 45 - 4 * t)
        ball, light = radius < 20, 1.15 - radius / 30
        light = light * np.where((y // 6 + x // 6) % 2, 1.0, 0.6)
        for video, colour in ((source, (200, 35, 30)), (target, (40, 170, 60))):
            shaded = np.array(colour) * light[..., None]
            video[t] = np.clip(np.where(ball[..., None], shaded, floor), 0, 255)
        mask[t] = radius < 22
    return Reference(Loaded(source, target, mask, 10, {}), Geometry(5, 96, 128, 10))


def in_mask(reference: Reference, pixels: np.ndarray | tuple[int, int, int]) -> np.ndarray:
    """The target with the mask's pixels replaced."""
    assert isinstance(reference.inside, np.ndarray)
    result = reference.target.copy()
    result[reference.inside] = pixels
    return result


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def test_a_hit_looks_like_the_target(recolouring: Reference, tmp_path: Path) -> None:
    hit, target = METRICS["edit_hit"], recolouring.target
    write_video(tmp_path / "compressed.mp4", target, 10, crf=28)
    good = {
        "compressed": read_video(tmp_path / "compressed.mp4")[0],
        "brighter": np.clip(target.astype(int) + 10, 0, 255).astype(np.uint8),
        "darker": np.clip(target.astype(int) - 10, 0, 255).astype(np.uint8),
        "a little soft": blurred(target, 1.0),
        "noisy": noisy(target, 6),
        "a quarter short": np.uint8(0.8 * target + 0.2 * recolouring.source),
    }
    assert {name: value(hit, recolouring, frames) for name, frames in good.items()} == dict.fromkeys(good, 1)


def test_a_smear_is_no_hit(recolouring: Reference) -> None:
    hit, source, target, mask = (
        METRICS["edit_hit"],
        recolouring.source,
        recolouring.target,
        recolouring.inside,
    )
    assert isinstance(mask, np.ndarray)
    count = int(mask.sum())
    bad = {
        "green smear": in_mask(recolouring, (40, 170, 60)),
        "mean colour": in_mask(recolouring, target[mask].mean(0)),
        "blob": in_mask(recolouring, blurred(target, 8)[mask]),
        "noise": in_mask(recolouring, np.random.default_rng(0).integers(0, 256, (count, 3))),
        "noise of the mean": in_mask(
            recolouring,
            np.clip(np.random.default_rng(0).normal(target[mask].mean(0), 60, (count, 3)), 0, 255),
        ),
        "blue for green": in_mask(recolouring, target[mask][:, [0, 2, 1]]),
        "half-way": np.uint8((target.astype(int) + source) // 2),
        "source": source,
    }
    assert {name: value(hit, recolouring, frames) for name, frames in bad.items()} == dict.fromkeys(bad, 0)


def test_a_plain_target_is_hit_by_a_plain_fill() -> None:
    source = np.full((2, 64, 64, 3), 150, np.uint8)
    target, mask = noisy(source, 3), np.zeros((2, 64, 64), bool)
    source[:, 20:40, 20:40] = (200, 40, 30)
    mask[:, 18:42, 18:42] = True
    item = Reference(Loaded(source, target, mask, 10, {}), Geometry(2, 64, 64, 10))
    assert value(METRICS["edit_hit"], item, in_mask(item, (150, 150, 150))) == 1
    assert value(METRICS["edit_hit"], item, in_mask(item, (60, 160, 60))) == 0


def test_an_edit_of_another_object_spills(recolouring: Reference) -> None:
    both = recolouring.target.copy()
    both[:, 10:30, 95:120] = (190, 180, 30)
    assert value(METRICS["edit_hit"], recolouring, both) == 0
    both[:, 10:30, 95:120] = (35, 58, 185)  # as compression would shift it
    assert value(METRICS["edit_hit"], recolouring, both) == 1


def test_features_that_are_no_numbers_are_a_reason(reference: Reference) -> None:
    class Broken:
        def pooled(self, frames: list[np.ndarray]) -> torch.Tensor:
            return torch.full((len(frames), 4), torch.nan)

    metric = TemporalConsistency(Broken(), "clip_temporal", "CLIP")
    assert score(metric, reference, reference.source) == Unscored("not a number")
