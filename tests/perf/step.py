"""A packed training step beside bare matrix products in the same process: what share of the peak it reaches.

Four random sequences of different lengths through two blocks of width 512, by the trainer's own module:
forward, backward, norm, AdamW and average. On a GPU: some 32,000 tokens through four blocks as wide as `2b`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from model.config import ModelConfig
from model.data.batch import Example, StepBatch, collate
from model.net.config import DiTConfig
from model.planner.cost import by_formula
from model.sequence.interleave import SequenceConfig, TextElement, VisionElement, build_sequence
from model.training.config import OptimConfig
from model.training.module import EditModule
from tests.perf.measure import Figure

SMALL = DiTConfig(width=512, depth=2, heads=4, hidden=2048, text_dim=384, vision_dim=64)
LARGE = DiTConfig(width=2048, depth=4, heads=16, hidden=8192, text_dim=4096, vision_dim=64)
FRAMES = {"cpu": ((8, 12), (8, 12), (8, 12), (8, 20)), "cuda": ((160, 25), (160, 25), (160, 50))}
SHAPES = ((2048, 512, 2048), (2048, 2048, 512), (1024, 1024, 1024))  # of the bare products


def example(config: DiTConfig, seed: int, rows: int, columns: int) -> Example:
    """A source and a target of two latent frames each, and twenty words."""
    random = torch.Generator().manual_seed(seed)
    clips = (torch.randn(2, 2 * rows, 2 * columns, 16, generator=random) for _ in range(2))
    source, target = (
        VisionElement(name, clip) for name, clip in zip(("video1", "video2"), clips, strict=True)
    )
    target = VisionElement(target.name, target.latents, target=True)
    words = TextElement(torch.randn(20, config.text_dim, generator=random))
    sequence = build_sequence([source, words, target], SequenceConfig(patch=2))
    tokens = 2 * rows * columns
    noise = torch.randn(tokens, config.vision_dim, generator=random)
    time_ = torch.rand((), generator=random)
    return Example(f"sample{seed}", "edit", sequence, noise, time_, torch.ones(tokens), tokens)


def peak(device: str, dtype: torch.dtype) -> float:
    """Operations per second of the fastest of three matrix products, each the best of five runs."""
    best = 0.0
    scale = 1 if device == "cpu" else 8
    for rows, inner, columns in SHAPES:
        a = torch.randn(scale * rows, inner, device=device, dtype=dtype)
        b = torch.randn(inner, scale * columns, device=device, dtype=dtype)
        for _ in range(6):
            begin = now(device)
            a @ b
            best = max(best, 2 * a.numel() * b.shape[1] / (now(device) - begin))
    return best


def now(device: str) -> float:
    """Seconds, once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(L.Callback):
    """Seconds of every step, the device's work included; the last one under the profiler."""

    def __init__(self, device: str, steps: int) -> None:
        self.device, self.steps, self.seconds = device, steps, list[float]()
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
        self.profiler = profile(activities=activities)

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, index: int) -> None:
        if index == self.steps - 1:
            self.profiler.start()
        self._begin = now(self.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if index == self.steps - 1:
            self.profiler.stop()
        else:
            self.seconds.append(now(self.device) - self._begin)


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """One figure per precision, and the ten operations that take most of a step."""
    config = SMALL if device == "cpu" else LARGE
    examples = [example(config, n, *size) for n, size in enumerate(FRAMES[device])]
    step = StepBatch(0, (collate(examples),), len(examples))
    arithmetic = float(by_formula(config).of([len(e.sequence) for e in examples]).sum())
    figures = []
    for precision, dtype in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        before = peak(device, dtype)
        clock = Clock(device, 3 if quick else 12)
        module = EditModule(ModelConfig(dit=config), OptimConfig(warmup=0), 100)
        trainer = L.Trainer(
            accelerator=device,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=1,
            logger=False,
            callbacks=[clock],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader([step] * clock.steps, batch_size=None))
        able = max(before, peak(device, dtype))
        best = min(clock.seconds)
        tokens = sum(len(e.sequence) for e in examples)
        figures.append(
            Figure(
                f"training step, {precision}, {tokens} tokens, {config.depth} blocks of {config.width}",
                1000 * sorted(clock.seconds)[len(clock.seconds) // 2],
                1000 * best,
                "ms/step",
                f"{arithmetic / best / able:.1%} of {able / 1e9:,.0f} GFLOP/s of bare products",
            )
        )
        figures += profiled(clock.profiler, precision, device)
    return figures


def profiled(profiler: profile, precision: str, device: str) -> list[Figure]:
    """The ten operations that take most time themselves, with their share and number of calls."""
    name = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    rows = sorted(profiler.key_averages(), key=lambda row: -float(getattr(row, name)))
    total = sum(float(getattr(row, name)) for row in rows)
    return [
        Figure(
            f"  {precision}: {row.key}",
            float(getattr(row, name)) / 1000,
            None,
            "ms/step",
            f"{float(getattr(row, name)) / total:.1%}, {row.count} calls",
        )
        for row in rows[:10]
    ]
