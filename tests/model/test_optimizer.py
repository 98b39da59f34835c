"""Which weights are decayed, and with which momentum they are moved."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from model.net.config import DiTConfig
from model.net.dit import DiT
from model.training.config import OptimConfig
from model.training.optimizer import optimizer_of


def test_only_matrices_are_decayed(dit_config: DiTConfig) -> None:
    torch.manual_seed(0)
    dit = DiT(dataclasses.replace(dit_config, qkv_bias=True))
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.fill_(2.0)
    optimizer = optimizer_of(dit.named_parameters(), OptimConfig(lr=0.1, weight_decay=0.5))
    for parameter in dit.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # without a gradient nothing but decay moves a weight
    shrunk = {name for name, p in dit.named_parameters() if p.detach().flatten()[0] != 2.0}
    matrices = {f"{name}.weight" for name, module in dit.named_modules() if isinstance(module, nn.Linear)}
    assert shrunk == matrices
    assert float(dit.out.weight[0, 0]) == pytest.approx(2 * (1 - 0.1 * 0.5))


def test_two_steps_of_adam_by_hand() -> None:
    """m and v are moving averages with the first and the second of the betas."""
    weight = nn.Parameter(torch.zeros(1, 1))
    config = OptimConfig(lr=0.1, betas=(0.8, 0.99), weight_decay=0.0)
    optimizer = optimizer_of([("blocks.0.q.weight", weight)], config)
    m = v = value = 0.0
    for step, gradient in enumerate((1.0, -3.0), 1):
        weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        m, v = 0.8 * m + 0.2 * gradient, 0.99 * v + 0.01 * gradient**2
        value -= 0.1 * (m / (1 - 0.8**step)) / (v / (1 - 0.99**step)) ** 0.5
        assert weight.item() == pytest.approx(value, rel=1e-5)
