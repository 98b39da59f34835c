"""Samples that were encoded beforehand are those that are encoded while training."""

from __future__ import annotations

import dataclasses
import gc
import signal
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from model.data.dataset import EditDataset
from model.training.config import FitConfig
from model.training.dataloader import PlannedSteps, SampleError
from model.training.precompute import precompute
from model.training.setup import build_datasets
from model.training.trainer import fit
from model.training.validation import codec_psnr
from shards.errors import ConfigError
from shards.location import ShardError
from shards.reader import ShardSet
from shards.serialization import to_dict
from shards.writer import write_shards
from tests import forked


def with_data(config: FitConfig, **changes: Any) -> FitConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


@pytest.fixture
def config(fit_config: FitConfig, shard_folder: Path, tmp_path: Path) -> FitConfig:
    """Clips of five frames out of nine, from two places; three shards of two samples and one held out."""
    items = []
    for record in ShardSet(shard_folder):
        files = {}
        for name in record.sample.media:
            files[name] = tmp_path / "media" / record.sample.member(name)
            files[name].parent.mkdir(exist_ok=True)
            files[name].write_bytes(record.bytes(name))
        items.append((record.sample, files))
    write_shards(tmp_path / "shards", items, max_samples=2)
    media = dataclasses.replace(fit_config.model.media, frames=5)
    changed = dataclasses.replace(fit_config, model=dataclasses.replace(fit_config.model, media=media))
    return with_data(
        changed,
        shards=(str(tmp_path / "shards"),),
        crops=2,
        latent_cache=str(tmp_path / "encoded"),
        batch_size=4,
    )


def steps_of(config: FitConfig) -> PlannedSteps:
    train, _, _ = build_datasets(config, None)
    if config.data.latent_cache is not None:
        train.read_latent_cache(config.data.latent_cache, config.data)
    return PlannedSteps(train, config.data, 0, 0, 6)


def taken(config: FitConfig) -> tuple[PlannedSteps, list[Tensor], int]:
    """The steps, the latents of the first four, and the bytes that they keep in memory beyond those."""
    gc.collect()
    tracemalloc.start()  # numpy's arrays count, torch's tensors do not
    steps = steps_of(config)
    latents = [micro.batch.vision for number in range(4) for micro in steps[number].micro]
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return steps, latents, kept


def test_encoded_samples_are_the_same(config: FitConfig, tmp_path: Path) -> None:
    done = precompute(config)
    assert (done.shards, done.samples, done.failed) == (3, 6, 0)
    plain = steps_of(with_data(config, latent_cache=None))
    entry = plain.pairs.entry(0)
    assert {len(plain.pairs.windows(entry, "video2", n)) for n in (1, 2, 3, None)} == {1, 2, 3, 5}
    expected = [plain[number] for number in range(6)]
    encoded = steps_of(config)
    for path in (tmp_path / "shards").glob("train-*.tar"):
        path.unlink()  # nothing is read from them any more
    every = range(len(plain.pairs))
    assert np.array_equal(encoded.pairs.lengths_of(every), plain.pairs.lengths_of(every))
    starts = set()
    for number in range(6):
        for ours, theirs in zip(encoded[number].micro, expected[number].micro, strict=True):
            assert ours.keys == theirs.keys
            for name in ("noise", "time", "weight"):
                torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
            assert torch.equal(ours.batch.vision, theirs.batch.vision)
            assert torch.equal(ours.batch.positions, theirs.batch.positions)
            torch.testing.assert_close(ours.batch.text, theirs.batch.text)
            starts.add(float(ours.batch.vision.sum()))
    assert len(starts) > 2


def test_examples_do_not_depend_on_what_is_kept_in_memory(config: FitConfig) -> None:
    plain = with_data(config, latent_cache=None, crops=None)
    # of 9 frames of 48x64, six distinct videos and three masks
    steps, expected, _ = taken(plain)  # the first one also keeps what is made once
    kept = {}
    for most in (0, 200_000, 2**30):
        steps, found, kept[most] = taken(with_data(plain, cache_gib=most / 2**30))
        assert len(steps) == 6
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, theirs)
    slack = 20_000
    assert 0 < kept[200_000] - kept[0] < 200_000 + slack
    assert kept[2**30] - kept[0] > 200_000 + slack


def test_a_run_with_encoded_samples_is_the_same_run(config: FitConfig, tmp_path: Path) -> None:
    precompute(config)
    ours = fit(with_data(config, workers=2), tmp_path / "run")
    theirs = fit(with_data(config, latent_cache=None), tmp_path / "other")
    assert ours["last_loss"] == pytest.approx(theirs["last_loss"], rel=1e-4)
    assert fit(with_data(config, latent_cache=None), tmp_path / "run")["reused"]


