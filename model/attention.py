"""Full self-attention inside every sequence of a pack and none across sequences.

One function over packed tokens and `cu_seqlens`; the backend is chosen once, by name, and logged.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
from typing import Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Backend = Literal["auto", "flash", "varlen", "sdpa", "matmul"]
Resolved = Literal["flash", "varlen", "sdpa", "matmul"]

# Up to this length plain matrix products beat SDPA's CPU kernel in bf16: 2.3 to 2.8 times for 350 and 450
# tokens, forward and backward, on one core with AVX512-BF16. They hold the whole L x L table per head.
MATMUL_UP_TO = 1024

log = logging.getLogger(__name__)


def choose_backend(
    name: Backend, device: torch.device | str, dtype: torch.dtype, max_seqlen: int
) -> Resolved:
    """Resolve `auto` for a device and dtype, and check that a backend asked for by name can run there.

    `auto` takes flash-attn on CUDA when it is installed, else PyTorch's own varlen kernel on CUDA; both need
    half precision, so fp32 on CUDA and everything on CPU run sequence by sequence: SDPA, or for short
    sequences in bf16 on the CPU plain matrix products (`MATMUL_UP_TO`).

    Raises:
        ValueError: the backend asked for cannot run; never another one in its place.
    """
    device = torch.device(device)
    half = dtype in (torch.float16, torch.bfloat16)
    if name == "auto":
        if device.type == "cpu" and dtype == torch.bfloat16 and max_seqlen <= MATMUL_UP_TO:
            return "matmul"
        if device.type != "cuda" or not half:
            return "sdpa"
        return "flash" if importlib.util.find_spec("flash_attn") else "varlen"
    if name == "flash" and not importlib.util.find_spec("flash_attn"):
        raise ValueError("attention: backend 'flash' needs flash-attn; install it or choose 'auto'")
    if name in ("flash", "varlen") and (device.type != "cuda" or not half):
        raise ValueError(
            f"attention: {name!r} needs CUDA and half precision, not {device.type} {dtype}; choose 'auto'"
        )
    if name not in get_args(Resolved):
        raise ValueError(f"attention: unknown backend {name!r}; choose auto, {', '.join(get_args(Resolved))}")
    return name


@functools.cache
def log_backend(backend: Resolved, device: str, dtype: torch.dtype) -> None:
    """Log the backend in use, once per process for each (backend, device, dtype)."""
    log.info("attention backend: %s on %s, %s", backend, device, str(dtype).removeprefix("torch."))


def attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, backend: Backend = "auto"
) -> Tensor:
    """Scaled dot-product attention of packed sequences.

    Args:
        q: [N, heads, head_dim]; N tokens of all sequences, one sequence after the other.
        k, v: [N, kv_heads, head_dim]; heads is a multiple of kv_heads (grouped-query attention).
        cu_seqlens: int32 [sequences + 1], 0 first and N last; sequence i is cu_seqlens[i]:cu_seqlens[i + 1].
        max_seqlen: the longest sequence's number of tokens.

    Returns:
        [N, heads, head_dim] in the dtype of `q`.
    """
    resolved = choose_backend(backend, q.device, q.dtype, max_seqlen)
    log_backend(resolved, q.device.type, q.dtype)
    if resolved == "flash":
        from flash_attn import flash_attn_varlen_func

        return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)
    if resolved == "varlen":
        from torch.nn.attention.varlen import varlen_attn

        groups = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (k, v))
        out = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)
        return cast(Tensor, out)  # a pair only when asked for more
    bounds = cu_seqlens.tolist()
    single = _matmul if resolved == "matmul" else _sdpa
    outputs = [single(q[a:b], k[a:b], v[a:b]) for a, b in itertools.pairwise(bounds) if b > a]
    return torch.cat(outputs) if len(outputs) != 1 else outputs[0]


def _matmul(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v written out, of one sequence; [L, heads, head_dim] in and out."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (k, v))
    q, k, v = (x.transpose(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v))
    weights = torch.softmax(q @ k.transpose(1, 2), dim=-1).to(v.dtype)
    return (weights @ v).transpose(0, 1)


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """SDPA of one sequence; [L, heads, head_dim] in and out."""
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])
    return out.squeeze(0).transpose(0, 1)
