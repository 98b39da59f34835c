"""Memory that is planned for a training step, against what PyTorch's allocator hands out on the CPU."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pytest
import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from model.config import ModelConfig
from model.data.batch import Example, MicroBatch, StepBatch, collate
from model.encoders import part
from model.inference.lora import LoraConfig, add_adapter
from model.net.activation_checkpointing import Checkpointing, prepare_blocks
from model.net.config import DiTConfig
from model.net.families import build_transformer
from model.net.frozen_linear import BaseDtype
from model.net.wan_config import WanConfig
from model.planner.allocations import layout_of, step_allocations, texts_for, weight_bytes
from model.planner.memory import Savings, memory_of
from model.sequence.interleave import Element, VisionElement, build_sequence
from model.sequence.rope import RopeConfig
from model.training.config import OptimConfig, ParallelConfig
from model.training.module import EditModule
from shards.serialization import to_dict

WAN = WanConfig(text_dim=64, vision_dim=64, width=256, depth=4, heads=4, hidden=1024, attention="sdpa")
WORDS = dataclasses.replace(WAN, words=True)
DIT = DiTConfig(text_dim=64, vision_dim=64, width=256, depth=4, heads=4, kv_heads=2, attention="sdpa")
SIDE = 24  # latents of a frame: 144 tokens
OFFLOADS: tuple[Literal["none", "activations", "optimizer"], ...] = ("none", "activations", "optimizer")
ADAPTER = r"blocks\.\d+\.(attn1\.to_[qkv]|attention\.[qkv])"


def model_of(config: DiTConfig | WanConfig) -> ModelConfig:
    if isinstance(config, DiTConfig):
        return ModelConfig(dit=config)
    return ModelConfig(
        transformer=part("model.net.wan.WanTransformer", **to_dict(config)),
        sequence=dataclasses.replace(layout_of(config), patch=2, pixel_positions=False),
    )


def sized(config: DiTConfig | WanConfig, width: int, depth: int) -> DiTConfig | WanConfig:
    return dataclasses.replace(config, width=width, hidden=4 * width, depth=depth, rope=RopeConfig())


def micro_batch(model: ModelConfig, frames: int) -> MicroBatch:
    """A source, twenty words and a target."""
    config = model.network
    source, target = (torch.randn(frames, SIDE, SIDE, config.vision_dim // 4) for _ in range(2))
    elements: list[Element] = [
        VisionElement("video1", source),
        *texts_for(model.sequence, torch.randn(20, config.text_dim)),
        VisionElement("video2", target, target=True),
    ]
    sequence = build_sequence(elements, model.sequence, 8)
    size = frames * (SIDE // 2) ** 2
    noise = torch.randn(size, config.vision_dim)
    return collate([Example("0", "edit", sequence, noise, torch.tensor(0.5), torch.ones(size), size)])


def measured(
    config: DiTConfig | WanConfig,
    frames: int,
    checkpointing: Checkpointing,
    mixed: bool,
    micro: int,
    lora: LoraConfig | None = None,
    savings: Savings | None = None,
) -> tuple[int, int]:
    """Tokens of a micro-batch, and the most bytes that the CPU's allocator had handed out at a time.

    From nothing to the end of two steps; what an adapter stands beside is there before. With `savings` in a
    group of this rank alone, which gathers weights and reduces gradients as several do.
    """
    optim = OptimConfig() if savings is None else OptimConfig(method=savings.method)
    model = model_of(config)
    batches = [micro_batch(model, frames) for _ in range(micro)]
    steps = [StepBatch(n, tuple(batches), micro) for n in range(2)]
    dit = None
    if lora is not None:
        dit = build_transformer(model.network)
        add_adapter(dit, lora)
    gc.collect()  # of what was before it was kept in fewer bits
    there = 0 if dit is None else sum(p.numel() * p.element_size() for p in dit.parameters())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        module = EditModule(model, optim, 2, dit)
        prepare_blocks(module.dit, checkpointing, compiled=False)
        if savings is not None and dist.is_initialized():
            module.shard(ParallelConfig(gather=savings.gather, reshard=savings.reshard), "cpu")
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", precision="bf16-mixed" if mixed else "32-true", barebones=True
        )
        trainer.fit(module, DataLoader(steps, batch_size=None))  # type: ignore[arg-type]
    events: Any = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    sizes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    now = peak = there
    for _, size in sorted(sizes, key=lambda e: e[0]):
        now += size
        peak = max(peak, now)
    return len(batches[0].batch.gather), peak


def compare(
    config: DiTConfig | WanConfig,
    frames: int,
    checkpointing: Checkpointing,
    mixed: bool,
    micro: int,
    lora: LoraConfig | None = None,
) -> None:
    tokens, peak = measured(config, frames, checkpointing, mixed, micro, lora)
    planned = memory_of(config, 1, tokens, checkpointing, lora=lora, mixed=mixed, accumulated=micro > 1).total
    assert planned == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize(
    ("config", "checkpointing", "mixed"),
    [
        (WAN, "none", False),
        (DIT, "full", True),
        pytest.param(WORDS, "selective", True, marks=pytest.mark.slow),  # 5 s
    ],
)
def test_a_step_takes_what_is_planned(
    config: DiTConfig | WanConfig, checkpointing: Checkpointing, mixed: bool
) -> None:
    """Two steps by Lightning's trainer: weights, average, gradients, moments and activations."""
    compare(sized(config, 128, 3), 1, checkpointing, mixed, 2)


