"""Linear layers that are not trained, in fewer bits: alone, or beside an adapter (QLoRA, Dettmers 2023).

Products are computed in the dtype of the activations. A weight is spread out for a product and let go after
it, and again in the backward pass, so that no layer's spread out weight is kept between the two.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BaseDtype = Literal["float32", "bfloat16", "int8", "nf4"]
BASE_DTYPES = get_args(BaseDtype)
StoredDtype = Literal["float32", "bfloat16", "int8", "nf4", "fp8"]  # fp8 for weights that are used alone
BLOCK = 64  # weights that share a scale under nf4
# Quantiles of a normal distribution: the values of NF4 (QLoRA, appendix E)
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


class FrozenLinear(nn.Linear):
    """A linear layer whose weight has no gradient and is kept in another dtype; its bias stays as it is.

    Attributes:
        kind: `bfloat16` has a `weight`, which is shared out among ranks as others are; of `int8`, `fp8` and
            `nf4` every rank has all.
        codes: int8 or float8_e4m3fn [out, in], or under `nf4` uint8 with two weights each, in the order of
            the rows.
        scale: float32: the largest of a row over that of the codes, or the largest of 64 weights.
    """

    def __init__(self, layer: nn.Linear, kind: StoredDtype) -> None:
        """Take over a layer's weight, rounded, and its bias."""
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.kind = kind
        self.bias = layer.bias
        weight = layer.weight.detach()
        del self.weight
        if kind in QUANTIZE:
            codes, scale = QUANTIZE[kind](weight)
            # parameters, not buffers: a copy of the network that shares them shares them on a device too
            self.codes, self.scale = (nn.Parameter(x, requires_grad=False) for x in (codes, scale))
        else:
            self.weight = nn.Parameter(weight.to(getattr(torch, kind)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in autocast's dtype where it is on, else in that of `x`."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        codes = self.weight if self.kind == "bfloat16" else self.codes
        scale = self.scale if self.kind == "nf4" else None
        y: Tensor = _Product.apply(x.to(dtype), codes, scale, self.out_features, self.in_features)
        if self.kind in ("int8", "fp8"):
            # after the product: the codes, exact in bf16, are then all that is spread out
            y = y * self.scale.to(dtype)
        return y if self.bias is None else y + self.bias.to(dtype)


class _Product(torch.autograd.Function):
    """x @ weight.T for a weight [rows, columns] that is kept as codes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scale: Tensor | None, rows: int, columns: int) -> Tensor:
        ctx.save_for_backward(codes, scale)
        ctx.shape = rows, columns
        return x @ _spread(codes, scale, ctx.shape, x.dtype).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        codes, scale = ctx.saved_tensors
        return gradient @ _spread(codes, scale, ctx.shape, gradient.dtype), None, None, None, None


def _spread(codes: Tensor, scale: Tensor | None, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return codes.to(dtype) if scale is None else dequantize_nf4(codes, scale, shape, dtype)


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 [out, in], float32 [out]) of a weight [out, in]: codes times scales are the nearest of 255."""
    scale = (weight.float().abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


def quantize_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(float8_e4m3fn [out, in], float32 [out]) of a weight [out, in]: 3 bits of mantissa, a scale per row."""
    most = torch.finfo(torch.float8_e4m3fn).max
    scale = (weight.float().abs().amax(1) / most).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight.float() / scale[:, None]).to(torch.float8_e4m3fn), scale


def quantize_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(uint8 codes of two weights each, float32 scales of 64 weights each) of a weight [out, in]."""
    flat = weight.float().flatten()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1)
    table = torch.tensor(NF4, device=weight.device)
    unit = blocks / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    nearest = torch.bucketize(unit.flatten(), (table[1:] + table[:-1]) / 2).to(torch.uint8)
    return nearest[::2] * 16 + nearest[1::2], scale


def dequantize_nf4(codes: Tensor, scale: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The weight [out, in] that `quantize_nf4` has rounded."""
    table = torch.tensor(NF4, dtype=dtype, device=codes.device)
    # both values of every byte, so that one look-up gives two weights
    pairs = torch.stack([table.repeat_interleave(16), table.repeat(16)], dim=1)
    values = pairs.index_select(0, codes.int()).view(-1, BLOCK) * scale.to(dtype)[:, None]
    return values.flatten()[: shape[0] * shape[1]].view(shape)


QUANTIZE = {"int8": quantize_int8, "nf4": quantize_nf4, "fp8": quantize_fp8}


def codes_of(network: nn.Module) -> set[nn.Parameter]:
    """Codes and scales of the layers under `int8`, `fp8` and `nf4`."""
    layers = [m for m in network.modules() if isinstance(m, FrozenLinear) and m.kind in QUANTIZE]
    return {parameter for layer in layers for parameter in (layer.codes, layer.scale)}


def count_weights(network: nn.Module) -> int:
    """Weights of a network, whatever they are kept as."""
    layers = [m for m in network.modules() if isinstance(m, FrozenLinear) and m.kind in QUANTIZE]
    others = {*network.parameters()} - codes_of(network)
    return sum(p.numel() for p in others) + sum(m.in_features * m.out_features for m in layers)


def freeze_base(network: nn.Module, kind: StoredDtype) -> None:
    """Keep the linear layers of a transformer's blocks, but for an adapter's, in another dtype, in place."""
    if kind == "float32":
        return
    blocks = network.get_submodule("blocks")
    for name, layer in [(n, m) for n, m in blocks.named_modules() if type(m) is nn.Linear]:
        if layer.weight.requires_grad:  # an adapter's factor
            continue
        parent, _, child = name.rpartition(".")
        setattr(blocks.get_submodule(parent), child, FrozenLinear(layer, kind))
