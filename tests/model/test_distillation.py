"""Few-step distillation: what the teacher teaches, that the student starts as it, that runs go on exactly.

Real shards, tiny random networks, real runs of a few steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.cli import main
from model.config import InferenceConfig, ModelConfig, load_config
from model.data.batch import Example, collate
from model.data.dataset import EditDataset
from model.distillation.config import DistillConfig
from model.distillation.objective import Distillation
from model.distillation.teacher import Teacher, check_teacher
from model.encoders import part
from model.extras.config import ExtrasConfig
from model.inference.checkpoint import save_checkpoint
from model.inference.editor import Editor
from model.inference.lora import LoraConfig
from model.inference.sampler import sample
from model.net.dit import DiT
from model.net.families import build_transformer
from model.net.transformer import Transformer
from model.net.wan_config import WanConfig
from model.sequence.interleave import SequenceConfig
from model.sequence.rope import RopeConfig
from model.training.config import FitConfig, OptimConfig
from model.training.setup import build_datasets, init_model
from model.training.trainer import fit
from shards.errors import ConfigError, SettingError
from shards.serialization import to_dict
from tests.model.test_parallel import rows, run_ranks


def network_of(model: ModelConfig) -> Transformer:
    """Random weights with nothing zero among them."""
    torch.manual_seed(1)
    dit = build_transformer(model.network, model.extras)
    with torch.no_grad():
        for parameter in dit.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return dit.eval()


@pytest.fixture(scope="module")
def pairs(fit_config: FitConfig) -> EditDataset:
    train, _, _ = build_datasets(fit_config, None)
    train.for_teacher = True
    return train


@pytest.fixture(scope="module")
def base(pairs: EditDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An editor's checkpoint, whose defaults are many guided steps."""
    folder = tmp_path_factory.mktemp("base")
    held = InferenceConfig(steps=12, guidance=3.0, solver="midpoint", interval=(0.0, 0.9))
    model = dataclasses.replace(pairs.model, inference=held)
    save_checkpoint(network_of(model), model, folder)
    return folder


@pytest.fixture
def config(fit_config: FitConfig, base: Path) -> FitConfig:
    """A distillation of seconds."""
    return dataclasses.replace(
        fit_config,
        model=ModelConfig(),
        train=dataclasses.replace(fit_config.train, init_from=str(base), validate_loss_every=3),
        distill=DistillConfig(steps=2, teacher_steps=4),
    )


def visits(pairs: EditDataset, config: FitConfig, count: int = 3) -> list[Example]:
    data = dataclasses.replace(config.data, text_drop_prob=0.0)
    return [pairs.example(i, 0, 5, 0, data) for i in range(count)]


def at(examples: list[Example], *places: float) -> list[Example]:
    """The visits at these places of the student's grid."""
    return [dataclasses.replace(e, time=torch.tensor(p)) for e, p in zip(examples, places, strict=True)]


@pytest.mark.parametrize(("guidance", "context"), [(1.0, "full"), (3.0, "full"), (3.0, "cached")])
def test_the_teachers_windows_one_after_the_other_are_its_own_sampling(
    fit_config: FitConfig, pairs: EditDataset, guidance: float, context: Any
) -> None:
    """Packed, each sequence at its own times: the shift depends on the number of a target's tokens."""
    model = dataclasses.replace(
        pairs.model,
        flow=dataclasses.replace(pairs.model.flow, shift=3.0, shift_tokens=40),
        dit=dataclasses.replace(pairs.model.dit, context=context),
    )
    dit, interval = network_of(model), (0.2, 0.6)
    examples = visits(pairs, fit_config)
    assert len({e.size for e in examples}) > 1 or len({len(e.sequence) for e in examples}) > 1
    student = Distillation(
        DistillConfig(steps=3, teacher_steps=12), model, Teacher(dit, model.flow, guidance, interval)
    )
    x = torch.cat([e.noise for e in examples])
    for window in range(3):
        micro = collate(at(examples, *[(window + 0.5) / 3] * 3))
        x = student.teacher.integrate(micro, x, student.windows(micro))
    settings = InferenceConfig(steps=12, guidance=guidance, interval=interval)
    for e, ours in zip(examples, x.split([e.size for e in examples]), strict=True):
        assert e.without_text is not None
        with torch.inference_mode():
            theirs = sample(dit, e.sequence, e.without_text, e.noise, model.flow, settings)
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)


