"""Several ranks: the same losses and weights as one, whatever is shared out among them and how.

Real processes over gloo, through `python -m model fit`: with torchrun's variables,
and once by torchrun itself.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from model.cli import STOPPED
from model.net.config import DiTConfig
from model.planner.balance import Cluster
from model.sequence.rope import RopeConfig
from model.training.checkpoint import states
from model.training.config import FitConfig, OptimConfig, TrainConfig
from model.training.dataloader import PlannedSteps
from model.training.setup import build_datasets
from model.training.trainer import fit
from shards import processes
from shards.serialization import to_dict
from shards.writer import Item, write_shards
from tests.forked import Forked, wait_for_ranks
from tests.forked import ranks as start_ranks

STEPS = 20


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory, make_items: Callable[..., list[Item]]) -> Path:
    """A mixture of short, middling and long samples."""
    root = tmp_path_factory.mktemp("varied")
    rows: dict[str, Any] = {}
    for name, frames, ratio in (("short", 2, 1), ("middling", 7, 0.5), ("long", 17, 2)):
        folder = root / name
        write_shards(folder, make_items(folder / "media", pairs=3, frames=frames, height=48, width=64))
        rows[name] = {"shards": [str(folder)], "ratio": ratio, "group": name}
    (root / "mixture.yaml").write_text(yaml.safe_dump({"rows": rows}))
    return root / "mixture.yaml"


@pytest.fixture(scope="module")
def config(fit_config: FitConfig, varied: Path) -> FitConfig:
    """Two blocks, four heads of two groups; the weights that are saved are the last ones."""
    dit = DiTConfig(width=64, depth=2, heads=4, kv_heads=2, rope=RopeConfig(dims=(4, 4, 4, 4)))
    return dataclasses.replace(
        fit_config,
        data=dataclasses.replace(
            fit_config.data, mixture=str(varied), shards=(), batch_size=6, token_budget=420
        ),
        model=dataclasses.replace(
            fit_config.model, dit=dit, media=dataclasses.replace(fit_config.model.media, frames=17)
        ),
        optim=OptimConfig(lr=3e-3, final_lr=1e-3, warmup=4, ema=0.0),
        train=TrainConfig(
            steps=STEPS,
            accelerator="cpu",
            threads=1,
            save_every=4,
            validate_every=1000,
            num_val_samples=1,
            validate_loss_every=5,
        ),
    )


@pytest.fixture(scope="module")
def alone(config: FitConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a single rank that the others are held against."""
    run = tmp_path_factory.mktemp("alone") / "run"
    fit(config, run)
    for column in ("heldout/loss", "heldout/loss/short", "heldout/loss/long"):
        assert sum(bool(row[column]) for row in rows(run)) == STEPS // 5
    return run


def parallel(config: FitConfig, **changes: Any) -> FitConfig:
    return dataclasses.replace(config, parallel=dataclasses.replace(config.parallel, **changes))


def packing(config: FitConfig, budget: int) -> FitConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, token_budget=budget))


def saved(config: FitConfig, run: Path) -> Path:
    """The configuration of a run, as a file."""
    file = run.with_suffix(".yaml")
    file.write_text(json.dumps({"run": str(run), **to_dict(config)}))
    return file


def launch(config: FitConfig, run: Path, ranks: int = 1) -> list[Forked]:
    """Start `python -m model fit` on the ranks of a node."""
    words = ("model", "fit", "--config", saved(config, run))
    return [Forked(*words)] if ranks == 1 else start_ranks(ranks, *words)


def run_ranks(config: FitConfig, run: Path, ranks: int = 1) -> None:
    code, errors = wait_for_ranks(launch(config, run, ranks))
    assert code == 0, errors[-4000:]


def run_nodes(config: FitConfig, run: Path, ranks: int, nodes: int) -> None:
    """As a person starts it: by torchrun, once per node."""
    file = saved(config, run)
    started = []
    for node in range(nodes):
        command = [
            *(sys.executable, "-m", "torch.distributed.run"),
            *(f"--nproc-per-node={ranks // nodes}", f"--nnodes={nodes}", f"--node-rank={node}"),
            *("--master-addr=127.0.0.1", f"--master-port={20_000 + os.getpid() % 20_000}"),
            *("-m", "model", "fit", "--config", str(file)),
        ]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-4000:]


