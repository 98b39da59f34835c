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
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.interleave import TokenSequence
from model.sequence.packing import PackedBatch, pack
from model.training.config import FitConfig, ParallelConfig, TrainConfig
from model.training.distributed import World
from model.training.fsdp import before_micro_batch, mesh_of, reduce_gradients, shard
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
