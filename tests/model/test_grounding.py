"""Editing in two passes: the same as asking for the region and then for the edit within it, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model import Editor
from model.sequence.interleave import SequenceError


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    t, y, x = np.mgrid[:7, :96, :128]
    return np.stack([x * 2, y * 2, 100 + 10 * t], -1).astype(np.uint8)


@pytest.mark.parametrize("still", [False, True])
def test_it_is_both_passes_in_one_call(editor: Editor, clip: np.ndarray, still: bool) -> None:
    source, target, media = ("image1", "image2", clip[0]) if still else ("video1", "video2", clip)
    counted: list[tuple[int, int]] = []
    edit = editor(
        f"<{source}> Remove the dog.",
        ground=True,
        steps=2,
        progress=lambda *at: counted.append(at),
        **{source: media},
    )
    assert edit.region is not None
    asked = editor(
        f"<{source}> I want to remove the dog. Detect the region that needs to be edited <{target}>",
        carry=False,
        steps=2,
        **{source: media},
    )
    region = asked.frames.astype(float).mean(-1) > 127.5
    assert np.array_equal(edit.region, region)
    assert 0 < region.mean() < 1  # noise, so some of it
    assert edit.describe().endswith(f"region of {region.mean():.1%} marked")
    mask = region[0] if still else region
    by_hand = editor(
        f"<{source}> Use <mask> to remove the dog. <{target}>", steps=2, mask=mask, **{source: media}
    )
    assert np.array_equal(edit.frames, by_hand.frames)
    assert counted[-1][0] == counted[-1][1] == len(counted)


def test_where_nothing_is_marked_the_words_alone_edit(
    editor: Editor, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.inference.editor.region_of", lambda frames: np.zeros(frames.shape[:3], bool))
    edit = editor("<video1> Remove the dog.", video1=clip, ground=True, steps=1)
    assert np.array_equal(edit.frames, editor("<video1> Remove the dog.", video1=clip, steps=1).frames)
    assert edit.region is not None
    assert not edit.region.any()
    assert edit.describe().endswith("no region marked, so edited by words alone")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("A red fox in the snow. <image1>", []),
        ("<video1> Use <mask> to remove the dog.", ["video1", "mask"]),
        ("<video1> Follow <image1>.", ["video1", "image1"]),
        ("<image1> The boat drifts. <video1>", ["image1"]),
    ],
)
def test_other_requests_are_refused(editor: Editor, clip: np.ndarray, text: str, names: list[str]) -> None:
    given: dict[str, Any] = {"video1": clip, "image1": clip[0], "mask": clip[..., 0] > 99}
    with pytest.raises(SequenceError, match="ground: finds the region"):
        editor(text, ground=True, **{name: given[name] for name in names})
