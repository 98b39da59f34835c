"""What a row of a mixture may say of its clips, and of how often it is visited."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.batch import DataConfig, data_fingerprint, rows_of
from model.data.clips import ClipConfig, Windows, frame_indices
from model.data.dataset import EditDataset
from model.data.mixture import DatasetConfig, MixtureSampler, Visit
from model.encoders.text import MiniLM
from model.encoders.transform import TransformCodec
from model.training.config import FitConfig
from model.training.dataloader import PlannedSteps
from shards.errors import ConfigError, SettingError
from shards.location import ShardError
from shards.media import read_video, write_video
from shards.reader import ShardSet
from shards.sample import ClipRef, Media, Provenance, Sample, SampleError
from shards.scores import About, write_scores
from shards.writer import write_shards

Open = Callable[[dict[str, DatasetConfig]], EditDataset]
limited_rows = st.lists(
    st.tuples(
        st.lists(st.integers(1, 5), min_size=1, max_size=3),
        st.sampled_from([0.25, 0.5, 1, 1.5, 3]),
        st.sampled_from([None, 1, 2, 3]),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def two_rates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of one sample: a source of 33 frames at 20 fps, a target of 17 at 10, no two frames alike."""
    root = tmp_path_factory.mktemp("rates")
    y, x = np.mgrid[:48, :64]
    media, files = {}, {}
    for name, frames, fps in (("video1", 34, 20.0), ("video2", 17, 10.0)):
        shown = np.stack([np.stack([x * 3, y * 4, 0 * x + 7 * t], -1) for t in range(frames)])
        files[name] = root / f"{name}.mp4"
        write_video(files[name], shown.astype(np.uint8), fps)
        size = {"frames": frames, "fps": fps, "height": 48, "width": 64}
        media[name] = Media(file=f"{name}.mp4", kind="video", **size)
    sample = Sample(
        key="slower",
        task="edit",
        text="<video1> Halve the rate. <video2>",
        targets=["video2"],
        media=media,
        provenance=Provenance(clip=ClipRef(sha256="0" * 64, name="clip", span=(0.0, 1.7))),
    )
    write_shards(root / "shards", [(sample, files)])
    return root / "shards"


@pytest.fixture
def opened(fit_config: FitConfig) -> Open:
    """Opens rows at the sizes of `fit_config`: nine frames of 48x64."""
    return lambda rows: EditDataset(rows, "train", fit_config.model, TransformCodec(), MiniLM())


def test_rates_are_brought_together(two_rates: Path, opened: Open) -> None:
    shards = (str(two_rates),)
    pairs = opened({"as_is": DatasetConfig(shards=shards), "ten": DatasetConfig(shards=shards, fps=10.0)})
    assert [pairs.row_of(i) for i in range(len(pairs))] == ["as_is", "ten"]
    entry, record = pairs.entry(1), pairs.record(1)
    source, target = (read_video(record.bytes(name))[0] for name in ("video1", "video2"))
    apart = [(w["video1"], w["video2"]) for w in pairs.windows(entry, "video2", 3, "as_is")]
    assert apart == [((0, 9), (0, 9)), ((0, 9), (4, 13)), ((0, 9), (8, 17))]  # not of one length
    for window, first in zip(pairs.windows(entry, "video2", 3, "ten"), (0, 4, 8), strict=True):
        assert window == {"video1": (first, first + 9), "video2": (first, first + 9)}
        ours = pairs.frames(record, "video1", window["video1"], "ten")
        assert np.array_equal(ours, source[2 * first : 2 * first + 18 : 2])
        theirs = pairs.frames(record, "video2", window["video2"], "ten")
        assert np.array_equal(theirs, target[first : first + 9])
    pairs._pixels.full = True
    pairs.clear_cache()
    kept = pairs.frames(record, "video1", (3, 12), "ten")
    assert np.array_equal(kept, source[6:24:2])
    assert pairs.example(1, 0, 0, 0, DataConfig()).dataset == "ten"


def test_frames_are_the_nearest_of_each_moment() -> None:
    assert frame_indices(9, 10.0, None).tolist() == list(range(9))
    assert frame_indices(1, None, 10.0).tolist() == [0]
    assert frame_indices(6, 30.0, 10.0).tolist() == [0, 3]
    assert frame_indices(4, 10.0, 20.0).tolist() == [0, 1, 1, 2, 2, 3, 3, 3]
    film = frame_indices(240, 23.976, 10.0)
    assert len(film) == 100
    assert np.abs(film / 23.976 - np.arange(100) / 10).max() <= 0.5 / 23.976 + 1e-9


def test_a_rate_that_is_not_known_is_named(two_rates: Path, opened: Open) -> None:
    entry = opened({"ten": DatasetConfig(shards=(str(two_rates),))}).entry(0)
    older = entry.model_copy(update={"fps": {}})
    assert len(Windows(older, "video2", ClipConfig(9))) == 9
    with pytest.raises(SampleError, match=r"slower: .* frame rate of video1.*run `python -m shards index`"):
        Windows(older, "video2", ClipConfig(9, fps=10.0))


