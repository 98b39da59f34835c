"""Garments of a painted person whose joints are known: whose pixels are whose, what recolouring changes."""

from __future__ import annotations

from dataclasses import asdict

import cv2
import numpy as np
import pytest

from curation.core.results import Candidate
from curation.core.stage import Item
from curation.engine.task_config import build, default_config, load_config
from curation.ops.garments import Clothes, find_clothes, recolour
from curation.sources.clips import Clip
from curation.tasks.object_replacement import OTHER_COLOUR, SAME_NAME, Recoloured

GRASS, SKIN, JACKET, JEANS, BAG, SHOE = (90, 120, 60), (200, 150, 120), (150, 40, 40), (50, 70, 130), 20, 240
JOINTS = {
    **dict.fromkeys(range(11), (60, 16)),
    **{11: (50, 32), 12: (70, 32), 13: (46, 46), 14: (74, 46), 15: (44, 60), 16: (76, 60)},
    **{17: (44, 66), 18: (76, 66), 19: (44, 67), 20: (76, 67), 21: (45, 66), 22: (75, 66)},
    **{23: (54, 66), 24: (66, 66), 25: (53, 84), 26: (67, 84), 27: (52, 102), 28: (68, 102)},
    **{29: (51, 106), 30: (69, 106), 31: (49, 106), 32: (71, 106)},
}


def painted(hem: int, bag: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Frames, person, joints, and the true places; the jacket ends at row `hem`."""
    frame = np.full((120, 120, 3), GRASS, np.uint8)
    truth: dict[str, np.ndarray] = {}

    def paint(name: str, colour: tuple[int, ...] | int, *parts: tuple[int, int, int, int]) -> None:
        mask = np.zeros(frame.shape[:2], bool)
        for left, top, right, bottom in parts:
            mask[top:bottom, left:right] = True
        for other in truth.values():
            other &= ~mask
        truth[name] = mask
        frame[mask] = colour

    paint("jeans", JEANS, (49, 60, 58, 103), (62, 60, 71, 103))
    paint("jacket", JACKET, (47, 28, 73, hem), (41, 32, 49, 62), (71, 32, 79, 62))
    paint("hands", SKIN, (41, 62, 48, 70), (72, 62, 79, 70))
    paint("head", SKIN, (53, 8, 67, 26))
    paint("shoes", SHOE, (46, 103, 58, 110), (62, 103, 74, 110))
    if bag:
        paint("bag", BAG, (70, 36, 90, 56))
    noise = np.random.default_rng(0).integers(-6, 7, (9, 120, 120, 3))
    frames = (frame + noise).clip(0, 255).astype(np.uint8)
    person = np.repeat(np.any(list(truth.values()), axis=0)[None], 9, axis=0)
    joints = np.array([[*JOINTS[j], 1.0] for j in range(33)], np.float32)
    return frames, person, np.repeat(joints[None], 9, axis=0), truth


def iou(weight: np.ndarray, truth: np.ndarray) -> float:
    return float(((weight > 0.5) & truth).sum() / ((weight > 0.5) | truth).sum())


def found(hem: int = 66) -> tuple[Clothes, dict[str, np.ndarray]]:
    frames, person, joints, truth = painted(hem)
    return find_clothes(frames, person, joints), truth


def test_garments_end_where_they_end_and_a_bag_is_none() -> None:
    for hem in (66, 78):  # a jacket, and a coat
        clothes, truth = found(hem)
        assert iou(clothes.top.weight[4], truth["jacket"]) > 0.9
        assert iou(clothes.trousers.weight[4], truth["jeans"]) > 0.85
        for name in ("head", "hands", "shoes", "bag"):
            inner = cv2.erode(truth[name].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            assert not (clothes.all.weight[:, inner] > 0.5).any(), name
        assert clothes.likeness < 0.1
        assert clothes.top.plain > 0.9
        assert clothes.top.black == 0


def test_what_is_missing_or_black_is_measured() -> None:
    frames, person, joints, truth = painted(66, bag=False)
    frames[5:, 32:62, 41:46] = (40, 150, 150)  # a sleeve of another colour, in half of the frames
    top = find_clothes(frames, person, joints).top
    assert min(top.missing[5:]) > 0.06 > max(top.missing[:5])
    dark = np.where(truth["jacket"][None, ..., None], np.uint8(1), painted(66, bag=False)[0])
    assert find_clothes(dark, person, joints).top.black > 0.9


def test_recolouring_keeps_folds_and_everything_else() -> None:
    frames, person, joints, truth = painted(66)
    frames[:, 40:60, 55:57] = (90, 20, 20)  # a fold
    background = np.broadcast_to(np.array(GRASS, np.uint8), frames.shape)
    top = find_clothes(frames, person, joints).top
    made, changed = recolour(frames, background, person, top.weight, top.lab, (40, 6, -54))
    assert np.array_equal(made[~changed], frames[~changed])
    inside = made[4][truth["jacket"]].astype(int)
    assert (inside[:, 2] > inside[:, 0]).mean() > 0.97
    assert made[4, 50, 55:57].mean() < made[4, 50, 60:64].mean() - 10
    beyond = ~cv2.dilate((top.weight[4] > 0.5).astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    assert not changed[4][beyond].any()
    assert not changed[4][cv2.erode(truth["head"].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0].any()


@pytest.mark.parametrize(
    ("colours", "reason"),
    [
        (("black", "red", "red"), ""),
        (("blue", "blue", "blue"), SAME_NAME),
        (("black", "red", "brown"), OTHER_COLOUR),
    ],
)
def test_what_the_words_could_not_say_is_refused(colours: tuple[str, str, str], reason: str) -> None:
    """`colours` before, asked for, and measured after."""
    task = build(load_config("object_replacement", default_config("object_replacement")))
    (stage,) = [stage for stage in task.graph if stage.name == "recolour"]
    made = Candidate(about=asdict(Recoloured("top", *colours, {})))
    clip = Clip("a.mp4", "0" * 64, "a", 0, 9, 10.0, 64, 64, "train")
    (decided,) = stage.following(clip, Item(), {"recolour": made})  # type: ignore[arg-type]  # as `Results`
    assert isinstance(decided, Candidate)
    assert decided.reason == reason
