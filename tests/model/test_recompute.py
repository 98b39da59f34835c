"""Compiled blocks, and blocks whose activations are computed again, learn the same."""

from __future__ import annotations

import copy
import csv
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from model.net.activation_checkpointing import Checkpointing, prepare_blocks
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.planner.memory import activation_bytes, memory_of, saved_bytes
from model.sequence.interleave import TokenSequence
from model.sequence.packing import pack
from model.sequence.rope import RopeConfig
from model.training.config import FitConfig
from model.training.trainer import fit


def test_checkpointing_changes_memory_alone(
    trained_like: DiT, make_sequence: Callable[..., TokenSequence]
) -> None:
    batch = pack([make_sequence(0), make_sequence(1, frames=3)])
    timestep = torch.full((batch.segments,), 0.5)
    gradients: dict[str, dict[str, torch.Tensor]] = {}
    kept: dict[str, int] = {}
    modes: tuple[Checkpointing, ...] = ("none", "selective", "full")
    for mode in modes:
        dit = copy.deepcopy(trained_like).requires_grad_(True)
        prepare_blocks(dit, mode, compiled=False)
        storages: dict[int, int] = {}

        def keep(tensor: torch.Tensor, found: dict[int, int] = storages) -> torch.Tensor:
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = dit(batch, batch.vision, timestep)[0]
        kept[mode] = sum(storages.values())
        out.square().sum().backward()
        gradients[mode] = {n: p.grad for n, p in dit.named_parameters() if p.grad is not None}
    for mode in modes[1:]:
        assert gradients[mode].keys() == gradients["none"].keys()
        for name, gradient in gradients[mode].items():
            torch.testing.assert_close(gradient, gradients["none"][name])
    assert kept["full"] < kept["none"] / 2


def test_memory_estimated_on_a_small_copy_is_that_of_the_whole() -> None:
    rope = RopeConfig(dims=(6, 6, 6, 6))
    config = DiTConfig(16, 16, width=96, depth=5, heads=4, kv_heads=2, rope=rope, attention="sdpa")
    kinds: tuple[Literal["none", "full"], ...] = ("none", "full")
    shallower = dataclasses.replace(config, depth=4)
    block = activation_bytes(config, "none") - activation_bytes(shallower, "none")
    for mode, again in zip(kinds, (0.0, block), strict=True):
        tokens, kept = zip(*(saved_bytes(config, mode, frames) for frames in (3, 12)), strict=True)
        slope = (kept[1] - kept[0]) / (tokens[1] - tokens[0])
        assert activation_bytes(config, mode) - again == pytest.approx(slope, rel=0.05)
    modes: tuple[Checkpointing, ...] = ("full", "selective", "none")
    estimates = [memory_of(config, 8, 1000, mode).total for mode in modes]
    assert estimates == sorted(estimates)


def run(config: FitConfig, folder: Path, **changes: Any) -> list[float]:
    """The losses of 50 steps with some of the parallel section changed."""
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, steps=50, validate_every=1000),
        parallel=dataclasses.replace(config.parallel, **changes),
    )
    fit(config, folder)
    return [float(row["loss"]) for row in csv.DictReader((folder / "curve.csv").open())]


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_compiled_once(fit_config: FitConfig, tmp_path: Path, checkpointing: Checkpointing) -> None:
    """Fifty steps of packs that differ: nothing is compiled after the second, and the losses are the same."""
    wanted = run(fit_config, tmp_path / "plain")
    steps = itertools.count(1)

    def second(*_: Any) -> None:
        if next(steps) == 2:
            torch.compiler.set_stance("fail_on_recompile")

    hook = register_optimizer_step_post_hook(second)
    try:
        found = run(fit_config, tmp_path / "compiled", compile=True, checkpointing=checkpointing)
    finally:
        hook.remove()
        torch.compiler.set_stance("default")
    assert next(steps) > 2
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-4, atol=0)
