"""Training: the loss does not depend on packing, equal runs give equal curves, resume changes nothing.

Real shards, real runs of a few steps through `model.training.trainer.fit`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.data.batch import StepBatch, collate
from model.data.dataset import EditDataset
from model.data.mixture import DatasetConfig
from model.data.variants import mirrored
from model.rng import keyed
from model.sequence.interleave import unpatchify
from model.training.checkpoint import StateWriter, load_state, states
from model.training.config import FitConfig, OptimConfig
from model.training.dataloader import PlannedSteps
from model.training.module import EditModule, learning_rate, micro_loss, token_shares
from model.training.setup import build_datasets
from model.training.trainer import fit
from shards.errors import ConfigError
from shards.location import ShardError
from shards.reader import ShardSet
from shards.sample import Step
from shards.writer import write_shards

Opened = tuple[EditDataset, EditModule]


@pytest.fixture
def opened(fit_config: FitConfig, tmp_path: Path) -> Opened:
    """Training pairs and a module with nothing zero in it."""
    train, _, model = build_datasets(fit_config, tmp_path / "opened")
    torch.manual_seed(1)
    module = EditModule(model, fit_config.optim, fit_config.train.steps)
    with torch.no_grad():
        for parameter in module.dit.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return train, module


def loss_and_gradients(module: EditModule, step: StepBatch, average: str) -> tuple[float, list[torch.Tensor]]:
    module.dit.zero_grad()
    total = 0.0
    for micro, share in zip(step.micro, token_shares(step, average), strict=True):
        loss = (share * micro_loss(module.dit, micro, module.config)).sum()
        loss.backward()
        total += loss.item()
    return total, [p.grad.clone() for p in module.dit.parameters() if p.grad is not None]


@pytest.mark.parametrize("average", ["sample", "token"])
def test_loss_and_gradients_do_not_depend_on_packing(
    fit_config: FitConfig, opened: Opened, average: str
) -> None:
    pairs, module = opened
    examples = [pairs.example(i, 0, 5, 0, fit_config.data) for i in range(5)]
    assert len({len(e.sequence) for e in examples}) > 1
    layouts = [
        [collate(examples)],
        [collate([e]) for e in examples],
        [collate(examples[:2], pad_to=500), collate(examples[:1:-1])],
    ]
    results = [loss_and_gradients(module, StepBatch(5, tuple(m), 5), average) for m in layouts]
    for loss, gradients in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        for ours, theirs in zip(gradients, results[0][1], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_zero_output_has_a_known_loss(fit_config: FitConfig, opened: Opened) -> None:
    pairs, _ = opened
    flow = dataclasses.replace(pairs.model.flow, prediction="velocity")
    config = dataclasses.replace(pairs.model, flow=flow)
    module = EditModule(config, OptimConfig(), 1)
    micro = collate([pairs.example(i, 0, 0, 0, fit_config.data) for i in range(6)])
    loss = micro_loss(module.dit, micro, config)
    clean = micro.batch.vision[micro.batch.target_vision]
    torch.testing.assert_close(loss, micro.weight * (clean - micro.noise).square().mean(1))


def test_a_visit_is_keyed_by_seed_step_and_sample(fit_config: FitConfig, opened: Opened) -> None:
    pairs, _ = opened

    def visit(step: int, seed: int, index: int = 0) -> Any:
        return pairs.example(index, 0, step, seed, fit_config.data)

    first, again = visit(3, 0), visit(3, 0)
    assert torch.equal(first.noise, again.noise)
    assert first.time == again.time
    assert torch.equal(first.sequence.vision, again.sequence.vision)
    for other in (visit(4, 0), visit(3, 1), visit(3, 0, index=2)):
        assert first.time != other.time
        assert not torch.equal(first.noise, other.noise)
    assert first.weight.mean().item() == pytest.approx(1)
    assert first.weight.max() > first.weight.min()  # the disc's tokens weigh more


def test_lengths_from_the_index_are_those_of_the_sequences(fit_config: FitConfig, opened: Opened) -> None:
    pairs, _ = opened
    config = dataclasses.replace(fit_config.data, text_drop_prob=0.0)
    for index, length in enumerate(pairs.lengths_of(range(len(pairs)))):
        assert len(pairs.example(index, 0, 0, 0, config).sequence) == length


def test_mirrored_text_swaps_sides() -> None:
    assert mirrored("Left of the man on the right, leftover") == "Right of the man on the left, leftover"


@pytest.mark.parametrize(("chance", "visits"), [(0.3, 60), (0.0, 5), (1.0, 5)])
def test_texts_are_dropped_as_often_as_asked(
    fit_config: FitConfig, opened: Opened, chance: float, visits: int
) -> None:
    pairs, _ = opened
    config = dataclasses.replace(fit_config.data, text_drop_prob=chance)
    key = pairs.entry(0).key
    dropped = [not len(pairs.example(0, 0, step, 7, config).sequence.text) for step in range(visits)]
    # a draw of its own, by seed, step, pass and sample
    drawn = [float(torch.rand((), generator=keyed(7, step, 0, key, "text"))) for step in range(visits)]
    assert dropped == [value < chance for value in drawn]
    assert abs(sum(dropped) / visits - chance) < 0.15


def test_a_mirrored_visit_mirrors_words_and_pictures(fit_config: FitConfig, opened: Opened) -> None:
    pairs, _ = opened
    index = next(i for i in range(len(pairs)) if "left" in pairs.entry(i).text)

    def visit(flip: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The words' states, and the source as decoded again."""
        config = dataclasses.replace(fit_config.data, flip_prob=flip, text_drop_prob=0.0)
        sequence = pairs.example(index, 0, 0, 0, config).sequence
        size = next(s.size for s in sequence.segments if s.name == "video1")
        latents = unpatchify(sequence.vision[: math.prod(size)], size, pairs.model.sequence.patch)
        return sequence.text, pairs.vae.decode(latents, (9, 48, 64))

    (words, video), (other_words, other_video) = visit(0.0), visit(1.0)
    assert torch.equal(words, pairs.states("Remove the disc on the left."))
    assert torch.equal(other_words, pairs.states("Remove the disc on the right."))
    torch.testing.assert_close(other_video, video.flip(2), atol=1e-4, rtol=0)
    assert (video - video.flip(2)).abs().max() > 0.5


