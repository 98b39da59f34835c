"""The loss of held-out samples: what it measures, that it never changes, and what training notices of it."""

from __future__ import annotations

import csv
import dataclasses
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.batch import DataConfig
from model.data.dataset import EditDataset
from model.data.mixture import DatasetConfig
from model.encoders.text import MiniLM
from model.encoders.transform import TransformCodec
from model.training.config import FitConfig, OptimConfig
from model.training.dataloader import SampleError
from model.training.heldout_loss import TIMES, HeldoutLoss
from model.training.module import EditModule
from model.training.run_dir import MetricsCsv
from model.training.setup import build_datasets
from model.training.trainer import fit
from shards.errors import SettingError

WithTrain = Callable[..., FitConfig]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def test_it_is_the_mean_over_times_samples_and_rows(fit_config: FitConfig, shard_folder: Path) -> None:
    """Of a network that says nought, from the noise and the pictures by hand; in packs of any size."""
    flow = dataclasses.replace(fit_config.model.flow, prediction="velocity")
    model = dataclasses.replace(fit_config.model, flow=flow).with_widths(24 * 4, 384)
    shards = (str(shard_folder),)
    by_row = {
        "plain": DatasetConfig(shards=shards, masked=False),
        "marked": DatasetConfig(shards=shards, masked=True),
    }
    codec = TransformCodec(keep=[[15, 3], [3, 0]])
    assert codec.channels == 24
    pairs = EditDataset(by_row, "heldout", model, codec, MiniLM())
    assert len(pairs) == 2
    module = EditModule(model, OptimConfig(), 1)
    expected = []
    for index in range(2):
        example = pairs.example(index, 0, 0, 0, DataConfig(crops=1, text_drop_prob=0.0))
        clean = example.sequence.vision[-example.size :]
        expected.append(float((clean - example.noise).square().mean()))
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)
    for budget in (100, 100_000):
        torch.manual_seed(budget)  # it draws nothing
        loss = HeldoutLoss(pairs, 4, DataConfig(token_budget=budget))
        values = loss(module, nullcontext())
        assert list(values) == loss.names == ["heldout/loss", "heldout/loss/plain", "heldout/loss/marked"]
        measured = [values["heldout/loss/plain"], values["heldout/loss/marked"]]
        np.testing.assert_allclose(measured, expected, rtol=1e-5)
        assert values["heldout/loss"] == pytest.approx(np.mean(expected), rel=1e-5)
        assert loss(module, nullcontext()) == values


def test_it_is_asked_at_all_times_of_the_averaged_weights(fit_config: FitConfig, tmp_path: Path) -> None:
    _, heldout, model = build_datasets(fit_config, tmp_path / "opened")
    assert heldout is not None
    module = EditModule(model, OptimConfig(), 1)
    seen: set[float] = set()
    module.ema.register_forward_pre_hook(lambda _, given: seen.update(given[2].tolist()))
    HeldoutLoss(heldout, 1, fit_config.data)(module, nullcontext())
    assert seen == {1.0, *torch.tensor(TIMES).tolist()}  # sources are clean


def test_training_does_not_notice_it(
    fit_config: FitConfig,
    tmp_path: Path,
    power_cut: Callable[[FitConfig, Path, int], None],
    with_train: WithTrain,
) -> None:
    """Nor does it notice that the run was interrupted: see also the runs of tests/model/test_parallel.py."""
    quiet = with_train(fit_config, steps=4, validate_every=1000, validate_loss_every=0)
    looking = with_train(quiet, validate_loss_every=2)
    fit(quiet, tmp_path / "quiet")
    power_cut(looking, tmp_path / "looking", 3)
    fit(looking, tmp_path / "looking")
    plain, seen = rows(tmp_path / "quiet"), rows(tmp_path / "looking")
    assert [{name: row[name] for name in plain[0]} for row in seen] == plain
    assert "heldout/loss" not in plain[0]
    assert [bool(row["heldout/loss"]) for row in seen] == [False, True, False, True]


def test_a_curve_of_before_gets_its_columns_and_keeps_those_it_has(tmp_path: Path) -> None:
    file, values = tmp_path / "curve.csv", {"loss": 1.0, "lr": 0.1, "grad_norm": 2.0}
    for done, optional, more in (
        (0, (), {}),
        (1, ("heldout/loss", "heldout/loss/a,b"), {"heldout/loss": 0.5, "heldout/loss/a,b": 0.25}),
        (2, (), {}),
        (3, ("heldout/loss", "heldout/loss/new"), {"heldout/loss": 0.125}),
    ):
        curve = MetricsCsv(file, done, optional)
        curve.add(done + 1, 3, 100, values | more)
        curve.close()
    seen = rows(tmp_path)
    assert [row["heldout/loss"] for row in seen] == ["", "0.5", "", "0.125"]
    assert [row["heldout/loss/a,b"] for row in seen] == ["", "0.25", "", ""]
    assert [row["heldout/loss/new"] for row in seen] == [""] * 4
    assert [row["samples"] for row in seen] == ["3", "6", "9", "12"]


def test_it_falls_as_the_task_is_learned(
    fit_config: FitConfig, tmp_path: Path, with_train: WithTrain
) -> None:
    config = with_train(fit_config, steps=40, validate_every=1000, save_every=1000, validate_loss_every=20)
    config = dataclasses.replace(config, optim=OptimConfig(lr=1e-2, final_lr=1e-3, warmup=2, ema=0.0))
    _, heldout, model = build_datasets(config, tmp_path / "opened")
    assert heldout is not None
    untrained = HeldoutLoss(heldout, 4, config.data)(EditModule(model, config.optim, 1), nullcontext())
    fit(config, tmp_path / "run")
    values = [float(row["heldout/loss"]) for row in rows(tmp_path / "run") if row["heldout/loss"]]
    assert values[1] < values[0] < untrained["heldout/loss"]


@pytest.mark.parametrize("on_error", ["stop", "replace"])
def test_a_sample_that_cannot_be_read(
    fit_config: FitConfig, shard_folder: Path, tmp_path: Path, on_error: str
) -> None:
    shutil.copytree(shard_folder, tmp_path / "shards")
    data = dataclasses.replace(fit_config.data, shards=(str(tmp_path / "shards"),), on_error=on_error)
    config = dataclasses.replace(fit_config, data=data)
    _, heldout, model = build_datasets(config, tmp_path / "opened")
    assert heldout is not None
    tar = next((tmp_path / "shards").glob("heldout-*.tar"))
    entry = heldout.entry(0)
    offset, size = heldout.shards[0].members(0)["video1.mp4"]
    tar.write_bytes(tar.read_bytes()[:offset] + bytes(size) + tar.read_bytes()[offset + size :])
    loss, module = HeldoutLoss(heldout, 4, data), EditModule(model, OptimConfig(), 1)
    if on_error == "stop":
        with pytest.raises(SampleError, match=rf"held-out .*{entry.key}.*repair it"):
            loss(module, nullcontext())
    else:
        assert math.isfinite(loss(module, nullcontext())["heldout/loss"])


def test_settings_that_cannot_be_are_named(fit_config: FitConfig, with_train: WithTrain) -> None:
    with pytest.raises(SettingError, match=r"train.validate_loss_every must be 0 \(never\)"):
        with_train(fit_config, validate_loss_every=-1)
    with pytest.raises(SettingError, match=r"train.num_loss_samples must be at least 1"):
        with_train(fit_config, num_loss_samples=0)