def files_of(folder: Path) -> dict[str, bytes]:
    """What a folder holds, but for locks."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith("lock")}


def test_parts_and_broken_off_calls_leave_the_same_files(config: FitConfig, tmp_path: Path) -> None:
    precompute(config)
    whole = files_of(tmp_path / "encoded")
    assert len(whole) == 7  # two per shard, and the description
    parts = with_data(config, latent_cache=str(tmp_path / "parts"))
    assert [precompute(parts, part=i, parts=2).shards for i in (0, 1)] == [2, 1]
    assert precompute(parts).there == 3
    assert files_of(tmp_path / "parts") == whole

    # the command, killed at some moment and called again
    killed = with_data(config, latent_cache=str(tmp_path / "killed"))
    settings = {k: v for k, v in to_dict(killed).items() if v is not None}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    command = ("model", "precompute", "--config", tmp_path / "config.yaml")
    tar = next(name for name in whole if name.endswith(".tar"))
    (tmp_path / "killed").mkdir()
    left = tmp_path / "killed" / f".{tar.removesuffix('.tar')}.0123abcd.tmp.tar"  # as a killed call leaves it
    left.write_bytes(b"half")
    process = forked.Forked(*command)
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if list((tmp_path / "killed").glob("*.index.json")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    again = forked.run(*command)
    assert again.returncode == 0, again.stderr
    assert "3 shards encoded" not in again.stdout
    assert files_of(tmp_path / "killed") == whole


def test_what_does_not_fit_is_named(config: FitConfig, tmp_path: Path) -> None:
    def opened(other: FitConfig) -> EditDataset:
        return steps_of(other).pairs

    with pytest.raises(ConfigError, match=r"no encoding\.json"):
        opened(config)
    with pytest.raises(ValueError, match=r"data\.crops"):
        with_data(config, crops=None)
    with pytest.raises(ConfigError, match="is a URL"):
        precompute(with_data(config, latent_cache="s3://bucket/encoded"))
    with pytest.raises(ConfigError, match=r"data\.latent_cache: name the folder"):
        precompute(with_data(config, latent_cache=None))
    precompute(config)
    with pytest.raises(ConfigError, match="crops 2, this run has 3"):
        opened(with_data(config, crops=3))
    with pytest.raises(ConfigError, match="flip True, this run has False"):
        precompute(with_data(config, flip_prob=0.0))
    small = dataclasses.replace(config.model.media, frames=3)
    with pytest.raises(ConfigError, match="encoded with media"):
        opened(dataclasses.replace(config, model=dataclasses.replace(config.model, media=small)))
    one = next((tmp_path / "encoded").glob("train-000001-*.index.json"))
    one.unlink()
    with pytest.raises(ShardError, match=r"train-000001\.tar is not encoded yet"):
        opened(config)


def test_a_sample_that_cannot_be_encoded(config: FitConfig, tmp_path: Path) -> None:
    shards = ShardSet(tmp_path / "shards", "train")
    offset, size = shards.members(2)["video1.mp4"]
    with (tmp_path / "shards" / "train-000001.tar").open("r+b") as handle:
        handle.seek(offset)
        handle.write(bytes(size))
    fitted = with_data(config, shards=config.data.shards, on_error="replace")
    # measuring the codec comes first
    with pytest.raises(SampleError, match=f"{shards.keys[2]}: .*set data.on_error to replace"):
        build_datasets(with_data(fitted, on_error="stop"), None)
    measured, _, model = build_datasets(fitted, None)
    assert "scale" in model.vae["init_args"]
    assert np.isfinite(codec_psnr(measured, 16))
    codec = dict(config.model.vae)
    codec["init_args"] = {**codec["init_args"], "scale": [1.0] * 6}  # or it is measured on all samples
    fitted = dataclasses.replace(fitted, model=dataclasses.replace(fitted.model, vae=codec))
    with pytest.raises(ConfigError, match=shards.keys[2]):
        precompute(with_data(fitted, on_error="stop"))
    assert precompute(fitted).failed == 1
    visited = {key for i in range(6) for micro in steps_of(fitted)[i].micro for key in micro.keys}
    assert visited == set(shards.keys) - {shards.keys[2]}
    with pytest.raises(SampleError, match="was left out"):
        list(steps_of(with_data(fitted, on_error="stop")))
