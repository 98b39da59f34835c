"""Annotators on real frames: people are found, tracks hold, plates are clean, also under a moving camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.annotators.blazepose import BlazePoseSegmenter
from curation.annotators.camera import CornerMotion
from curation.annotators.clean_plate import MedianPlate
from curation.annotators.flow_tracker import FlowTracker
from curation.annotators.homography import HomographyPlates
from curation.annotators.ssdlite import SsdliteDetector
from curation.ops.masks import dilate, iou
from curation.removal.background_subtraction import (
    ForegroundSettings,
    body_of,
    light_change,
    subtract_background,
    window_of,
)
from shards.media import read_video


@pytest.fixture(scope="module")
def detector(models_dir: Path) -> SsdliteDetector:
    return SsdliteDetector(
        str(models_dir / "pedestrian_ssdlite.pb"), str(models_dir / "pedestrian_ssdlite.pbtxt")
    )


@pytest.fixture(scope="module")
def segmenter(models_dir: Path) -> BlazePoseSegmenter:
    return BlazePoseSegmenter(str(models_dir / "pose_landmark_full.tflite"))


def test_people_are_detected_tracked_and_cut_out(
    detector: SsdliteDetector, segmenter: BlazePoseSegmenter, street: np.ndarray
) -> None:
    frames = street[:41]
    found = {t: detector.detect(frames[t]) for t in range(0, len(frames), 4)}
    assert np.mean([len(boxes) for boxes, _ in found.values()]) > 3
    assert not len(detector.detect(np.full((360, 480, 3), 127, np.uint8))[0])
    tracks = FlowTracker().track(frames, found)
    longest = max(tracks, key=lambda t: len(t.boxes))
    assert len(longest.boxes) >= 17
    met = [
        iou(box[None], boxes).max() > 0.3
        for t, (boxes, _) in found.items()
        if len(boxes) and (box := longest.box(t)) is not None
    ]
    assert np.mean(met) > 0.6  # between detections it goes on
    plate = MedianPlate().plate(street)
    agreement = []
    for t in range(longest.start, longest.stop, 3):
        box = longest.boxes[t - longest.start]
        probability, joints = segmenter.segment(frames[t], box)
        assert joints.shape == (33, 3)
        window = window_of(box, frames.shape[1:3], 0.5)
        seen = subtract_background(
            frames[t], plate, light_change(frames[t], plate), window, ForegroundSettings()
        )
        body, reason = body_of(seen, box, None, ForegroundSettings())
        if not reason:
            person = probability[window] > 0.5
            agreement.append((person & body).sum() / (person | body).sum())
    assert len(agreement) >= 3
    assert np.median(agreement) > 0.5  # two ways to find the same person


def test_the_plate_shows_nobody_and_the_camera_stands_still(
    detector: SsdliteDetector, street: np.ndarray
) -> None:
    plate = MedianPlate().plate(street)
    assert len(detector.detect(plate.image)[0]) < len(detector.detect(street[45])[0])
    assert float(np.median(np.abs(plate.image.astype(int) - street[45]))) <= 4
    assert plate.agreement.min() >= 0
    assert plate.agreement.max() <= 1
    assert CornerMotion().motion(street) < 0.5


@pytest.fixture(scope="module")
def walk(clips_dir: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A real person before the true plate: (frames with, frames without, masks) of 61 frames of vtest.avi."""
    frames = read_video(clips_dir / "vtest.avi", 0, 636, (360, 480))[0]
    plate = MedianPlate().plate(frames[::4])
    few = frames[200:261]
    masks = np.stack([cv2.absdiff(f, plate.image).max(-1) > 28 for f in few])
    masks = np.stack([dilate(m, 4) for m in masks])
    without = np.repeat(plate.image[None], len(few), 0)
    return np.where(masks[..., None], few, without), without, masks


@pytest.mark.parametrize("path", ["pan", "zoom", "shake"])
def test_a_moving_camera_is_filled_3_db_better_than_telea(
    walk: tuple[np.ndarray, np.ndarray, np.ndarray], path: str
) -> None:
    frames, true, masks = walk
    shaken = np.random.default_rng(3).normal(0, 1.2, (len(frames), 2)).cumsum(0)
    moved: list[list[np.ndarray]] = [[], [], []]
    for t in range(len(frames)):
        scale = 1.25 + (0.004 * t if path == "zoom" else 0)
        x, y = {"pan": (0.9 * t, 0.25 * t), "zoom": (20, 10), "shake": tuple(30 + shaken[t])}[path]
        crop = np.array([[scale, 0, -scale * x - 30], [0, scale, -scale * y - 20]], np.float64)
        for into, picture in zip(moved, (frames[t], true[t], masks[t].astype(np.uint8) * 255), strict=True):
            into.append(cv2.warpAffine(picture, crop, (320, 240), flags=cv2.INTER_CUBIC))
    seen, clean, holes = np.stack(moved[0]), np.stack(moved[1]), np.stack(moved[2]) > 127
    assert CornerMotion().motion(seen) > 0.7
    plates = HomographyPlates().plates(seen)
    ours, telea = [], []
    for t in range(12, 49, 12):
        plate = plates(t)
        assert plate is not None
        if not holes[t].any():
            continue
        filled = cv2.inpaint(seen[t], holes[t].astype(np.uint8), 3, cv2.INPAINT_TELEA)
        for into, picture in ((ours, plate.image), (telea, filled)):
            into.append(np.square(picture[holes[t]].astype(float) - clean[t][holes[t]]).mean())
    gain = 10 * np.log10(np.mean(telea) / np.mean(ours))
    print(f"{path}: ours {10 * np.log10(255**2 / np.mean(ours)):.1f} dB, gain over Telea {gain:.1f} dB")
    assert gain >= 3