def test_sizes_lengths_and_crops_are_the_row_s(
    opened: Open, shard_folder: Path, fit_config: FitConfig
) -> None:
    shards = (str(shard_folder),)
    rows = {
        "plain": DatasetConfig(shards=shards),
        "short": DatasetConfig(shards=shards, frames=5, crops=1),
        "large": DatasetConfig(shards=shards, min_area=96 * 128, max_area=96 * 128),
        "slow": DatasetConfig(shards=shards, fps=5.0, frames=3, crops=2),
    }
    pairs = opened(rows)
    data = dataclasses.replace(fit_config.data, text_drop_prob=0.0)
    lengths: dict[str, set[int]] = {name: set() for name in rows}
    for index in range(len(pairs)):
        example = pairs.example(index, 0, 0, 0, data)
        assert len(example.sequence) == pairs.lengths_of([index])[0]
        lengths[example.dataset].add(example.size)
    frame = 48 * 64 // 16**2  # tokens; nine frames are three latent ones
    assert lengths == {"plain": {3 * frame}, "short": {2 * frame}, "large": {12 * frame}, "slow": {2 * frame}}
    entry = pairs.entry(0)
    starts = {n: [w["video2"] for w in pairs.windows(entry, "video2", None, n)] for n in rows}
    assert starts["short"] == [(0, 5)]  # of five places
    assert starts["slow"] == [(0, 3), (1, 4)]  # of nine frames at half the rate, four
    assert starts["plain"] == starts["large"] == [(0, 9)]


def test_settings_of_rows_that_cannot_be_are_named(
    opened: Open, shard_folder: Path, tmp_path: Path, fit_config: FitConfig
) -> None:
    with pytest.raises(ConfigError, match=r"row discs: media.max_area"):
        opened({"discs": DatasetConfig(shards=(str(shard_folder),), max_area=100)})
    for field_name in ("fps", "frames", "crops", "max_visits"):
        with pytest.raises(ValueError, match=field_name):
            DatasetConfig(**{field_name: 0})
    (tmp_path / "mixture.yaml").write_text(f"rows: {{discs: {{shards: [{shard_folder}], fps: 5.0}}}}")
    data = dataclasses.replace(fit_config.data, mixture=str(tmp_path / "mixture.yaml"))
    assert rows_of(data)["discs"].fps == 5
    cached = dataclasses.replace(data, latent_cache="latents", crops=1)
    with pytest.raises(ConfigError, match=r"rows.discs.fps: latents made beforehand"):
        rows_of(cached)


@settings(deadline=None)
@given(limited_rows, st.integers(0, 5), st.integers(0, 200), st.integers(1, 30))
def test_a_spent_row_is_silent_and_the_others_keep_their_order(
    rows: list[tuple[list[int], float, int | None]], seed: int, first: int, count: int
) -> None:
    shards, ratios, limits = zip(*rows, strict=True)
    free = MixtureSampler(shards, ratios, seed, open_shards=2)
    order = MixtureSampler(shards, ratios, seed, open_shards=2, max_visits=limits)
    most = [None if m is None else m * n for m, n in zip(limits, free.counts, strict=True)]
    wanted = max(first + count, order.num_visits or 0)
    # the order without limits, less the visits that are too many
    had: Counter[int] = Counter()
    expected: list[Visit] = []
    for n in itertools.count(0, 50):
        for visit in free.draws(n, 50):
            row = free.row_of(visit.index)
            had[row] += 1
            if most[row] is None or had[row] <= most[row]:
                expected.append(visit)
        if len(expected) >= wanted or all(m is not None and had[r] >= m for r, m in enumerate(most)):
            break
    if order.num_visits is None or order.num_visits >= first + count:
        assert order.draws(first, count) == expected[first : first + count]
        assert order.draws(first, count) == [d for n in range(count) for d in order.draws(first + n, 1)]
        before = Counter(order.row_of(visit.index) for visit in expected[:first])
        assert order.visits_before(first).tolist() == [before[row] for row in range(len(rows))]
    if order.num_visits is not None:
        assert order.draws(0, order.num_visits) == expected
        visits = Counter(visit.index for visit in expected)
        assert all(visits[i] == limits[row] for row in range(len(rows)) for i in samples_of(order, row))
        with pytest.raises(ConfigError, match=rf"allow {order.num_visits:,} visits, .* are wanted"):
            order.draws(order.num_visits, 1)


def samples_of(order: MixtureSampler, row: int) -> range:
    return range(int(order.offsets[row]), int(order.offsets[row + 1]))


def test_a_run_that_is_longer_than_its_rows_is_refused(
    opened: Open, shard_folder: Path, fit_config: FitConfig
) -> None:
    pairs = opened({"discs": DatasetConfig(shards=(str(shard_folder),), max_visits=2)})
    assert len(PlannedSteps(pairs, fit_config.data, 0, 0, 4)) == 4  # 12 visits of 6 samples
    with pytest.raises(ConfigError, match=r"allow 12 visits, 15 are wanted; lower train.steps"):
        PlannedSteps(pairs, fit_config.data, 0, 0, 5)