def rows(run: Path) -> list[dict[str, str]]:
    path = run / "curve.csv"
    return list(csv.DictReader(path.open())) if path.is_file() else []


def wait_for_step(run: Path, step: int, process: Forked) -> None:
    """Until a step is in the curve; a process that has ended by then fails the test."""
    while len(rows(run)) < step:
        assert process.poll() is None, process.stderr[-4000:]
        time.sleep(0.005)


def kill_after(config: FitConfig, run: Path, step: int, ranks: int = 1) -> None:
    """`kill -9` all processes of a run as soon as a step is in its curve."""
    processes = launch(config, run, ranks)
    wait_for_step(run, step, processes[0])
    family = [psutil.Process(process.pid) for process in processes]
    family += [child for process in family for child in process.children(recursive=True)]
    for member in family:
        member.kill()
    for process in processes:
        process.wait()
    psutil.wait_procs(family)
    assert not (run / "summary.json").exists()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "model.safetensors")


def same(ours: Path, theirs: Path, steps: int = STEPS) -> None:
    """Losses, also of held-out samples, to 1e-5, weights to 1e-4."""
    losses = [np.array([float(row["loss"]) for row in rows(run)]) for run in (ours, theirs)]
    assert len(losses[0]) == steps
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for column in [name for name in rows(ours)[0] if name.startswith("heldout/")]:
        measured = [[float(row[column]) for row in rows(run) if row[column]] for run in (ours, theirs)]
        np.testing.assert_allclose(*measured, rtol=1e-5)
    others = weights(theirs)
    for name, value in weights(ours).items():
        torch.testing.assert_close(value, others[name], rtol=1e-4, atol=1e-4 * float(value.abs().max()))


def degrees(config: FitConfig, folder: Path, cluster: Cluster) -> list[set[int]]:
    """By step: how many ranks share a sequence."""
    train, _, _ = build_datasets(config, folder)
    steps = PlannedSteps(train, config.data, config.train.seed, 0, STEPS, cluster)
    return [set(steps.plan(k).balanced.degrees.tolist()) for k in range(STEPS)]


@pytest.mark.parametrize("budget", [200, 1200])
def test_packings(config: FitConfig, alone: Path, tmp_path: Path, budget: int) -> None:
    """Four to five, two, or a single micro-batch per step."""
    fit(packing(config, budget), tmp_path / "run")
    same(alone, tmp_path / "run")