def test_the_branch_without_text_has_the_same_media_and_no_words(
    fit_config: FitConfig, pairs: EditDataset
) -> None:
    for e in visits(pairs, fit_config):
        assert e.without_text is not None
        assert len(e.sequence.text)
        assert not len(e.without_text.text)
        assert torch.equal(e.without_text.vision, e.sequence.vision)
        assert e.without_text.target.size == e.sequence.target.size


@pytest.mark.parametrize("prediction", ["velocity", "x1"])
def test_a_student_is_its_teacher_at_first(
    fit_config: FitConfig, pairs: EditDataset, prediction: Any
) -> None:
    """So nothing is left to learn of a teacher with as many steps and no guidance, and something else is."""
    model = dataclasses.replace(
        pairs.model, flow=dataclasses.replace(pairs.model.flow, prediction=prediction)
    )
    dit = network_of(model)
    micro = collate(at(visits(pairs, fit_config), 0.1, 0.4, 0.9))

    def loss(guidance: float, teacher_steps: int) -> float:
        config = DistillConfig(steps=4, teacher_steps=teacher_steps)
        student = Distillation(config, model, Teacher(dit, model.flow, guidance))
        return student.token_losses(dit, micro).mean().item()

    assert loss(1.0, 4) < 1e-9
    assert loss(3.0, 4) > 1e-4
    assert loss(1.0, 16) > 1e-6


def test_a_student_of_wans_family_is_guided_by_its_prompt(fit_config: FitConfig) -> None:
    layout = SequenceConfig(patch=2, pixel_positions=False, text="cross_attention", first_axis="source")
    network = WanConfig(
        0, 0, width=48, depth=2, heads=2, hidden=96, text_tokens=32, rope=RopeConfig(source=True)
    )
    spec = part("model.net.wan.WanTransformer", **to_dict(network))
    changed = dataclasses.replace(fit_config.model, sequence=layout, transformer=spec, extras=ExtrasConfig())
    pairs, _, model = build_datasets(dataclasses.replace(fit_config, model=changed), None)
    pairs.for_teacher = True
    dit = network_of(model)
    micro = collate(at(visits(pairs, fit_config), 0.1, 0.4, 0.9))
    assert micro.without_text is not None
    assert micro.without_text.prompt is not None
    plain, guided = (
        Distillation(DistillConfig(teacher_steps=4), model, Teacher(dit, model.flow, guidance))
        .token_losses(dit, micro)
        .mean()
        .item()
        for guidance in (1.0, 3.0)
    )
    assert plain < 1e-9
    assert guided > 1e-6


@pytest.mark.parametrize("times", ["start", "within"])
def test_a_student_learns_the_chord_of_the_teachers_path(
    fit_config: FitConfig, pairs: EditDataset, times: Any
) -> None:
    """Against the loss written out for one sequence, whose network is not the teacher's."""
    model = dataclasses.replace(pairs.model, flow=dataclasses.replace(pairs.model.flow, shift=2.0))
    teacher = Teacher(network_of(model), model.flow)
    dit = DiT(model.dit, model.extras)
    torch.nn.init.normal_(dit.out.weight, std=0.1)
    micro = collate(at(visits(pairs, fit_config, 1), 0.65))
    student = Distillation(DistillConfig(steps=2, teacher_steps=6, times=times), model, teacher)
    ours = student.token_losses(dit, micro)

    t0, t1 = 1 / 3, 1.0  # halfway, shifted by 2 towards noise
    share = 0.3 if times == "within" else 0.0
    t = t0 + share * (t1 - t0)
    clean = micro.batch.vision[micro.batch.target_vision]
    start = t0 * clean + (1 - t0) * micro.noise
    end = teacher.integrate(micro, start, student.windows(micro))
    x = start + share * (end - start)
    moments = torch.ones(micro.batch.segments)
    moments[micro.batch.target_segment] = t
    vision = micro.batch.vision.index_copy(0, micro.batch.target_vision, x)
    (made,) = dit(micro.batch, vision, moments)
    wanted = x + (1 - t) * (end - start) / (t1 - t0)  # the data that a straight line leads to
    error = (made - wanted) / max(1 - t, model.flow.min_remaining)
    torch.testing.assert_close(ours, micro.weight * error.square().mean(1), atol=1e-5, rtol=1e-3)


