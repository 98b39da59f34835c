"""Editing in two passes: the same as asking for the region and then for the edit within it, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model import Editor
from model.encoders.transform import TransformCodec
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


class FirstIsBlack(TransformCodec):
    """Decodes the first clip that it is given, the region, as black."""

    decoded = 0

    def decode(self, latents: Tensor, size: tuple[int, int, int]) -> Tensor:
        video = super().decode(latents, size)
        self.decoded += 1
        return torch.full_like(video, -1) if self.decoded == 1 else video


def test_where_nothing_is_marked_the_words_alone_edit(editor: Editor, clip: np.ndarray) -> None:
    clip = clip[:5]  # one window, so the region is decoded at once
    blind = Editor(editor.dit, editor.config, FirstIsBlack(**editor.config.vae["init_args"]))
    edit = blind("<video1> Remove the dog.", video1=clip, ground=True, steps=1)
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