@pytest.mark.slow  # the fast tests take two ranks by Muon, and four that share sequences
def test_two_ranks(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """With weights shared out, micro-batches that differ in number, and no sequence shared."""
    run_ranks(packing(config, 200), tmp_path / "run", 2)
    same(alone, tmp_path / "run")


def test_four_ranks_share_some_sequences(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """One, two and four ranks to a sequence, some in one step; keys are repeated where four share one."""
    found = degrees(config, tmp_path / "data", Cluster(4, 4, 4, config.model.dit.heads))
    print(found)
    assert {1, 2, 4} in found
    run_ranks(parallel(config, sequence_parallel=4), tmp_path / "run", 4)
    same(alone, tmp_path / "run")


@pytest.mark.parametrize("checkpointing", ["none", pytest.param("full", marks=pytest.mark.slow)])
def test_weights_given_up_after_the_forward_pass(
    config: FitConfig, alone: Path, tmp_path: Path, checkpointing: str
) -> None:
    """Ranks whose micro-batches differ in number gather the same weights equally often."""
    config = packing(parallel(config, reshard=True, checkpointing=checkpointing), 200)
    cluster = Cluster(2, 2, config.parallel.sequence_parallel, config.model.dit.heads)
    train, _, _ = build_datasets(config, tmp_path / "data")
    steps = PlannedSteps(train, config.data, config.train.seed, 0, STEPS, cluster)
    assert any(len({len(own) for own in steps.plan(k).micro}) > 1 for k in range(STEPS))
    run_ranks(config, tmp_path / "run", 2)
    same(alone, tmp_path / "run")


@pytest.mark.slow
def test_two_ranks_without_sharding(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    run_ranks(parallel(config, sharding="ddp"), tmp_path / "run", 2)
    same(alone, tmp_path / "run")


@pytest.mark.slow
def test_two_nodes(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """Weights are shared out within a node and copied to the other; so are sequences."""
    run_nodes(parallel(config, sequence_parallel=2, sharding="hybrid"), tmp_path / "run", 4, nodes=2)
    same(alone, tmp_path / "run")


@pytest.mark.slow
def test_killed_and_resumed(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """Three times, at steps nobody chose: the same curve and weights, bit by bit."""
    run = tmp_path / "run"
    for low, high in ((1, 5), (6, 11), (12, 17)):
        kill_after(config, run, random.randint(low, high))
    run_ranks(config, run)
    assert (run / "curve.csv").read_bytes() == (alone / "curve.csv").read_bytes()
    others = weights(alone)
    for name, value in weights(run).items():
        assert torch.equal(value, others[name]), name


@pytest.mark.slow
def test_resumed_on_other_ranks(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """Two ranks are killed, one is, and four finish."""
    run = tmp_path / "run"
    kill_after(parallel(config, sequence_parallel=2), run, random.randint(6, 8), ranks=2)
    assert states(run / "state")
    kill_after(config, run, random.randint(12, 14))
    run_ranks(parallel(config, sequence_parallel=4), run, 4)
    assert json.loads((run / "summary.json").read_text())["resumed_at"] >= 8
    same(alone, run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_stopped_by_a_signal(config: FitConfig, alone: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The step that was being taken is saved, the exit status says what happened, the rest is as it was."""
    run = tmp_path / "run"
    (process,) = launch(config, run)
    wait_for_step(run, 2, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == STOPPED, errors[-4000:]
    taken = len(rows(run))
    assert f"stopped by a signal after step {taken}" in errors
    assert states(run / "state")[-1].name == f"step-{taken:08d}"
    fit(config, run)
    assert (run / "curve.csv").read_bytes() == (alone / "curve.csv").read_bytes()


def test_a_signal_to_all_processes_saves_the_state(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """As SLURM and the end of a container send it: to the loader's workers first, then to the run."""
    run = tmp_path / "run"
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=2))
    (process,) = launch(config, run)
    wait_for_step(run, 2, process)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    for member in family:
        member.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == STOPPED, errors[-4000:]
    taken = len(rows(run))
    assert states(run / "state")[-1].name == f"step-{taken:08d}"
    fit(config, run)
    assert (run / "curve.csv").read_bytes() == (alone / "curve.csv").read_bytes()


def test_ctrl_c_that_a_library_dropped_ends_the_run(
    config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C code that asks for an attribute drops the exception: the run ends after its first step even so."""
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(processes, "_interrupts", [])
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        processes.count_interrupts()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            fit(config, tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(rows(tmp_path / "run")) == 1
    assert states(tmp_path / "run" / "state")[-1].name == "step-00000001"


@pytest.mark.slow
def test_muon_on_one_rank_and_on_two(config: FitConfig, tmp_path: Path) -> None:
    """Its bf16 iterations magnify what the order of a sum changes; one rank resumed is equal to the bit."""
    optim = OptimConfig(method="muon", lr=3e-3, final_lr=1e-3, warmup=4, ema=0.0)
    train = dataclasses.replace(config.train, steps=12)
    config = packing(dataclasses.replace(config, optim=optim, train=train), 200)
    fit(config, tmp_path / "whole")
    kill_after(config, tmp_path / "killed", 5)
    fit(config, tmp_path / "killed")
    assert (tmp_path / "killed" / "curve.csv").read_bytes() == (tmp_path / "whole" / "curve.csv").read_bytes()
    run_ranks(config, tmp_path / "two", 2)
    losses = [[float(row["loss"]) for row in rows(tmp_path / run)] for run in ("whole", "two")]
    np.testing.assert_allclose(*losses, rtol=1e-2)
    assert losses[0][-1] < losses[0][0] / 2
