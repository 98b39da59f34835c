"""An adapter beside weights in fewer bits: what they are, their gradients, what is kept of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from model.inference.lora import LoraConfig, add_adapter
from model.net.dit import DiT
from model.net.frozen_linear import FrozenLinear, StoredDtype, count_weights
from model.sequence.interleave import TokenSequence
from model.sequence.packing import pack
from shards.errors import SettingError

# relative error of a layer's output and of its input's gradient; measured: 0.0015, 0.0039, 0.024, 0.090
ROUNDING = {"bfloat16": 0.003, "int8": 0.006, "fp8": 0.035, "nf4": 0.12}
KINDS: tuple[StoredDtype, ...] = ("bfloat16", "int8", "nf4")


def relative(value: torch.Tensor, other: torch.Tensor) -> float:
    return float((value - other).norm() / other.norm())


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(256, 512).requires_grad_(False)


@pytest.mark.parametrize("kind", [*KINDS, "fp8"])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_frozen_layer_is_near_the_layer(layer: nn.Linear, kind: StoredDtype, mixed: bool) -> None:
    """Also backward; between the two no weight is kept but the codes themselves."""
    frozen = FrozenLinear(layer, kind)
    inputs, outputs, kept = torch.randn(64, 256), [], set()

    def seen(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() > 512:  # but for a scale per row
            kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    for module in (layer, frozen):
        x = inputs.clone().requires_grad_()
        kept.clear()
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=mixed),
            torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor),
        ):
            y = module(x)
        assert y.dtype == (torch.bfloat16 if mixed else torch.float32)
        y.float().square().sum().backward()
        assert x.grad is not None
        outputs.append((y.detach().float(), x.grad))
    (y, gradient), (rounded, rounded_gradient) = outputs
    assert relative(rounded, y) < ROUNDING[kind] + 0.005 * mixed
    assert relative(rounded_gradient, gradient) < ROUNDING[kind] + 0.005 * mixed
    assert kept <= {p.untyped_storage().data_ptr() for p in (*frozen.parameters(), inputs)}


@pytest.mark.parametrize(("kind", "bits"), [("bfloat16", 16), ("int8", 8), ("fp8", 8), ("nf4", 4)])
def test_bytes_of_a_frozen_layer(layer: nn.Linear, kind: StoredDtype, bits: int) -> None:
    """A scale of four bytes per row under int8 and fp8, per 64 weights under nf4; the bias as it was."""
    frozen = FrozenLinear(layer, kind)
    scales = {"bfloat16": 0, "int8": 4 * 512, "fp8": 4 * 512, "nf4": 4 * 512 * 256 // 64}[kind]
    sizes = sum(p.numel() * p.element_size() for p in frozen.parameters())
    assert sizes == 512 * 256 * bits // 8 + scales + 4 * 512
    assert count_weights(nn.ModuleList([frozen])) == 512 * 256 + 512


def test_nf4_is_the_nearest_of_sixteen_values() -> None:
    """Of a block scaled to 1; a size that is no multiple of a block's is filled up."""
    weight = torch.linspace(-3.0, 3.0, 7 * 11).view(7, 11)
    weight[0, 0] = -6.0
    frozen = FrozenLinear(_linear(weight), "nf4")
    rounded = frozen(torch.eye(11)).T
    unit = (rounded.flatten()[:64] / 6).unique()
    assert len(unit) <= 16
    assert rounded[0, 0] == -6.0
    gaps = (rounded.flatten()[:64] - weight.flatten()[:64]).abs().max()
    assert float(gaps) <= 6 * (1 - 0.6961928) / 2  # half the widest gap of the table
    assert relative(rounded, weight) < 0.2


def _linear(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).requires_grad_(False)
    layer.weight.copy_(weight)
    return layer


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_s_gradients_are_near_those_beside_whole_weights(
    trained_like: DiT, make_sequence: Callable[..., TokenSequence], kind: StoredDtype
) -> None:
    batch = pack([make_sequence()])
    gradients = []
    for base in ("float32", kind):
        dit = copy.deepcopy(trained_like)
        torch.manual_seed(0)
        add_adapter(dit, LoraConfig(rank=4, base=base))  # type: ignore[arg-type]
        with torch.no_grad():
            for name, parameter in dit.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        dit(batch, batch.vision, torch.full((batch.segments,), 0.5))[0].square().sum().backward()
        trained = {n for n, p in dit.named_parameters() if p.requires_grad}
        assert all("lora_" in name for name in trained)
        grads = [p.grad for n, p in dit.named_parameters() if n in trained]
        gradients.append(torch.cat([g.flatten() for g in grads if g is not None]))
    # measured: 0.0044, 0.013 and 0.24
    assert relative(gradients[1], gradients[0]) < {"bfloat16": 0.01, "int8": 0.02, "nf4": 0.35}[kind]


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"lora\.base: 'int4' is none of float32, bfloat16, int8, nf4"):
        LoraConfig(base="int4")  # type: ignore[arg-type]
