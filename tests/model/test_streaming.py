"""Long videos window by window: where windows lie, what is read when, and what a kill leaves."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import Editor
from model.inference.window import WindowEdit, faded
from model.streaming.cuts import find_cuts
from model.streaming.journal import Journal
from model.streaming.prefetch import prefetch
from model.streaming.windows import plan_windows
from shards.errors import SettingError
from shards.files import InUseError
from shards.media import MediaError, read_video, write_mask, write_video
from tests.perf.measure import scene

TEXT = "<video1> Remove the dog."


@settings(deadline=None)
@given(
    st.integers(1, 120),
    st.integers(1, 33),
    st.sampled_from([1, 2, 4]),
    st.lists(st.integers(0, 130), max_size=4),
)
def test_windows_cover_every_frame_once_on_the_latent_grid(
    length: int, most: int, temporal: int, cuts: list[int]
) -> None:
    spans = plan_windows(length, most, temporal, cuts)
    assert [f for s in spans for f in range(s.start, s.start + s.final)] == list(range(length))
    assert all(0 <= span.overlap < span.frames <= most for span in spans)
    if length <= most:
        return
    for before, span in itertools.pairwise(spans):
        assert not any(span.start < cut < span.stop for cut in cuts)
        assert span.overlap == before.ahead == max(0, before.stop - span.start)
        assert span.overlap or span.start in cuts or most == 1
        if most > 4 * temporal and span.overlap:  # whole latents behind the one frame that stands alone
            assert before.frames % temporal == span.overlap % temporal == 1 % temporal


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """19 frames of 96x128: a scene, and from frame 10 on another one."""
    first, second = (scene(10, 96, 128, seed)[0] for seed in (0, 1))
    return np.concatenate([first, 255 - second[:9, ::-1]])


def test_cuts_are_found_and_motion_is_none(clip: np.ndarray) -> None:
    assert find_cuts(clip) == [10]
    moving = np.stack([np.roll(clip[0], 12 * t, 1) for t in range(12)])
    assert find_cuts(moving) == []
    assert find_cuts(clip[:1]) == []


def test_a_stream_is_the_edit_and_knows_no_frames_across_a_cut(
    editor: Editor, clip: np.ndarray, tmp_path: Path
) -> None:
    write_video(tmp_path / "in.mp4", clip, 10)
    masks = np.zeros(clip.shape[:3], bool)
    masks[:, 20:60, 20:60] = True
    write_mask(tmp_path / "mask.mkv", masks, 10)
    media = {"video1": tmp_path / "in.mp4", "mask": tmp_path / "mask.mkv"}
    text = "<video1> Remove what <mask> marks."
    whole = editor(text, **media)
    with editor.stream(text, **media) as stream:
        windows = list(stream)
    assert np.array_equal(np.concatenate([w.frames for w in windows]), whole.frames)
    assert [w.start for w in windows] == [0, 4, 5, 10, 14]
    frames, _ = read_video(tmp_path / "in.mp4")
    assert np.array_equal(editor(text, video1=frames, mask=masks).frames, whole.frames)
    # what is before a cut is made without what is behind it
    assert np.array_equal(editor(text, video1=frames[:10], mask=masks[:10]).frames, whole.frames[:10])
    part = editor(text, **media, frames=(3, 9))
    assert np.array_equal(part.frames, editor(text, video1=frames[3:9], mask=masks[3:9]).frames)


def test_a_window_fades_over_from_the_one_before() -> None:
    """Of five shared frames, the first is taken over, the next four go over in steps of a fifth."""

    def window(level: float) -> WindowEdit:
        pixels, edited = torch.full((9, 4, 4, 3), level), torch.full((9, 4, 4, 1), 0.5)
        return WindowEdit(torch.zeros(3, 2, 2, 1), pixels, edited)

    made = faded(window(1.0), window(0.0), 5, 4)
    assert made.pixels[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])
    made = faded(window(1.0), window(0.0), 9, 4)  # one latent of four frames is taken over too
    assert made.pixels[:, 0, 0, 0].tolist() == pytest.approx([0] * 5 + [0.2, 0.4, 0.6, 0.8])
    assert (made.edited == 0.5).all()


def test_windows_go_on_from_the_one_before(editor: Editor, clip: np.ndarray) -> None:
    """The frames of the first window decide what is made of the second one."""
    other = clip[:9].copy()
    other[:4] = 255 - other[:4]
    shared = editor(TEXT, video1=clip[:9]).frames[5:]
    assert not np.array_equal(editor(TEXT, video1=other).frames[5:], shared)


def test_an_interrupted_edit_goes_on_to_the_same_file(
    editor: Editor, clip: np.ndarray, tmp_path: Path
) -> None:
    write_video(tmp_path / "in.mp4", clip, 10)
    out = tmp_path / "out.mp4"
    asked = {"video1": tmp_path / "in.mp4", "out": out, "seed": 3}
    with editor.stream(TEXT, **asked) as stream:
        assert stream.total == 5
        stream.write(out)
    assert not (tmp_path / "out.mp4.parts").exists()
    want, _ = read_video(out)
    out.unlink()

    def stop(done: int, total: int) -> None:
        if done == 7:  # in the fourth window
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), editor.stream(TEXT, **asked, progress=stop) as stream:
        stream.write(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4.parts"]
    with (
        pytest.raises(SettingError, match="finished windows of an edit with another seed; "),
        editor.stream(TEXT, **asked | {"seed": 4}),
    ):
        pass
    steps: list[int] = []
    with editor.stream(TEXT, **asked, progress=lambda done, total: steps.append(done)) as stream:
        assert stream.restored == 3
        with pytest.raises(InUseError), editor.stream(TEXT, **asked):
            pass
        stream.write(out)
    assert steps == list(range(1, 11))
    assert np.array_equal(read_video(out)[0], want)
    assert not (tmp_path / "out.mp4.parts").exists()


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    with Journal(tmp_path / "out.mp4", {"seed": 0}) as journal:
        journal.store("edit-000000", np.arange(1000))
    part = tmp_path / "out.mp4.parts" / "edit-000000.npy"
    part.write_bytes(part.read_bytes()[:500])
    with (
        Journal(tmp_path / "out.mp4", {"seed": 0}) as journal,
        pytest.raises(SettingError, match=r"edit-000000\.npy: is damaged"),
    ):
        journal.load("edit-000000")


def test_a_file_that_ends_early_ends_a_long_edit_in_one_line(
    editor: Editor, clip: np.ndarray, tmp_path: Path
) -> None:
    write_video(tmp_path / "in.mp4", np.concatenate([clip] * 3), 10, key_every=5)
    data = (tmp_path / "in.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    threads = threading.active_count()
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        editor(TEXT, video1=tmp_path / "cut.mp4")
    assert threading.active_count() == threads


def test_a_stage_is_at_most_two_items_ahead() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with contextlib.closing(prefetch(numbers(), 1)) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        assert len(made) <= 6
    assert len(made) <= 6
    threads = threading.active_count()
    assert list(prefetch(range(5), 2)) == list(prefetch(range(5), 0)) == [0, 1, 2, 3, 4]
    assert threading.active_count() == threads
