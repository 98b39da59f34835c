"""One optimizer step of a real trainer: what it weighs, clips, accumulates and averages.

Random sequences of different lengths and a tiny network; nothing is read or encoded.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from model.config import ModelConfig
from model.data.batch import Example, Groups, StepBatch, collate
from model.extras.config import ExtrasConfig
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.interleave import TokenSequence
from model.training.config import OptimConfig
from model.training.module import DivergedError, EditModule, micro_loss, token_shares


@pytest.fixture
def steps(make_sequence: Callable[..., TokenSequence]) -> list[StepBatch]:
    """Five steps of three samples whose targets have 6, 12 and 18 tokens, in two micro-batches."""

    def example(step: int, number: int) -> Example:
        seed = 10 * step + number
        sequence = make_sequence(seed, frames=number + 1)
        tokens = 6 * (number + 1)
        random = torch.Generator().manual_seed(seed)
        noise = torch.randn(tokens, sequence.vision.shape[1], generator=random)
        time = torch.rand((), generator=random)
        return Example(f"sample{seed}", "edit", sequence, noise, time, torch.ones(tokens), tokens)

    made = [[example(step, number) for number in range(3)] for step in range(5)]
    return [StepBatch(n, (collate(e[:1]), collate(e[1:])), 3) for n, e in enumerate(made)]


@pytest.fixture
def module_of(dit_config: DiTConfig, trained_like: DiT) -> Callable[..., EditModule]:
    """A module of five steps with the same weights each time; arguments are the optimizer's settings."""

    def make(**optim: Any) -> EditModule:
        config = OptimConfig(**{"lr": 1e-2, "warmup": 2, **optim})
        return EditModule(ModelConfig(dit=dit_config), config, 5, copy.deepcopy(trained_like).train())

    return make


class Record(Callback):
    """What is seen after each step."""

    def __init__(self) -> None:
        self.weights: list[list[torch.Tensor]] = []
        self.gradients: list[list[torch.Tensor]] = []
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        self.weights.append([p.detach().clone() for p in module.dit.parameters()])
        self.gradients.append([p.grad.clone() for p in module.dit.parameters()])
        self.rows.append(module.metrics)

    def norms(self) -> list[float]:
        """Of the gradients that the optimizer saw."""
        return [float(torch.cat([g.flatten() for g in step]).norm()) for step in self.gradients]


def train(module: EditModule, steps: list[StepBatch], *others: Callback) -> Record:
    """Take the steps with Lightning's trainer."""
    record = Record()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[*others, record],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(steps, batch_size=None))
    assert module.done == len(steps)
    return record


@pytest.mark.parametrize("decay", [0.9, 0.3, 0.0])
def test_the_average_follows_the_weights_by_its_decay(
    module_of: Callable[..., EditModule], steps: list[StepBatch], decay: float
) -> None:
    module = module_of(ema=decay)
    wanted = [p.detach().clone() for p in module.ema.parameters()]
    record = train(module, steps)
    for n, weights in enumerate(record.weights, 1):
        keep = min(decay, (1 + n) / (10 + n))  # a young average forgets the start sooner
        wanted = [keep * a + (1 - keep) * w for a, w in zip(wanted, weights, strict=True)]
    saved = list(module.averaged_weights().values())  # what becomes the checkpoint
    for average, known in zip(saved, wanted, strict=True):
        torch.testing.assert_close(average, known, atol=1e-6, rtol=1e-5)
    gaps = [(a - w).abs().max() for a, w in zip(saved, record.weights[-1], strict=True)]
    assert (max(gaps) > 1e-3) == (decay > 0)


@pytest.mark.parametrize("clip", [0.05, 0.0])
def test_gradients_are_clipped_after_warm_up_alone(
    module_of: Callable[..., EditModule], steps: list[StepBatch], clip: float
) -> None:
    record = train(module_of(clip=clip, warmup=2), steps)
    for step, (norm, row) in enumerate(zip(record.norms(), record.rows, strict=True)):
        assert row["grad_norm"] > 0.1  # before clipping
        bounded = clip if clip and step >= 2 else row["grad_norm"]
        assert norm == pytest.approx(bounded, rel=1e-3)


def broken(step: StepBatch) -> StepBatch:
    """A step of which one sample's noise is not finite."""
    first, *others = step.micro
    noise = first.noise.clone()
    noise[0, 0] = torch.nan
    return dataclasses.replace(step, micro=(dataclasses.replace(first, noise=noise), *others))


