"""On a CUDA device: backends agree in bf16, and a training step runs.

Deselected by default; `make gpu` runs them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from model.attention import attention
from model.data import Steps
from model.lit import EditModule, micro_loss, token_shares
from model.settings import FitConfig
from model.train import open_data

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


def test_a_training_step_on_cuda(fit_config: FitConfig, tmp_path: Path) -> None:
    pairs, _, model = open_data(fit_config, tmp_path / "run")
    step = Steps(pairs, fit_config.data, 0, 0, 1)[0]
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