@pytest.mark.parametrize(
    "savings",
    [
        Savings(),
        *(
            pytest.param(savings, marks=pytest.mark.slow)
            for savings in (Savings(gather="bfloat16"), Savings(gather="bfloat16", reshard=True))
        ),
    ],
)
def test_gathered_weights_take_what_is_planned(savings: Savings, tmp_path: Path) -> None:
    """Two ranks' shards are on this one."""
    config = sized(WAN, 256, 4 if savings.reshard else 2)  # of few blocks the others' part shows
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        tokens, peak = measured(config, 1, "full", True, 2, savings=savings)
    finally:
        dist.destroy_process_group()
    planned = memory_of(config, 2, tokens, "full", savings=savings)
    assert 2 * planned.state + planned.gathered + planned.activations == pytest.approx(peak, rel=0.1)


def test_moments_in_8_bits_take_what_is_planned() -> None:
    config, savings = sized(WAN, 256, 2), Savings(method="adamw8bit")
    tokens, peak = measured(config, 1, "full", True, 2, savings=savings)
    planned = memory_of(config, 1, tokens, "full", savings=savings).total
    assert planned == pytest.approx(peak, rel=0.1)
    assert planned < 0.8 * memory_of(config, 1, tokens, "full").total


@pytest.mark.parametrize("base", ["nf4", *(pytest.param(b, marks=pytest.mark.slow) for b in ("int8",))])
def test_an_adapter_beside_fewer_bits_takes_what_is_planned(base: BaseDtype) -> None:
    compare(sized(WAN, 256, 2), 1, "full", True, 1, LoraConfig(rank=8, layers=ADAPTER, base=base))


def test_what_waits_on_the_cpu_is_not_on_the_device() -> None:
    """It cannot be measured on a CPU: bytes by hand."""
    config = sized(WAN, 256, 4)
    whole, inputs, moments = (
        memory_of(config, 4, 1000, "full", savings=Savings(offload=offload)) for offload in OFFLOADS
    )
    assert whole.activations - inputs.activations == 3 * 1000 * 256 * 4
    assert inputs.state == whole.state
    assert moments.activations == whole.activations
    trained = weight_bytes(config)
    size = trained.trained_blocks + trained.trained_others
    chunk = max(trained.trained_largest, trained.trained_others)
    assert whole.state - moments.state == pytest.approx(2 * (size - chunk) / 4)


def test_an_adapter_s_step_takes_what_is_planned() -> None:
    """The frozen weights are there once: they have no average, gradients and moments."""
    compare(sized(WAN, 256, 2), 1, "full", False, 1, LoraConfig(rank=8, layers=ADAPTER))


@pytest.mark.slow
@pytest.mark.parametrize("config", [WAN, DIT])
def test_a_longer_adapter_s_step_takes_what_is_planned(config: DiTConfig | WanConfig) -> None:
    compare(sized(config, 256, 4), 8, "none", True, 1, LoraConfig(rank=8, layers=ADAPTER))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "checkpointing", "mixed", "micro"),
    [(WAN, "none", True, 2), (DIT, "selective", True, 1), (WORDS, "full", False, 2)],
)
def test_a_longer_step_takes_what_is_planned(
    config: DiTConfig | WanConfig, checkpointing: Checkpointing, mixed: bool, micro: int
) -> None:
    """Every setting once; the others were measured by hand, see docs/bases.md."""
    compare(config, 8, checkpointing, mixed, micro)


def test_a_deep_transformer_is_planned_from_a_shallow_one() -> None:
    """Of an adapter, too, whose first block computes fewer gradients than the others."""
    config, lora = sized(WAN, 64, 6), LoraConfig(layers=ADAPTER)
    step = step_allocations(config, 500, "full", lora=lora)
    planned = memory_of(config, 1, 500, "full", lora=lora).total
    assert planned == pytest.approx(step.peak + 3 * step.trained, rel=1e-3)


def test_more_that_is_computed_again_and_more_ranks_take_less() -> None:
    config = sized(WAN, 64, 2)
    modes: tuple[Checkpointing, ...] = ("full", "selective", "none")
    estimates = [memory_of(config, 8, 1000, mode).total for mode in modes]
    assert estimates == sorted(estimates)
    assert memory_of(config, 64, 1000, "full").total < estimates[0]