def test_the_target_is_drawn(fit_config: FitConfig, opened: Opened) -> None:
    pairs, _ = opened
    record = pairs.record(0)
    both = pairs.entry(0).model_copy(update={"targets": ["video1", "video2"]})
    seen = [pairs.visit(both, lambda: record, 0, step, 0, fit_config.data) for step in range(24)]
    names = [example.sequence.target.name for example in seen]
    assert 5 <= names.count("video1") <= 19
    assert set(names) == {"video1", "video2"}


def test_schedule() -> None:
    config = OptimConfig(lr=1.0, final_lr=0.1, warmup=4)
    rates = [learning_rate(s, 20, config) for s in range(21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[20] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))


def weights(run: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(run / "checkpoint" / "model.safetensors")
    return loaded


def test_same_seed_same_curve_resume_and_reuse(
    fit_config: FitConfig,
    tmp_path: Path,
    power_cut: Callable[[FitConfig, Path, int], None],
    with_train: Callable[..., FitConfig],
) -> None:
    first = fit(fit_config, tmp_path / "first")
    assert first["steps"] == 6
    assert math.isfinite(first["last_loss"])
    assert len(list((tmp_path / "first" / "samples").glob("*.mp4"))) >= 2
    assert {row["result"] for row in first["heldout"]} == {"edit", "raw", "copy"}

    # interrupted in step 4: the state of step 2 is on disk, lines of later steps too
    power_cut(fit_config, tmp_path / "second", 3)
    resumed = fit(fit_config, tmp_path / "second")
    assert resumed["resumed_at"] == 2

    curves = [(tmp_path / name / "curve.csv").read_bytes() for name in ("first", "second")]
    assert curves[0] == curves[1]
    assert curves[0].count(b"\n") == 7
    ours, theirs = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    before = (tmp_path / "first" / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    assert fit(fit_config, tmp_path / "first")["reused"]
    assert (tmp_path / "first" / "checkpoint" / "model.safetensors").stat().st_mtime_ns == before

    # another seed is another run: another curve, and refused in this folder
    other = with_train(fit_config, seed=1)
    with pytest.raises(ConfigError, match=r"holds another run: config.train.seed is 0 there and 1 here"):
        fit(other, tmp_path / "first")


def test_state_survives_and_old_ones_go(fit_config: FitConfig, opened: Opened, tmp_path: Path) -> None:
    _, module = opened
    optimizer = module.configure_optimizers()
    for parameter in module.dit.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for module.done in (1, 2):
        StateWriter(tmp_path / "state", module, optimizer, max_checkpoints=1).save()
    assert [p.name for p in states(tmp_path / "state")] == ["step-00000002"]
    other = EditModule(module.config, fit_config.optim, 6)
    fresh = other.configure_optimizers()
    load_state(states(tmp_path / "state")[-1], other, fresh)
    assert other.done == 2
    for ours, theirs in zip(module.dit.parameters(), other.dit.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        for name, value in optimizer.state[ours].items():
            assert torch.equal(value, fresh.state[theirs][name])
    file = next((tmp_path / "state" / "step-00000002").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ConfigError, match=r"\.safetensors: is not as long as it was written"):
        load_state(file.parent, other, fresh)


def test_a_row_takes_samples_with_a_mask_or_without(opened: Opened, shard_folder: Path) -> None:
    pairs, _ = opened
    keys = {}
    for masked in (None, False, True):
        rows = {"discs": DatasetConfig(shards=(str(shard_folder),), masked=masked)}
        row = EditDataset(rows, "train", pairs.model, pairs.vae, pairs.text_encoder)
        keys[masked] = {row.entry(i).key for i in range(len(row))}
    assert all("plain" in key for key in keys[False])
    assert all("marked" in key for key in keys[True])
    assert keys[False] | keys[True] == keys[None]
    assert len(keys[False]) == len(keys[True]) == 3
    rows = {"discs": DatasetConfig(shards=(str(shard_folder),), tasks=("x",), masked=True)}
    with pytest.raises(ConfigError, match=r"row discs: .*no train samples of the tasks x with a mask"):
        EditDataset(rows, "train", pairs.model, pairs.vae, pairs.text_encoder)


def test_scenes_of_two_generators_are_not_mixed(
    fit_config: FitConfig, shard_folder: Path, tmp_path: Path
) -> None:
    old = ShardSet(shard_folder)
    folders = []
    for version in ("scenes 1a", "scenes 2b"):
        items = []
        for record in (old[i] for i in range(len(old))):
            media = {name: tmp_path / f"{record.key}-{name}" for name in record.sample.media}
            for name, path in media.items():
                path.write_bytes(record.bytes(name))
            steps = [Step(stage="render", backend="mujoco", model=version, revision="3.3.0")]
            provenance = record.sample.provenance.model_copy(update={"steps": steps})
            items.append((record.sample.model_copy(update={"provenance": provenance}), media))
        write_shards(tmp_path / version, items)
        folders.append(str(tmp_path / version))
    data = dataclasses.replace(fit_config.data, shards=tuple(folders))
    with pytest.raises(ConfigError, match=r"scenes 1a and .*scenes 2b were rendered by different generators"):
        fit(dataclasses.replace(fit_config, data=data), tmp_path / "run")


def test_bad_settings_are_named(
    fit_config: FitConfig, tmp_path: Path, with_train: Callable[..., FitConfig]
) -> None:
    data = dataclasses.replace(fit_config.data, token_budget=10)
    with pytest.raises(ConfigError, match="token_budget=10"):
        fit(dataclasses.replace(fit_config, data=data), tmp_path / "budget")
    dit = dataclasses.replace(fit_config.model.dit, vision_dim=7)
    with pytest.raises(ConfigError, match=r"model.dit.vision_dim is 7; the encoders give 24"):
        fit(
            dataclasses.replace(fit_config, model=dataclasses.replace(fit_config.model, dit=dit)),
            tmp_path / "dim",
        )
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(ConfigError, match="is no training run"):
        fit(fit_config, tmp_path / "photos")
    data = dataclasses.replace(fit_config.data, shards=(str(tmp_path / "nowhere"),))
    with pytest.raises(ShardError, match="nowhere"):
        fit(dataclasses.replace(fit_config, data=data), tmp_path / "nodata")
    assert not (tmp_path / "nodata").exists()


def test_a_step_holds_its_whole_batch(fit_config: FitConfig, opened: Opened) -> None:
    pairs, _ = opened
    steps = PlannedSteps(pairs, fit_config.data, 0, 0, 4)
    for number in range(len(steps)):
        step = steps[number]
        assert sum(len(m.keys) for m in step.micro) == fit_config.data.batch_size
        assert all(len(m.batch.gather) <= fit_config.data.token_budget for m in step.micro)