def test_the_students_defaults_are_its_few_steps_without_guidance(config: FitConfig) -> None:
    assert init_model(config).inference == InferenceConfig(steps=2, guidance=1.0, solver="euler")


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not_and_edits_in_its_few_steps(
    config: FitConfig, tmp_path: Path, power_cut: Callable[[FitConfig, Path, int], None]
) -> None:
    """With an adapter, which is merged in the end."""
    config = dataclasses.replace(config, lora=LoraConfig(rank=2))
    fit(config, tmp_path / "whole")
    power_cut(config, tmp_path / "cut", 3)
    assert fit(config, tmp_path / "cut")["resumed_at"] == 2
    curves = [(tmp_path / name / "curve.csv").read_bytes() for name in ("whole", "cut")]
    assert curves[0] == curves[1]
    assert sum(bool(row["heldout/loss"]) for row in rows(tmp_path / "whole")) == 2
    weights = [load_file(tmp_path / n / "checkpoint" / "model.safetensors") for n in ("whole", "cut")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())

    calls: list[int] = []
    student = Editor.from_pretrained(tmp_path / "whole")
    student.dit.register_forward_pre_hook(lambda *_: calls.append(1))
    student("<video1> Remove the disc. <video2>", video1=np.zeros((5, 48, 64, 3), np.uint8))
    assert len(calls) == 2


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(config: FitConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, batch_size=4),
        optim=OptimConfig(lr=3e-3, final_lr=1e-3, warmup=2, ema=0.0),
        train=dataclasses.replace(config.train, threads=1, validate_every=100),
    )
    fit(config, tmp_path / "one")
    run_ranks(config, tmp_path / "two", 2)
    compared = list(zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True))
    assert len(compared) == config.train.steps
    for ours, theirs in compared:
        for name in ("loss", "heldout/loss") if ours["heldout/loss"] else ("loss",):
            assert float(theirs[name]) == pytest.approx(float(ours[name]), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": 0}, "distill.steps"),
        ({"teacher_steps": 10}, "distill.teacher_steps: 10 is no multiple of distill.steps 4"),
        ({"guidance": float("nan")}, "distill.guidance"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        DistillConfig(**settings)


def test_a_teacher_of_other_tokens_is_refused(config: FitConfig, base: Path, tmp_path: Path) -> None:
    held = load_config(base / "config.json")
    with pytest.raises(ConfigError, match=r"name a checkpoint in train\.init_from"):
        check_teacher(DistillConfig(), None, held)
    others = {
        "vae": dataclasses.replace(held, vae=part("model.encoders.transform.TransformCodec", keep=[[2, 0]])),
        "vision_dim": held.with_network(dataclasses.replace(held.dit, vision_dim=held.dit.vision_dim + 1)),
    }
    for name, model in others.items():
        save_checkpoint(DiT(model.dit, model.extras), model, tmp_path / name)
        distill = DistillConfig(teacher=str(tmp_path / name))
        with pytest.raises(ConfigError, match=rf"distill\.teacher.*{name}"):
            fit(dataclasses.replace(config, distill=distill), tmp_path / "run")
    deeper = held.with_network(dataclasses.replace(held.dit, depth=2))
    save_checkpoint(DiT(deeper.dit, deeper.extras), deeper, tmp_path / "deeper")
    check_teacher(DistillConfig(teacher=str(tmp_path / "deeper")), str(base), held)  # same tokens
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "train.init_from"),
        (["--train.init_from", "nano", "--data.shards", "[nowhere]"], "nowhere"),
    ],
)
def test_the_command_ends_with_one_line(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", "--run", str(tmp_path / "run"), *words]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
