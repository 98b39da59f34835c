"""The filter: what its judge is shown and asked, and which pairs its grades refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from curation.text.judge_views import CLOSE, MOTION, close_up, look, most_suspect
from curation.text.vlm_filter import CRITERIA, ROLE, Judge
from curation.vlm.interface import Backend, Rating

NOBODY: Any = None  # reasons and frames need no model


def test_a_grade_below_its_threshold_refuses_the_pair() -> None:
    judge = Judge(NOBODY, {"sharpness": 6.0, "aesthetics": 4.0})
    good = dict.fromkeys(CRITERIA, 7.0)
    assert judge.reason(good) == ""
    assert judge.reason({**good, "sharpness": 6.0}) == ""
    assert judge.reason({**good, "sharpness": 5.9}) == "judged low on sharpness"
    assert judge.reason({**good, "aesthetics": 0.0}) == "judged low on aesthetics"
    assert judge.reason({**good, "artifacts": 0.0}) == ""  # has no threshold
    with pytest.raises(ValueError, match="'beauty' is none of"):
        Judge(NOBODY, {"beauty": 5.0})
    with pytest.raises(ValueError, match="content_preservation is called context_preservation now"):
        Judge(NOBODY, {"content_preservation": 5.0})


@pytest.mark.parametrize(("count", "fps"), [(9, 30.0), (81, 30000 / 1001), (300, 30.0), (1, 1.0)])
def test_the_whole_clip_is_shown_and_runs_of_it(count: int, fps: float) -> None:
    """Evenly to the last frame, twice a second or more; runs at the clip's own rate to the last frame too."""
    shown = Judge(NOBODY).shown(count, fps)
    print(f"{count} frames at {fps:.2f}: whole {[round(t, 2) for t in shown.seconds(shown.whole)]} s")
    print("  runs of frames", [(run[0], run[-1]) for run in shown.runs])
    assert (shown.whole[0], shown.whole[-1]) == (0, count - 1)
    assert len(shown.whole) == {9: 9, 81: 8, 300: 21, 1: 1}[count]
    assert np.diff(shown.whole).max(initial=0) / fps <= 0.5
    assert len(shown.runs) == (3 if count > 16 else 0)
    assert all(np.all(np.diff(run) == 1) and len(run) == 6 for run in shown.runs)
    assert count < 16 or (shown.runs[0][0], shown.runs[-1][-1]) == (0, count - 1)


class Watches:
    """A judge's model that sees flicker: it grades by how much more the edited frames change.

    It knows nothing but what it is shown: pairs of videos, original and edited.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []

    def describe(self) -> Backend:
        return Backend("watches")

    def ask(self, media: Sequence[np.ndarray], text: str, **_: Any) -> str:
        raise NotImplementedError

    def rate(
        self,
        media: Sequence[np.ndarray],
        text: str,
        *,
        system: str = "",
        times: Sequence[Sequence[float]] = (),
    ) -> Rating:
        assert [len(one) for one in media] == [len(seconds) for seconds in times]
        self.asked.append((system, text, len(media)))
        return Rating(10 - min(10.0, max(map(flicker, media[::2], media[1::2]))), None, "")


def flicker(original: np.ndarray, edited: np.ndarray) -> float:
    """Levels by which the edited frames change more than the original's, at most."""
    changes = [np.abs(np.diff(one.astype(float), axis=0)).mean((1, 2, 3)) for one in (original, edited)]
    return max(float((changes[1] - changes[0]).max()), 0.0)


def moving(count: int) -> np.ndarray:
    """A pattern that drifts, uint8 [count, 48, 64, 3]."""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack(
        [
            np.stack([100 + 50 * np.sin((x + t) / 9), 90 + y, 60 + x], -1).astype(np.uint8)
            for t in range(count)
        ]
    )


