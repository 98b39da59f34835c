"""On a CUDA device: backends agree in bf16, a training step runs, an edit is the CPU's.

Deselected by default; `make gpu` runs them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from model import Editor
from model.net.attention import attention
from model.net.dit import DiT
from model.training.config import FitConfig
from model.training.dataloader import PlannedSteps
from model.training.module import EditModule, micro_loss, token_shares
from model.training.setup import build_datasets
from model.training.workers import loader
from tests.model.test_bases import tiny_pipeline, tiny_transformer

pytestmark = pytest.mark.gpu


def test_backends_agree_on_cuda() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(700, heads, 64, device="cuda", dtype=torch.bfloat16) for heads in (8, 4, 4))
    bounds = torch.tensor([0, 100, 101, 700], dtype=torch.int32, device="cuda")
    exact = attention(q.float(), k.float(), v.float(), bounds, 599, "sdpa")
    names = ["sdpa", "matmul", "varlen"] + ["flash"] * bool(importlib.util.find_spec("flash_attn"))
    for name in names:
        out = attention(q, k, v, bounds, 599, name)  # type: ignore[arg-type]
        torch.testing.assert_close(out.float(), exact, atol=2e-2, rtol=0)


def test_fewer_queries_than_keys_on_cuda() -> None:
    torch.manual_seed(0)
    q = torch.randn(120, 8, 64, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(700, 4, 64, device="cuda", dtype=torch.bfloat16) for _ in "kv")
    queries, keys = (
        torch.tensor(bounds, dtype=torch.int32, device="cuda")
        for bounds in ([0, 20, 20, 120], [0, 100, 101, 700])
    )
    bounds: dict[str, Any] = {"cu_seqlens_k": keys, "max_seqlen_k": 599}
    exact = attention(q.float(), k.float(), v.float(), queries, 100, "sdpa", **bounds)
    names = ["sdpa", "matmul", "varlen"] + ["flash"] * bool(importlib.util.find_spec("flash_attn"))
    for name in names:
        out = attention(q, k, v, queries, 100, name, **bounds)  # type: ignore[arg-type]
        torch.testing.assert_close(out.float(), exact, atol=2e-2, rtol=0)
    with pytest.raises(ValueError, match="use_deterministic_algorithms"):
        attention(q, k, v, queries, 100, "varlen", deterministic=True, **bounds)


@pytest.mark.parametrize("context", ["full", "cached"])
def test_an_edit_on_cuda_is_the_cpu_s(fit_config: FitConfig, tmp_path: Path, context: str) -> None:
    pairs, _, model = build_datasets(fit_config, tmp_path / "run")
    dit_config = dataclasses.replace(model.dit, depth=2, context=context)
    config = dataclasses.replace(model, dit=dit_config)
    torch.manual_seed(0)
    dit = DiT(dit_config)
    dit.out.weight.data.normal_(std=0.2)
    Editor(dit, config).save_pretrained(tmp_path / "checkpoint")
    video = pairs.pixels(pairs.record(0), "video1")
    edits = [
        Editor.from_pretrained(tmp_path / "checkpoint", device, dtype)(
            "<video1> Remove the disc.", video1=video, guidance=2.0, carry=False
        ).frames.astype(int)
        for device, dtype in (("cpu", None), ("cuda", None), ("cuda", "bfloat16"))
    ]
    assert np.abs(edits[1] - edits[0]).max() <= 2
    assert np.abs(edits[2] - edits[0]).mean() < 4


def test_a_training_step_on_cuda(fit_config: FitConfig, tmp_path: Path) -> None:
    pairs, _, model = build_datasets(fit_config, tmp_path / "run")
    step = PlannedSteps(pairs, fit_config.data, 0, 0, 1)[0]
    torch.manual_seed(0)
    module = EditModule(model, fit_config.optim, 1)
    losses = []
    for device in ("cpu", "cuda"):
        module.to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            moved = step.to(device)
            parts = zip(moved.micro, token_shares(moved, "sample"), strict=True)
            loss = torch.stack([(s * micro_loss(module.dit, m, model)).sum() for m, s in parts]).sum()
        loss.backward()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.dit.parameters())


def test_a_run_on_cuda_asks_the_device_once_a_step(fit_config: FitConfig, tmp_path: Path) -> None:
    """PyTorch's own count of calls that wait for the device, with steps that are pinned and copied ahead."""
    pairs, _, model = build_datasets(fit_config, tmp_path / "run")
    data = dataclasses.replace(fit_config.data, workers=1)
    module = EditModule(model, fit_config.optim, 6)
    module.groups = pairs.groups
    waits = []

    class Watch(Callback):
        def on_train_batch_start(self, *_: object) -> None:
            torch.cuda.set_sync_debug_mode("warn")
            self.caught = warnings.catch_warnings(record=True)
            self.seen = self.caught.__enter__()
            warnings.simplefilter("always")

        def on_train_batch_end(self, *_: object) -> None:
            self.caught.__exit__(None, None, None)
            torch.cuda.set_sync_debug_mode("default")
            waits.append(sum("synchronizing CUDA operation" in str(w.message) for w in self.seen))

    trainer = L.Trainer(
        accelerator="cuda",
        devices=1,
        max_epochs=1,
        precision="bf16-mixed",
        logger=False,
        callbacks=[Watch()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(PlannedSteps(pairs, data, 0, 0, 6), torch.device("cuda")))
    assert waits[1:] == [1] * 5  # the first step sets up what later ones have


def test_offloading_on_cuda_changes_nothing_and_leaves_the_card(tmp_path: Path) -> None:
    """Two experts: weights come and go in the middle of a sampling."""
    made = tiny_pipeline(transformer_2=tiny_transformer(16, "second"), boundary_ratio=0.875)
    made.save_pretrained(tmp_path)
    frames = []
    for offload in (False, True):
        editor = Editor.from_pretrained(tmp_path, "cuda", "float32", offload=offload)
        options: dict[str, Any] = {"frames": 5, "size": "model", "steps": 6}
        frames += [editor("A red ball. <video1>", **options).frames for _ in range(2)]
        devices = {weight.device.type for weight in editor.dit.parameters()}
        assert devices == ({"cpu"} if offload else {"cuda"})
    assert all(np.array_equal(frames[0], other) for other in frames[1:])
