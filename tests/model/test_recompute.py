"""Compiled blocks, and blocks whose activations are computed again, learn the same."""

from __future__ import annotations

import copy
import csv
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from model.config import ModelConfig
from model.encoders import part
from model.extras.config import ExtrasConfig
from model.net.activation_checkpointing import Checkpointing, prepare_blocks
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.interleave import SequenceConfig, TokenSequence
from model.sequence.packing import pack
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


def run(config: FitConfig, folder: Path, **changes: Any) -> list[float]:
    """The losses of 50 steps with some of the parallel section changed."""
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, steps=50, validate_every=1000),
        parallel=dataclasses.replace(config.parallel, **changes),
    )
    fit(config, folder)
    return [float(row["loss"]) for row in csv.DictReader((folder / "curve.csv").open())]


def of_wan(model: ModelConfig) -> ModelConfig:
    """The same with a transformer of Wan's family, whose prompts differ in number and length, too."""
    sizes = {"width": 48, "depth": 2, "heads": 2, "hidden": 96, "text_tokens": 32}
    return dataclasses.replace(
        model,
        transformer=part("model.net.wan.WanTransformer", **sizes, text_dim=0, vision_dim=0),
        sequence=SequenceConfig(pixel_positions=False, text="cross_attention", first_axis="source"),
        dit=DiTConfig(),
        extras=ExtrasConfig(),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("checkpointing", "family"), [("none", "dit"), ("full", "wan")])
def test_compiled_once(
    fit_config: FitConfig, tmp_path: Path, checkpointing: Checkpointing, family: str
) -> None:
    """Fifty steps of packs that differ: nothing is compiled after the second, and the losses are the same."""
    if family == "wan":
        fit_config = dataclasses.replace(fit_config, model=of_wan(fit_config.model))
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
