"""What training takes from the columns: which samples a row has, and how long they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import build_part
from model.data.dataset import EditDataset
from model.data.mixture import DatasetConfig, MixtureSampler
from model.encoders import Codec, TextEncoder
from model.planner.balance import Budget, Cluster
from model.planner.cost import CostModel
from model.planner.step_plan import Planner
from model.training.config import FitConfig
from model.training.precompute import precompute_text_counts
from shards.errors import ConfigError
from shards.reader import ShardSet
from shards.writer import Item, write_shards


@pytest.fixture
def folders(tmp_path: Path, make_items: Callable[..., list[Item]]) -> tuple[str, str]:
    """Two folders of five and seven samples of three tasks, half of them with a mask in the text."""
    result = []
    for name, pairs in (("one", 5), ("two", 7)):
        (tmp_path / name).mkdir()
        items = make_items(tmp_path / name, pairs=pairs, frames=2 + pairs, height=32, width=48, heldout=1)
        items = [
            (sample.model_copy(update={"task": f"task_{number % 3}", "key": f"{name}-{number}"}), files)
            for number, (sample, files) in enumerate(items)
        ]
        write_shards(tmp_path / f"{name}-shards", items, max_samples=2)
        result.append(str(tmp_path / f"{name}-shards"))
    return result[0], result[1]


def dataset(config: FitConfig, rows: dict[str, DatasetConfig], cache_gib: float = 0.01) -> EditDataset:
    vae = build_part(config.model.vae, Codec, "vae")
    text = build_part(config.model.text_encoder, TextEncoder, "text")
    return EditDataset(rows, "train", config.model, vae, text, cache_gib)


def test_rows_have_the_samples_that_they_choose_in_order(
    fit_config: FitConfig, folders: tuple[str, str]
) -> None:
    rows = {
        "all": DatasetConfig(shards=folders),
        "marked": DatasetConfig(shards=folders, masked=True),
        "some": DatasetConfig(shards=folders[::-1], tasks=("task_0", "task_2")),
        "few": DatasetConfig(shards=folders, tasks=("task_1",), masked=False),
    }
    pairs = dataset(fit_config, rows)
    expected, sizes = [], []
    for row in rows.values():  # as it was done sample by sample
        sizes.append([])
        for folder in row.shards:
            shards, first = ShardSet(folder, "train"), 0
            for count in shards.counts():
                entries = [shards.entry(i) for i in range(first, first + count)]
                first += count
                chosen = [e.key for e in entries if row.holds(e.task, e.text)]
                expected += chosen
                sizes[-1] += [len(chosen)] if chosen else []
    assert [pairs.entry(i).key for i in range(len(pairs))] == expected
    assert [pairs.record(i).key for i in range(len(pairs))] == expected
    assert [row.tolist() for row in pairs.sizes] == sizes
    assert pairs.tasks == ("task_0", "task_1", "task_2")
    assert [pairs.row_of(i) for i in np.cumsum([sum(s) for s in sizes])[:-1]] == ["marked", "some", "few"]
    with pytest.raises(IndexError):
        pairs.entry(len(pairs))


def test_texts_counted_beforehand_or_when_they_are_drawn(
    fit_config: FitConfig, folders: tuple[str, str]
) -> None:
    rows = {"all": DatasetConfig(shards=folders)}
    lazily = dataset(fit_config, rows)
    lengths = lazily.lengths_of(range(len(lazily)))
    config = dataclasses.replace(fit_config, data=dataclasses.replace(fit_config.data, shards=folders))
    assert [new for _, new in precompute_text_counts(config)] == [True, True]
    assert [new for _, new in precompute_text_counts(config)] == [False, False]
    counted = dataset(fit_config, rows)
    counted.text_encoder.count = None  # type: ignore[method-assign]  # nothing is counted any more
    assert np.array_equal(counted.lengths_of(range(len(counted))), lengths)
    assert np.array_equal(counted.lengths_of([3, 1, 3]), lengths[[3, 1, 3]])
    for index, length in enumerate(lengths):
        data = dataclasses.replace(fit_config.data, text_drop_prob=0.0)
        assert len(lazily.example(index, 0, 0, 0, data).sequence) == length


def test_states_are_kept_within_their_bytes(fit_config: FitConfig, folders: tuple[str, str]) -> None:
    texts = [f"Remove the {word} square." for word in ("red", "green", "blue", "small", "large")]
    rows = {"all": DatasetConfig(shards=folders)}
    plenty = dataset(fit_config, rows, 1.0)
    size = plenty.states(texts[0]).nbytes
    little = dataset(fit_config, rows, cache_gib=8 * 2.5 * size / 2**30)
    for text in (*texts, *texts[::-1], texts[0]):
        assert torch.equal(little.states(text), plenty.states(text))
    assert plenty.states(texts[0]) is plenty.states(texts[0])  # kept
    assert little.states(texts[0]) is little.states(texts[0])
    first = little.states(texts[0])
    for text in texts[1:4]:
        little.states(text)
    assert little.states(texts[0]) is not first  # let go of, for others


def test_the_longest_sample_is_named_at_once_and_any_other_by_its_step(
    fit_config: FitConfig, folders: tuple[str, str]
) -> None:
    pairs = dataset(fit_config, {"all": DatasetConfig(shards=folders)})
    lengths = pairs.lengths_of(range(len(pairs)))
    least, most = pairs.vision_bounds()
    assert least < most < lengths.max()
    name = pairs.name_of_longest()

    def planner(tokens: int) -> Planner:
        order, cost = MixtureSampler(pairs.sizes, [1.0], 0), CostModel(1.0, 0.0)
        longest = most, pairs.name_of_longest
        return Planner(pairs.lengths_of, order, 2, cost, Cluster(), Budget(tokens), pairs.name, longest)

    with pytest.raises(ConfigError, match=rf"token_budget={most - 1}.*\({name}\)"):
        planner(most - 1)
    short = planner(int(lengths.max()) - 1)  # its vision tokens would do
    with pytest.raises(ConfigError, match=rf"token_budget={lengths.max() - 1}.*shards: \w+-\d\)"):
        [short(step) for step in range(len(pairs))]
