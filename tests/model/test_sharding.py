"""How weights are shared out: in which precision they are gathered, when they are there, what is kept."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from model.config import InferenceConfig, ModelConfig
from model.net.config import DiTConfig
from model.net.distributed import World
from model.net.dit import DiT
from model.sequence.interleave import TokenSequence
from model.sequence.packing import PackedBatch, pack
from model.training.config import FitConfig, OptimConfig, ParallelConfig, TrainConfig
from model.training.fsdp import before_micro_batch, mesh_of, reduce_gradients, shard
from model.training.lockstep import lockstep
from model.training.optimizer import optimizer_of
from model.training.trainer import fit
from shards.errors import SettingError
from tests.model.test_parallel import parallel, rows, run_ranks


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    """A group of this process alone, which gathers and reduces as several do."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield mesh_of(World(), "full", "cpu")
    dist.destroy_process_group()


def gathered_bytes(dit: Any) -> int:
    """Of the blocks' weights while they are whole."""
    for block in dit.blocks:
        block.unshard()
    sizes = sum(p.numel() * p.element_size() for p in dit.blocks.parameters() if not isinstance(p, DTensor))
    for block in dit.blocks:
        block.reshard()
    return sizes


@pytest.fixture
def whole(dit_config: DiTConfig) -> DiT:
    torch.manual_seed(0)
    dit = DiT(dit_config)
    nn.init.normal_(dit.out.weight, std=0.1)
    return dit


def backward(dit: DiT, batch: PackedBatch, factor: float = 1.0) -> None:
    """Of one micro-batch in bf16-mixed, `factor` times a squared output."""
    with torch.autocast("cpu", torch.bfloat16):
        output = dit(batch, batch.vision, torch.full((batch.segments,), 0.5))[0]
    (factor * output.float().square().sum()).backward()


def gradient(dit: DiT) -> torch.Tensor:
    parts: list[Any] = [p.grad for p in dit.parameters()]
    return torch.cat([part.to_local().flatten() for part in parts])


def test_bf16_halves_what_is_gathered_and_nothing_else(
    mesh: DeviceMesh, whole: DiT, make_sequence: Callable[..., TokenSequence], fit_config: FitConfig
) -> None:
    gradients, sizes = [], []
    batch = pack([make_sequence()])
    gathers: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    for gather in gathers:
        dit = copy.deepcopy(whole)
        shard(dit, mesh, gather)
        sizes.append(gathered_bytes(dit))
        backward(dit, batch)
        reduce_gradients(dit, reshard=False)
        gradients.append(gradient(dit))
        optimizer = optimizer_of(dit.named_parameters(), fit_config.optim)
        optimizer.step()
        kept = [*dit.parameters(), *(v for state in optimizer.state.values() for v in state.values())]
        assert {value.dtype for value in kept} == {torch.float32}
    assert sizes[1] * 2 == sizes[0]
    full, half = gradients
    assert float((half - full).norm() / full.norm()) < 0.02


def test_bf16_sums_are_float32(
    mesh: DeviceMesh, whole: DiT, make_sequence: Callable[..., TokenSequence]
) -> None:
    """A thousandth of a gradient, added as a second micro-batch, is seen; in bf16 it would round away."""
    batch = pack([make_sequence()])
    gradients = []
    for factors in ([1.0], [1.0, 2**-10]):
        dit = copy.deepcopy(whole)
        shard(dit, mesh, "bfloat16")
        for factor in factors:
            backward(dit, batch, factor)
        reduce_gradients(dit, reshard=False)
        gradients.append(gradient(dit))
    torch.testing.assert_close(gradients[1], gradients[0] * (1 + 2**-10), rtol=1e-5, atol=0)


@pytest.mark.parametrize("reshard", [False, True])
def test_weights_stay_between_micro_batches_unless_given_up(
    mesh: DeviceMesh, whole: DiT, make_sequence: Callable[..., TokenSequence], reshard: bool
) -> None:
    """And are shards again after the last, with the sum of both micro-batches' gradients."""
    batch = pack([make_sequence()])
    dit = copy.deepcopy(whole)
    shard(dit, mesh, reshard=reshard)
    there = []
    dit.blocks[0].register_forward_pre_hook(
        lambda *_: there.append(not isinstance(dit.blocks[0].norm1.weight, DTensor)), prepend=True
    )
    for last in (False, True):
        before_micro_batch(dit, last, reshard)
        backward(dit, batch)
    reduce_gradients(dit, reshard)
    assert there == [False, not reshard]
    assert all(isinstance(p, DTensor) for p in dit.parameters())
    plain = copy.deepcopy(whole)
    backward(plain, batch, 2.0)
    expected = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None])
    torch.testing.assert_close(gradient(dit), expected, rtol=1e-4, atol=1e-5)