def test_a_step_that_is_not_finite_updates_nothing(
    module_of: Callable[..., EditModule], steps: list[StepBatch], caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and its samples are named; the next one goes on from the weights before it."""
    module = module_of()
    record = train(module, [steps[0], broken(steps[1]), *steps[2:]])
    for before, after in zip(record.weights[0], record.weights[1], strict=True):
        assert torch.equal(before, after)
    assert not all(map(torch.equal, record.weights[1], record.weights[2]))
    assert all(torch.isfinite(w).all() for w in record.weights[-1])
    assert all(torch.isfinite(w).all() for w in module.ema.parameters())
    assert [row.get("skipped", 0.0) for row in record.rows] == [0, 1, 1, 1, 1]
    assert "step 1: skipped, its gradient is not finite" in caplog.text
    assert "sample10, sample11, sample12" in caplog.text


def test_as_many_in_a_row_end_the_run(module_of: Callable[..., EditModule], steps: list[StepBatch]) -> None:
    """A step between them that is finite begins the count anew."""
    bad = [broken(step) for step in steps]
    with pytest.raises(DivergedError, match=r"step 4: the gradient is not finite .* the 2\. time in a row"):
        train(module_of(max_skipped=2), [steps[0], bad[1], steps[2], bad[3], bad[4]])


READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")


class Reads(Callback):
    """How often the host asks for a tensor's numbers in each step; on a GPU it waits for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch, self.counts = monkeypatch, list[int]()

    def on_train_batch_start(self, *_: Any) -> None:
        self.counts.append(0)
        for name in READS:
            self.patch.setattr(torch.Tensor, name, self.counted(getattr(torch.Tensor, name)))

    def on_train_batch_end(self, *_: Any) -> None:
        self.patch.undo()

    def counted(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            self.counts[-1] += 1
            return read(*arguments, **keywords)

        return run


@pytest.mark.parametrize("average", ["sample", "token"])
@pytest.mark.parametrize("context", ["full", "cached", "copied"])
def test_a_step_asks_the_device_once(
    dit_config: DiTConfig,
    steps: list[StepBatch],
    monkeypatch: pytest.MonkeyPatch,
    average: Literal["sample", "token"],
    context: Literal["full", "cached", "copied"],
) -> None:
    """Whatever the number of its micro-batches, and of its layers."""
    doubled = dataclasses.replace(steps[1], micro=steps[1].micro * 2)
    model = ModelConfig(dit=dit_config)
    if context == "copied":
        model = dataclasses.replace(model, extras=ExtrasConfig(copy_bias=(4.0, 4.0, 4.0, 4.0)))
    else:
        model = dataclasses.replace(model, dit=dataclasses.replace(dit_config, context=context))
    module = EditModule(model, OptimConfig(warmup=1, loss_reduction=average), 3)
    module.groups = Groups(("edit",))
    reads = Reads(monkeypatch)
    train(module, [steps[0], doubled, steps[2]], reads)
    assert reads.counts == [1, 1, 1]


@pytest.mark.parametrize("average", ["sample", "token"])
def test_shares_count_samples_or_tokens_alike(
    steps: list[StepBatch], average: Literal["sample", "token"]
) -> None:
    batch = steps[0]
    shares = torch.cat(token_shares(batch, average))
    first, second = batch.micro
    samples = torch.cat([first.batch.target_sequence, 1 + second.batch.target_sequence])
    assert samples.bincount().tolist() == [6, 12, 18]
    by_sample = torch.zeros(3).index_add(0, samples, shares)
    wanted = [1 / 3] * 3 if average == "sample" else [6 / 36, 12 / 36, 18 / 36]
    torch.testing.assert_close(by_sample, torch.tensor(wanted))


@pytest.mark.parametrize("average", ["sample", "token"])
def test_a_step_has_the_gradient_of_its_whole_batch(
    module_of: Callable[..., EditModule], steps: list[StepBatch], average: Literal["sample", "token"]
) -> None:
    """However many micro-batches it has, and whatever the steps before it were."""
    module = module_of(lr=0.0, final_lr=0.0, clip=0.0, loss_reduction=average)  # the weights stay
    record = train(module, steps[:2])
    other = module_of()
    for step, gradients in zip(steps[:2], record.gradients, strict=True):
        other.dit.zero_grad()
        losses = [micro_loss(other.dit, micro, other.config) for micro in step.micro]
        sizes = [6, 12, 18]
        samples = torch.cat(losses).split(sizes)
        means = [loss.mean() for loss in samples]
        total = sum(means) / 3 if average == "sample" else torch.cat(losses).mean()
        total.backward()  # type: ignore[union-attr]
        for ours, theirs in zip(gradients, other.dit.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs.grad, atol=1e-6, rtol=1e-4)


def test_in_training_the_context_is_clean(
    module_of: Callable[..., EditModule], steps: list[StepBatch]
) -> None:
    """It is given as it is, with t = 1; the target is mixed with noise, with its own t."""
    module, micro = module_of(), steps[0].micro[1]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    module.dit.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1:3]))
    micro_loss(module.dit, micro, module.config)
    ((vision, timestep),) = seen
    batch = micro.batch
    assert timestep[batch.target_segment].tolist() == micro.time.tolist()
    clean = torch.ones(batch.segments, dtype=torch.bool)
    clean[batch.target_segment] = False
    assert clean.sum() > 2
    assert (timestep[clean] == 1).all()
    same = (vision == batch.vision).all(1)
    assert same.nonzero().flatten().tolist() == sorted(
        set(range(len(vision))) - set(batch.target_vision.tolist())
    )
    t = micro.time[batch.target_sequence, None]
    mixed = t * batch.vision[batch.target_vision] + (1 - t) * micro.noise
    torch.testing.assert_close(vision[batch.target_vision], mixed)