def test_a_flicker_at_the_end_is_shown_which_four_frames_of_the_middle_hide() -> None:
    """Frames 76 and 78 of 81 are brighter; by time alone 8 frames of the whole clip miss them as well."""
    source = moving(81)
    target = source.copy()
    target[[76, 78]] += 30
    middle = slice(81 // 2 - 2, 81 // 2 + 2)
    assert flicker(source[middle], target[middle]) == 0, "as it was shown before"
    whole = list(Judge(NOBODY).shown(81, 30.0).whole)
    assert flicker(source[whole], target[whole]) == 0
    model = Watches()
    assert Judge(model).grades(source, source, "Remove the dog.", 30.0)["temporal_consistency"] == 10
    grades = Judge(model).grades(source, target, "Remove the dog.", 30.0)
    assert grades["temporal_consistency"] == grades["physical_plausibility"] == 0
    assert grades["aesthetics"] == 10


def test_a_small_flicker_anywhere_is_shown_close_up() -> None:
    """One frame between start and middle, in a place of 5 pixels; the original itself has a cut elsewhere."""
    source = moving(81)
    source[60:] = 255 - source[60:]
    target = source.copy()
    target[25, 10:15, 10:15] = 250
    mask = np.zeros(target.shape[:3], bool)
    mask[:, 8:18, 8:18] = True
    assert most_suspect(source, target) in (25, 26)
    judge = Judge(NOBODY)
    shown = judge.shown(81, 30.0, most_suspect(source, target))
    assert len(shown.runs) == 4
    assert any(24 in run and 25 in run for run in shown.runs)
    media, times, words = look(shown, source, target, mask, MOTION)
    assert len(media) == 2 + 2 * 4
    pairs = zip(media[::2], media[1::2], strict=True)
    changed = [bool(np.abs(one.astype(int) - other).max() > 0) for one, other in pairs]
    assert changed == [False, False, True, False, False]
    assert "; 5 and 6 from 0.77 to 0.93 s;" in words
    assert [round(t, 2) for t in times[4]] == [0.77, 0.8, 0.83, 0.87, 0.9, 0.93]


def test_close_ups_follow_the_edit_or_stand_still() -> None:
    """A square that crosses the picture stays in the middle of the view; in a run the view does not move."""
    video = np.zeros((10, 90, 160, 3), np.uint8)
    mask = np.zeros((10, 90, 160), bool)
    for t in range(10):
        video[t, 40:50, 14 * t + 5 : 14 * t + 15] = 255
        mask[t, 40:50, 14 * t + 5 : 14 * t + 15] = t != 4  # lost in one frame
    following = close_up(video, mask, range(2, 8), steady=False)
    assert following.shape == (6, 120, 120, 3)  # 10 * 1.6 + 28 pixels, enlarged to the picture's area
    assert all(frame[60, 60].min() > 200 for frame in following)
    still = close_up(video, mask, range(2, 8), steady=True)
    assert still.shape[1] < still.shape[2]
    assert not (still[0, ..., 0] > 128).all(axis=0).any()
    columns = [np.flatnonzero(frame[..., 0].max(0) > 128).mean() for frame in still]
    assert np.all(np.diff(columns) > 0)
    assert close_up(video, mask & False, [0, 9], steady=False).shape == (2, 90, 160, 3)


def test_questions_are_the_paper_s_template() -> None:
    """Role; original and edited; the instruction; the criterion with three anchors; and its own example."""
    model, source = Watches(), moving(12)
    Judge(model).grades(source, source, "Remove the {dog}.", 10.0, np.ones(source.shape[:3], bool))
    assert len(model.asked) == len(CRITERIA) == 8
    for system, text, videos in model.asked:
        assert system == ROLE
        assert system.startswith("You are an expert in AI-generated video quality assessment.")
        assert "Original and edited frames are provided." in text
        assert "The editing instruction is: Remove the {dog}." in text
        assert [text.count(f"\n{anchor} - ") for anchor in (10, 5, 0)] == [1, 1, 1]
        assert "0.00, " in text
        assert videos >= 2
    first = model.asked[0][1]
    assert "Evaluation criteria is instruction adherence (0-10):" in first
    assert "10 - Instruction is perfectly and completely executed." in first
    assert "5 - Instruction is partially followed, with some elements missing or misinterpreted." in first
    assert "0 - Instruction is completely ignored." in first
    assert {name for name, one in CRITERIA.items() if one.views == CLOSE} == {
        "sharpness",
        "artifacts",
        "object_integrity",
    }