def bf16(config: FitConfig, steps: int) -> FitConfig:
    train = dataclasses.replace(config.train, steps=steps, precision="bf16-mixed", validate_every=1000)
    return dataclasses.replace(config, train=train)


def losses(run: Path) -> np.ndarray:
    return np.array([float(row["loss"]) for row in rows(run)])


@pytest.mark.slow
def test_bf16_between_two_ranks_learns_as_one(fit_config: FitConfig, tmp_path: Path) -> None:
    """One rank's weights are rounded by autocast alone; losses were within 7e-5 of its when measured."""
    config = bf16(fit_config, 6)
    fit(config, tmp_path / "alone")
    run_ranks(parallel(config, gather="bfloat16"), tmp_path / "run", 2)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "alone"), rtol=1e-3)


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(SettingError, match=r"parallel\.gather: bfloat16 needs train\.precision bf16-mixed"):
        FitConfig(parallel=ParallelConfig(gather="bfloat16"))
    FitConfig(parallel=ParallelConfig(gather="bfloat16"), train=TrainConfig(precision="bf16-mixed"))
    with pytest.raises(SettingError, match=r"parallel\.reshard: under sharding ddp"):
        ParallelConfig(reshard=True, sharding="ddp")


@pytest.mark.parametrize("context", ["cached", pytest.param("full", marks=pytest.mark.slow)])
def test_ranks_render_what_one_does(
    fit_config: FitConfig, tmp_path: Path, context: Literal["full", "cached"]
) -> None:
    """One pair on two ranks, one of which has none, then two; weights do not change, so that all is equal."""
    model = dataclasses.replace(
        fit_config.model,
        dit=dataclasses.replace(fit_config.model.dit, depth=2, context=context),
        inference=InferenceConfig(steps=3, guidance=2.0, interval=(0.0, 0.5)),
    )
    train = dataclasses.replace(fit_config.train, steps=2, num_val_samples=1, validate_every=1000)
    config = dataclasses.replace(fit_config, model=model, train=train)
    fit(config, tmp_path / "base")
    train = dataclasses.replace(train, init_from=str(tmp_path / "base"), steps=1, validate_every=1)
    still = OptimConfig(lr=0.0, final_lr=0.0, warmup=0, weight_decay=0.0)
    config = dataclasses.replace(config, model=ModelConfig(), train=train, optim=still)
    fit(config, tmp_path / "alone")
    run_ranks(config, tmp_path / "run", 2)
    renders = [sorted((tmp_path / run / "samples").glob("*.mp4")) for run in ("alone", "run")]
    assert [p.name for p in renders[0]] == [p.name for p in renders[1]]
    assert len(renders[0]) == 2
    assert [p.read_bytes() for p in renders[0]] == [p.read_bytes() for p in renders[1]]
    weights = [load_file(tmp_path / run / "checkpoint" / "model.safetensors") for run in ("base", "run")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_render_leaves_no_weights_behind(
    mesh: DeviceMesh, whole: DiT, make_sequence: Callable[..., TokenSequence]
) -> None:
    """Blocks are whole one at a time, and nothing is after it."""
    batch, dit = pack([make_sequence()]), copy.deepcopy(whole)
    shard(dit, mesh, reshard=True)
    there = []

    def count(*_: Any) -> None:
        there.append(sum(not isinstance(block.norm1.weight, DTensor) for block in dit.blocks))

    for block in dit.blocks:
        block.norm1.register_forward_hook(count)
    with torch.inference_mode(), lockstep(dit, lambda: None):
        (first,) = dit(batch, batch.vision, torch.full((batch.segments,), 0.5))
    assert set(there) == {1}
    assert all(isinstance(p, DTensor) for p in dit.parameters())
    with torch.inference_mode():
        (expected,) = whole(batch, batch.vision, torch.full((batch.segments,), 0.5))
    assert torch.equal(first, expected)
