"""A study's videos: alike in all but their pictures."""

from __future__ import annotations

import itertools
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmark.core.item import Geometry
from benchmark.study.database import ComparisonRow, ItemRow
from benchmark.study.folder import open_study
from benchmark.study.media import Clip, corrupted, even_out, result_clip, shown_frames, write_clip
from shards.media import probe, read_video, write_image, write_video
from tests.benchmark.study.conftest import METHODS
from tests.benchmark.synthetic import drawn


def rows(folder: Path) -> tuple[list[ItemRow], list[ComparisonRow]]:
    """What a study's database says of its files."""
    with Session(open_study(folder).engine) as session:
        return list(session.scalars(select(ItemRow))), list(session.scalars(select(ComparisonRow)))


def boxes(path: Path) -> Iterator[tuple[str, int]]:
    """The boxes of an mp4 file: (name, size)."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        yield name.decode(), size
        at += size


def about(path: Path) -> dict[str, Any]:
    """What a file says of itself besides its pictures."""
    with av.open(str(path)) as container:
        (stream,) = container.streams  # no sound, no subtitles
        packets = [p for p in container.demux(stream) if p.size]
        context = stream.codec_context
        return {
            "metadata": (dict(container.metadata), dict(stream.metadata)),
            "stream": (context.name, context.pix_fmt, context.profile, stream.time_base, stream.average_rate),
            "size": (context.width, context.height),
            "frames": len(packets),
            "keys": [float(p.pts * p.time_base) for p in packets if p.is_keyframe],
            "boxes": [name for name, _ in boxes(path)],
            "bytes": path.stat().st_size,
            "changed": path.stat().st_mtime_ns,
        }


def test_videos_of_an_item_differ_in_their_pictures_alone(made_study: Path) -> None:
    items, comparisons = rows(made_study)
    results: dict[str, set[str]] = defaultdict(set)
    for comparison in comparisons:
        results[comparison.item_id] |= {comparison.first, comparison.second}
    named = {item.media for item in items}.union(*results.values())
    assert named == {path.name for path in (made_study / "media").iterdir()}
    for item in items:
        said = [about(made_study / "media" / name) for name in (item.media, *results[item.id])]
        assert all(one == said[0] for one in said), said
        assert said[0]["boxes"] == ["ftyp", "moov", "free", "mdat", "free"]
        assert said[0]["size"][1] == 32
        assert said[0]["stream"][:2] == ("h264", "yuv420p")
        text = str(said[0]["metadata"])
        assert "Lavf" not in text
        assert "x264" not in text


def test_a_name_of_a_file_says_nothing(made_study: Path) -> None:
    names = [path.stem for path in (made_study / "media").iterdir()]
    assert all(len(name) == 32 and int(name, 16) for name in names)


def test_checks_are_identical_or_unmistakable(made_study: Path) -> None:
    _, comparisons = rows(made_study)
    by_kind = defaultdict(list)
    for comparison in comparisons:
        by_kind[comparison.kind].append(comparison)
    for tie in by_kind["gold_tie"]:
        assert (tie.first, tie.first_method, tie.expected) == (tie.second, tie.second_method, "same")
    assert by_kind["gold_loss"]
    for loss in by_kind["gold_loss"]:
        assert (loss.first_method, loss.expected) == (loss.second_method, "first")
        good, bad = (read_video(made_study / "media" / n)[0].astype(int) for n in (loss.first, loss.second))
        assert np.abs(good - bad).mean() > 40  # of 255: half of what two unrelated pictures have


def test_every_clip_is_of_the_method_and_the_item_that_the_database_says(
    made_study: Path, material: Path
) -> None:
    _, comparisons = rows(made_study)
    for comparison in comparisons:
        given = [(comparison.first_method, comparison.first)]
        if comparison.kind != "gold_loss":
            given.append((comparison.second_method, comparison.second))
        for method, name in given:
            frames = read_video(made_study / "media" / name)[0].astype(int)
            away = {}
            for other in METHODS:
                path = material / "results" / other / comparison.item_id / "generate.mp4"
                away[other] = np.abs(read_video(path, size=frames.shape[1:3])[0] - frames).mean()
            assert min(away, key=lambda of: away[of]) == method
            assert away[method] < 6  # of 255: what a second encoding costs at this size


def test_a_corrupted_copy_stands_still_beneath_a_flicker() -> None:
    frames = drawn(3, 12, 48, 64)
    made = np.stack(list(corrupted(frames, 12.0, seed=1)))
    assert made.shape == frames.shape
    assert (made[0] == made[1]).all()
    assert (made[0] != made[2]).any()
    still = 255 - frames[0][..., ::-1]
    assert 0.3 < (made == still).all(-1).mean() < 0.7


@pytest.mark.parametrize("upright", [False, True])
def test_a_result_of_another_shape_gets_bars_and_a_slightly_wider_one_none(upright: bool) -> None:
    white = np.full((2, 40, 40, 3), 255, np.uint8)
    shown = Geometry(2, 64, 32, 8.0) if upright else Geometry(2, 32, 64, 8.0)
    (frame, _) = shown_frames(Clip(white, "square", Geometry(2, 40, 40, 8.0)), shown)
    assert frame.shape == (shown.height, shown.width, 3)
    inside = frame[16:48] if upright else frame[:, 16:48]
    assert inside.min() == 255
    assert frame.sum() == inside.sum()
    slightly = Clip(white[:, :39], "wider", Geometry(2, 39, 40, 8.0))
    assert all(f.min() == 255 for f in shown_frames(slightly, Geometry(2, 32, 32, 8.0)))


def test_frames_are_those_of_their_times_at_another_rate() -> None:
    numbers = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    clip = Clip(numbers, "counted", Geometry(12, 4, 4, 24.0))
    at = [int(frame[0, 0, 0]) for frame in shown_frames(clip, Geometry(6, 4, 4, 8.0))]
    assert at == [0, 3, 6, 9, 11, 11]  # the last one is held


def test_pictures_and_animations_are_results_too(tmp_path: Path) -> None:
    frames = drawn(5, 3, 32, 48)
    for number, frame in enumerate(frames):
        write_image(tmp_path / "0" / f"{number:03d}.png", frame)
    clip = result_clip(tmp_path / "0", 8.0)
    assert clip.geometry == Geometry(3, 32, 48, 8.0)
    assert (np.stack(list(clip.frames((32, 48)))) == frames).all()
    write_image(tmp_path / "0" / "003.png", frames[0][:16])
    with pytest.raises(ValueError, match=r"003\.png: differs in size"):
        list(result_clip(tmp_path / "0", 8.0).frames((32, 48)))


def test_files_made_equally_large_play_as_before(tmp_path: Path) -> None:
    paths = [tmp_path / "small.mp4", tmp_path / "large.mp4"]
    write_clip(paths[0], np.zeros((20, 32, 32, 3), np.uint8), 8.0)
    write_clip(paths[1], np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8), 8.0)
    before = [read_video(path)[0] for path in paths]
    assert paths[0].stat().st_size < paths[1].stat().st_size
    even_out(paths)
    assert len({path.stat().st_size for path in paths}) == 1
    assert len({path.stat().st_mtime for path in paths}) == 1
    for path, frames in zip(paths, before, strict=True):
        assert (read_video(path)[0] == frames).all()
        keys = [*about(path)["keys"], 20 / 8]
        assert keys[0] == 0
        assert all(0 < after - key <= 1 for key, after in itertools.pairwise(keys))  # seconds
        names = [name for name, _ in boxes(path)]
        assert names.index("moov") < names.index("mdat")


def test_the_writer_that_may_vary_writes_the_same_kind_of_file(tmp_path: Path) -> None:
    frames = drawn(7, 5, 32, 48)
    write_video(tmp_path / "exact.mp4", frames, 8.0)
    write_video(tmp_path / "fast.mp4", frames, 8.0, exact=False)
    exact, fast = (
        np.abs(read_video(tmp_path / f"{name}.mp4")[0].astype(int) - frames).mean()
        for name in ("exact", "fast")
    )
    assert fast < 1.1 * exact
    assert probe(tmp_path / "exact.mp4").pix_fmt == probe(tmp_path / "fast.mp4").pix_fmt