def test_a_row_is_known_by_what_it_sets(shard_folder: Path) -> None:
    plain = DatasetConfig(shards=(str(shard_folder),))
    seen = data_fingerprint(
        {"plain": plain, "own": dataclasses.replace(plain, fps=5.0, crops=2, max_visits=3)}
    )
    assert set(seen["plain"]) == {"ratio", "tasks", "shards"}  # as in runs of before
    assert seen["own"] == seen["plain"] | {"fps": 5.0, "crops": 2, "max_visits": 3}


@pytest.fixture
def scored(shard_folder: Path, tmp_path: Path) -> tuple[str, list[str]]:
    """A copy of the folder with a `sharpness` per sample: its number, and null of the third; the keys."""
    shutil.copytree(shard_folder, tmp_path / "scored", ignore=shutil.ignore_patterns("scores-*"))
    keys = ShardSet(tmp_path / "scored").keys
    values = np.where(np.arange(len(keys)) == 2, np.nan, np.arange(len(keys)))
    write_scores(tmp_path / "scored", "sharpness", values, About(made_by="test", better="higher"))
    return str(tmp_path / "scored"), keys


def test_a_row_takes_the_samples_whose_scores_pass(opened: Open, scored: tuple[str, list[str]]) -> None:
    folder, keys = scored
    train = {key for key in keys if ShardSet(folder).entry(key).split == "train"}

    def chosen(**bounds: dict[str, float]) -> list[str]:
        pairs = opened(
            {"all": DatasetConfig(shards=(folder,)), "best": DatasetConfig(shards=(folder,), **bounds)}
        )
        assert sum(map(int, pairs.sizes[1])) == len(pairs) - len(train)
        found = [i for i in range(len(pairs)) if pairs.row_of(i) == "best"]
        assert [pairs.record(i).key for i in found] == [pairs.entry(i).key for i in found]
        return [pairs.entry(i).key for i in found]

    def expected(least: float, most: float) -> list[str]:
        return [k for n, k in enumerate(keys) if k in train and n != 2 and least <= n <= most]

    assert chosen(min_scores={"sharpness": 1}) == expected(1, 99)
    assert chosen(min_scores={"sharpness": 1}, max_scores={"sharpness": 4}) == expected(1, 4)
    assert chosen(max_scores={"sharpness": 99}) == expected(0, 99)  # null does not belong


def test_rows_chosen_by_score_are_planned_like_others(
    opened: Open, scored: tuple[str, list[str]], fit_config: FitConfig
) -> None:
    folder, keys = scored
    rows = {
        "all": DatasetConfig(shards=(folder,), max_visits=1),
        "best": DatasetConfig(shards=(folder,), min_scores={"sharpness": 3}),
    }
    steps, later = (PlannedSteps(opened(rows), fit_config.data, 0, first, 9) for first in (0, 6))
    assert steps.plan(8).draws == later.plan(8).draws  # a resumed run visits the same
    pairs, batch = steps.pairs, fit_config.data.batch_size
    visited = Counter(draw.index for step in range(9) for draw in steps.plan(step).draws)
    assert sum(visited.values()) == 9 * batch
    of_row = {i: pairs.row_of(i) for i in range(len(pairs))}
    assert max(visited[i] for i in of_row if of_row[i] == "all") == 1
    assert {pairs.entry(i).key for i in visited if of_row[i] == "best"} == set(keys[3:]) & set(
        ShardSet(folder, "train").keys
    )
    assert [draw.index for draw in steps.plan(8).draws if of_row[draw.index] == "all"] == []  # then the best


def test_a_score_that_nobody_measured_says_what_measures_it(
    opened: Open, scored: tuple[str, list[str]]
) -> None:
    folder, _ = scored
    with pytest.raises(ShardError, match=rf"no score 'psnr', .*`python -m curation grade {folder}`"):
        opened({"best": DatasetConfig(shards=(folder,), min_scores={"psnr": 1})})
    with pytest.raises(ConfigError, match=r"no train samples whose scores pass \(sharpness\)"):
        opened({"best": DatasetConfig(shards=(folder,), min_scores={"sharpness": 99})})
    with pytest.raises(SettingError, match=r"min_scores\.psnr: a number"):
        DatasetConfig(min_scores={"psnr": None})  # type: ignore[dict-item]


def test_a_run_knows_the_scores_that_it_chose_by(scored: tuple[str, list[str]]) -> None:
    folder, keys = scored
    rows = {"best": DatasetConfig(shards=(folder,), min_scores={"sharpness": 1})}
    before = data_fingerprint(rows)
    assert before == data_fingerprint(rows)
    other = dataclasses.replace(rows["best"], min_scores={"sharpness": 2})
    assert data_fingerprint({"best": other}) != before
    write_scores(folder, "sharpness", np.arange(len(keys)), About(made_by="test 2", better="higher"))
    assert data_fingerprint(rows) != before
