"""Sequences that ranks share are read once, and by what a bad one is replaced is decided once.

Real processes over gloo, each with a copy of the data of its own; loader workers read.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from model.net.config import DiTConfig
from model.planner.balance import Cluster
from model.sequence.rope import RopeConfig
from model.training.config import FitConfig, OptimConfig, TrainConfig
from model.training.dataloader import PlannedSteps, ReadStep
from model.training.setup import build_datasets
from model.training.trainer import fit
from shards.reader import ShardSet
from shards.serialization import to_dict
from shards.writer import Item, write_shards
from tests.forked import Forked, wait_for_ranks

STEPS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_items: Callable[..., list[Item]]) -> Path:
    """A folder with a mixture of long and short samples."""
    root = tmp_path_factory.mktemp("data") / "good"
    rows: dict[str, Any] = {}
    for name, frames in (("long", 17), ("short", 2)):
        media = root / f"{name}-media"
        write_shards(root / name, make_items(media, pairs=5, frames=frames, height=48, width=64))
        rows[name] = {"shards": [name], "group": name}
    (root / "mixture.yaml").write_text(yaml.safe_dump({"rows": rows}))
    return root


def copied(data: Path, folder: Path, damaged: tuple[int, ...] = ()) -> Path:
    """A copy of the data, in which the targets of some of the long samples are nought."""
    shutil.copytree(data, folder)
    shards = ShardSet(folder / "long", "train")
    for number in damaged:
        offset, size = shards.members(number)["video2.mp4"]
        with (folder / "long" / shards.shard_of(number)).open("r+b") as file:
            file.seek(offset)
            file.write(bytes(size))
    rows = yaml.safe_load((folder / "mixture.yaml").read_text())
    for name in rows["rows"]:
        rows["rows"][name]["shards"] = [str(folder / name)]
    (folder / "mixture.yaml").write_text(yaml.safe_dump(rows))
    return folder / "mixture.yaml"


@pytest.fixture(scope="module")
def config(fit_config: FitConfig) -> FitConfig:
    """Four heads; two ranks share the long sequences."""
    return dataclasses.replace(
        fit_config,
        data=dataclasses.replace(
            fit_config.data, shards=(), batch_size=3, token_budget=420, on_error="replace", workers=2
        ),
        model=dataclasses.replace(
            fit_config.model,
            dit=DiTConfig(width=64, depth=1, heads=4, kv_heads=2, rope=RopeConfig(dims=(4, 4, 4, 4))),
            media=dataclasses.replace(fit_config.model.media, frames=17),
        ),
        optim=OptimConfig(lr=3e-3, final_lr=1e-3, warmup=2, ema=0.0),
        train=TrainConfig(steps=STEPS, accelerator="cpu", threads=1, validate_every=1000, num_val_samples=1),
        parallel=dataclasses.replace(fit_config.parallel, sequence_parallel=2),
    )


def on(config: FitConfig, mixture: Path, **changes: Any) -> FitConfig:
    data = dataclasses.replace(config.data, mixture=str(mixture), **changes)
    return dataclasses.replace(config, data=data)


def start(configs: list[FitConfig], run: Path) -> list[Forked]:
    """A rank for each configuration."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank, config in enumerate(configs):
        file = run.with_name(f"rank-{rank}.yaml")
        file.write_text(json.dumps({"run": str(run), **to_dict(config)}))
        size = {
            "WORLD_SIZE": len(configs),
            "LOCAL_WORLD_SIZE": len(configs),
            "RANK": rank,
            "LOCAL_RANK": rank,
        }
        at = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = {**os.environ, **{name: str(value) for name, value in (size | at).items()}}
        started.append(Forked("model", "fit", "--config", file, env=env))
    return started


def losses(run: Path) -> list[float]:
    with (run / "curve.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_each_shared_sequence_is_read_by_one_rank(config: FitConfig, data: Path, tmp_path: Path) -> None:
    """What the ranks of a block read makes up, together, what each would have read alone."""
    config = on(config, copied(data, tmp_path / "copy"), batch_size=6)
    pairs, _, _ = build_datasets(config, None)
    cluster = Cluster(4, 4, 4, config.model.dit.heads)
    ranks = [PlannedSteps(pairs, config.data, 0, 0, STEPS, cluster, rank) for rank in range(4)]
    degrees = set()
    for number in range(STEPS):
        read = [steps.read(number, owned=True) for steps in ranks]
        counted = Counter(sample for step in read for sample in step.examples)
        assert counted == dict.fromkeys(range(6), 1)
        shared = ranks[0].shared_samples(read[0].plan)
        assert all(steps.shared_samples(read[0].plan) == shared for steps in ranks)
        given = {s: e for step in read for s, e in step.examples.items() if s in shared}
        degrees |= set(read[0].plan.balanced.degrees.tolist())
        for steps, step in zip(ranks, read, strict=True):
            ours = steps.packed(ReadStep(step.plan, step.examples | given))
            for one, other in zip(ours.micro, steps[number].micro, strict=True):
                assert one.keys == other.keys
                assert torch.equal(one.batch.vision, other.batch.vision)
                assert torch.equal(one.noise, other.noise)
    assert len(degrees) > 1


def test_what_is_bad_on_all_ranks_is_replaced_as_by_one(
    config: FitConfig, data: Path, tmp_path: Path
) -> None:
    mixture = copied(data, tmp_path / "damaged", damaged=(0, 1))
    alone = on(config, mixture, workers=0)
    fit(
        dataclasses.replace(alone, parallel=dataclasses.replace(config.parallel, sequence_parallel=1)),
        tmp_path / "alone",
    )
    code, errors = wait_for_ranks(start([on(config, mixture)] * 2, tmp_path / "run"), timeout=120)
    assert code == 0, errors[-4000:]
    assert "is replaced" in errors
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "alone"), rtol=1e-5)


def test_what_is_bad_on_one_rank_is_decided_by_its_reader(
    config: FitConfig, data: Path, tmp_path: Path
) -> None:
    """Of what it cannot read the second rank replaces its own part, and hands that on."""
    good, bad = copied(data, tmp_path / "good"), copied(data, tmp_path / "bad", damaged=(0, 1))
    ranks = start([on(config, good), on(config, bad)], tmp_path / "run")
    code, errors = wait_for_ranks(ranks, timeout=120)
    assert code == 0, errors[-4000:]
    assert "is replaced" in ranks[1].stderr
    assert "is replaced" not in ranks[0].stderr
    assert np.isfinite(losses(tmp_path / "run")).all()
    assert len(losses(tmp_path / "run")) == STEPS


@pytest.mark.slow
def test_what_stops_one_rank_stops_all(config: FitConfig, data: Path, tmp_path: Path) -> None:
    good = copied(data, tmp_path / "good")
    bad = copied(data, tmp_path / "bad", damaged=(0, 1, 2, 3))
    ranks = start([on(config, path, on_error="stop") for path in (good, bad)], tmp_path / "run")
    codes = [rank.wait(timeout=120) for rank in ranks]
    assert codes == [2, 2], "".join(rank.stderr for rank in ranks)[-4000:]
    for rank in ranks:
        assert "bad/long: object_removal-" in rank.stderr
        assert "Traceback" not in rank.stderr
