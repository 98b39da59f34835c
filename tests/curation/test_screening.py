"""Clips that are not worth any work are refused by name, and those that are seen before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curation.engine.run import run
from curation.sources.clip_filter import DuplicateIndex, alike
from curation.sources.clips import Cut, cut, fit_box, split_scene
from shards.media import write_video

CONFIG = {
    "class_path": "curation.tasks.sketch_to_video.SketchToVideo",
    "init_args": {
        "edges": {"class_path": "curation.annotators.canny.CannyEdges"},
        "cut": {"box": [180, 240], "heldout_fraction": 0.0},
        "length": 17,
        "most": 1,
    },
}


@pytest.fixture(scope="module")
def videos(street: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good clip, the same again in other files, and five that are good for nothing."""
    folder = tmp_path_factory.mktemp("screened")
    good = np.stack([cv2.resize(f, (240, 180), interpolation=cv2.INTER_AREA) for f in street[:40]])
    write_video(folder / "a_good.mp4", good, 10.0)
    (folder / "b_same_bytes.mp4").write_bytes((folder / "a_good.mp4").read_bytes())
    write_video(folder / "c_again.mp4", np.clip(good * 0.95 + 6, 0, 255).astype(np.uint8), 10.0, crf=30)
    light = np.clip(np.abs(np.arange(40) - 20.0) / 20 - 0.4, 0, 1)  # fades out and in: no cut to find
    black = (good * light[:, None, None, None]).astype(np.uint8)
    write_video(folder / "d_black.mp4", black, 10.0)
    frozen = good.copy()
    frozen[10:] = good[10]
    write_video(folder / "e_frozen.mp4", frozen, 10.0)
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 0.5, (40, 180, 240, 3))
    still = np.clip(good[:1] + grain + 3 * np.sin(np.arange(40) * 0.4 * np.pi)[:, None, None, None], 0, 255)
    write_video(folder / "f_still.mp4", still.astype(np.uint8), 10.0, crf=4)
    soft = np.stack([cv2.GaussianBlur(f, (0, 0), 9) for f in street[40:80]])
    write_video(folder / "g_soft.mp4", soft, 10.0)
    write_video(folder / "h_tiny.mp4", street[40:80, :352:8, ::8].copy(), 10.0)
    write_video(folder / "i_other.mp4", good[:, :, ::-1].copy(), 10.0)
    return folder


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_only_good_clips_go_on_and_each_once(videos: Path, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    done = run("sketch_to_video", videos, tmp_path / "out", tmp_path / "workspace", path, workers)
    assert done.refused_clips == {
        "black frames": 1,
        "frozen frames": 1,
        "hardly any motion": 1,
        "near duplicate of another clip": 1,
        "not sharp": 1,
        "picture too small": 1,
    }
    assert done.samples == 2  # a_good and i_other; b's bytes are a's
    again = run("sketch_to_video", videos, tmp_path / "out", tmp_path / "workspace", path, 0)
    assert not any(stage.computed for stage in again.stages.values())


def test_a_changed_threshold_measures_nothing_again(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    run("sketch_to_video", videos, tmp_path / "out", tmp_path / "workspace", path, 0)
    config = yaml.safe_load(yaml.safe_dump(CONFIG))
    config["init_args"]["cut"]["screen"] = {"sharpness": 1e9}
    path.write_text(yaml.safe_dump(config))
    done = run("sketch_to_video", videos, tmp_path / "out2", tmp_path / "workspace", path, 0)
    assert not any(stage.computed for stage in done.stages.values())
    assert not done.clips


def test_the_sample_clips_pass(clips_dir: Path, tmp_path: Path, cli: Callable[..., object]) -> None:
    told = cli("run", "sketch_to_video", "--clips", clips_dir, "--dry-run", "--workspace", tmp_path)
    assert told.returncode == 0, told.stderr  # type: ignore[attr-defined]
    assert "1045 source frames" in told.stdout  # type: ignore[attr-defined]
    assert "canny" in told.stdout  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**64 - 1)), min_size=1, max_size=30),
    st.integers(-1, 6),
)
def test_twins_are_found_as_by_comparing_all_with_all(marks: list[tuple[int, int]], bits: int) -> None:
    bases = np.random.default_rng(0).integers(0, 2**63, 6)
    clips = []
    for number, (base, noise) in enumerate(marks):
        few = noise & (noise >> 13) & (noise >> 29) & (noise >> 41)  # some bits of it
        clips.append((str(number), [f"{int(bases[base]) ^ few:016x}"] * 3))
    seen, kept = DuplicateIndex(bits), list[list[str]]()
    for key, hashes in clips:
        wanted = bits >= 0 and any(alike(hashes, other, bits) for other in kept)
        assert seen.is_duplicate(key, hashes) == wanted
        if not wanted:
            kept.append(hashes)


def test_a_twin_shows_the_same_at_the_same_times() -> None:
    first, middle, last = (f"{value:016x}" for value in (0x0123456789ABCDEF, 0xFFFF00000000FFFF, 0xF0F0F0F0))
    clip = [first, middle, last]
    assert alike(clip, clip, 0)
    assert not alike(clip, clip[::-1], 4)  # backwards
    assert not alike(clip, [first, last, middle], 4)
    assert not alike(clip, [first, middle, first], 4)  # one that begins alike
    near = f"{0xF0F0F0F0 ^ 0b1011:016x}"
    assert alike(clip, [first, middle, near], 3)
    assert not alike(clip, [first, middle, near], 2)


@given(
    st.integers(0, 50),
    st.integers(17, 400),
    st.lists(st.integers(17, 90), min_size=1, max_size=3).map(tuple),
)
def test_lengths_are_those_that_were_asked_for(start: int, frames: int, lengths: tuple[int, ...]) -> None:
    whole = split_scene(start, start + frames, 10.0, Cut())
    spans = split_scene(start, start + frames, 10.0, Cut(lengths=lengths))
    assert all(b - a in lengths for a, b, _ in spans)
    assert len(spans) == sum(b - a >= min(lengths) for a, b, _ in whole)
    inside = [(a, b) for a, b, _ in whole]
    assert all(any(a <= c and d <= b for a, b in inside) for c, d, _ in spans)


def test_a_file_goes_into_the_box_that_keeps_most(street: np.ndarray, tmp_path: Path) -> None:
    boxes = Cut(box=(120, 208), boxes=((208, 120), (160, 160)))
    write_video(tmp_path / "wide.mp4", street[:20, 45:315], 10.0)
    write_video(tmp_path / "high.mp4", street[:20, :, 100:302], 10.0)
    assert cut(tmp_path / "wide.mp4", boxes, tmp_path)[0].width == fit_box(270, 480, (120, 208))[1]
    high = cut(tmp_path / "high.mp4", boxes, tmp_path)[0]
    assert (high.height, high.width) == fit_box(360, 202, (208, 120))
