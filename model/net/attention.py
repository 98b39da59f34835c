"""Attention inside every sequence of a pack and none across sequences.

One function over packed tokens and `cu_seqlens`; the backend is chosen once, by name, and logged.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from shards.errors import SettingError

Backend = Literal["auto", "flash", "varlen", "sdpa", "matmul"]
Resolved = Literal["flash", "varlen", "sdpa", "matmul"]

# Up to this length plain matrix products beat SDPA's CPU kernel in bf16: 2.3 to 2.8 times for 350 and 450
# tokens, forward and backward, on one core with AVX512-BF16. They hold the whole L x L table per head.
MATMUL_UP_TO = 1024
BIAS_CHANNELS = 8  # kernels on a GPU take multiples of 8

log = logging.getLogger(__name__)


def choose_backend(
    name: Backend,
    device: torch.device | str,
    dtype: torch.dtype,
    max_seqlen: int,
    deterministic: bool = False,
) -> Resolved:
    """Resolve `auto` for a device and dtype, and check that a backend asked for by name can run there.

    `auto` takes flash-attn on CUDA when it is installed, else PyTorch's own varlen kernel on CUDA; both need
    half precision, so fp32 on CUDA and everything on CPU run sequence by sequence: SDPA, or for short
    sequences in bf16 on the CPU plain matrix products (`MATMUL_UP_TO`).

    Raises:
        ValueError: the backend asked for cannot run, or not deterministically; never another in its place.
    """
    device = torch.device(device)
    half = dtype in (torch.float16, torch.bfloat16)
    if name == "auto":
        if device.type == "cpu" and dtype == torch.bfloat16 and max_seqlen <= MATMUL_UP_TO:
            name = "matmul"
        elif device.type != "cuda" or not half:
            name = "sdpa"
        else:
            name = "flash" if importlib.util.find_spec("flash_attn") else "varlen"
    if name not in get_args(Resolved):
        raise SettingError(
            f"attention: unknown backend {name!r}; choose auto, {', '.join(get_args(Resolved))}"
        )
    if name == "flash" and not importlib.util.find_spec("flash_attn"):
        raise SettingError("attention: backend 'flash' needs flash-attn; install it or choose 'auto'")
    if name in ("flash", "varlen") and (device.type != "cuda" or not half):
        raise SettingError(
            f"attention: {name!r} needs CUDA and half precision, not {device.type} {dtype}; choose 'auto'"
        )
    # the backward passes of these two run after this call and look at PyTorch's global switch alone
    follows_switch = device.type == "cuda" and name in ("varlen", "sdpa")
    if deterministic and follows_switch and not torch.are_deterministic_algorithms_enabled():
        raise SettingError(
            f"attention: {name!r} is deterministic on CUDA only under "
            "torch.use_deterministic_algorithms(True) (train.deterministic sets it); or choose 'flash'"
        )
    return name


@functools.cache
def log_backend(backend: Resolved, device: str, dtype: torch.dtype) -> None:
    """Log the backend in use, once per process for each (backend, device, dtype)."""
    log.info("attention backend: %s on %s, %s", backend, device, str(dtype).removeprefix("torch."))


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    backend: Backend = "auto",
    *,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_k: int | None = None,
    lengths: Sequence[int] | None = None,
    lengths_k: Sequence[int] | None = None,
    deterministic: bool = False,
    key_bias: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention of packed sequences: query i of a sequence sees all keys of its sequence.

    Args:
        q: [N, heads, head_dim]; N tokens of all sequences, one sequence after the other.
        k, v: [M, kv_heads, head_dim]; heads is a multiple of kv_heads (grouped-query attention).
        cu_seqlens: int32 [sequences + 1], 0 first and N last; sequence i has the queries
            cu_seqlens[i]:cu_seqlens[i + 1].
        max_seqlen: the most queries of a sequence.
        cu_seqlens_k, max_seqlen_k: the same of the keys, where they are not the queries'. A sequence without
            queries is passed over; one with queries needs keys.
        lengths, lengths_k: queries and keys of each sequence on the host, for backends that go sequence by
            sequence; where they are not given, they are read from the device, which waits for it.
        deterministic: run the backward pass in a fixed order, as under
            `torch.use_deterministic_algorithms(True)`; on CPU it always does. See `choose_backend`.
        key_bias: [M], added to every score of each key. No kernel of packed sequences takes one, so it
            travels as `BIAS_CHANNELS` more channels of queries and keys.

    Returns:
        [N, heads, head_dim] in the dtype of `q`.
    """
    if not len(q):
        return torch.empty_like(q)
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    keys = cu_seqlens if cu_seqlens_k is None else cu_seqlens_k
    longest = max_seqlen if max_seqlen_k is None else max_seqlen_k
    resolved = choose_backend(backend, q.device, q.dtype, max(max_seqlen, longest), deterministic)
    log_backend(resolved, q.device.type, q.dtype)
    scale: float | None = None  # the kernels' own
    size = v.shape[-1]
    if key_bias is not None:
        scale = q.shape[-1] ** -0.5
        q, k, v = _with_bias(q, k, v, key_bias / scale)
    if resolved == "flash":
        from flash_attn import flash_attn_varlen_func

        found = flash_attn_varlen_func(
            *(q, k, v, cu_seqlens, keys, max_seqlen, longest),
            softmax_scale=scale,
            deterministic=deterministic,
        )
        return cast(Tensor, found)[..., :size]
    if resolved == "varlen":
        from torch.nn.attention.varlen import varlen_attn

        k, v = _every_head(k, v, q.shape[1])
        out = varlen_attn(q, k, v, cu_seqlens, keys, max_seqlen, longest, scale=scale)
        return cast(Tensor, out)[..., :size]  # a pair only when asked for more
    single = _matmul if resolved == "matmul" else _sdpa
    # not slices, whose backward pass fills and adds up a whole tensor each
    lengths = cu_seqlens.diff().tolist() if lengths is None else lengths
    if lengths_k is None:
        lengths_k = lengths if cu_seqlens_k is None else cu_seqlens_k.diff().tolist()
    queries = q.split(list(lengths))
    of_keys, of_values = (x.split(list(lengths_k)) for x in (k, v))
    parts = zip(queries, of_keys, of_values, strict=True)
    outputs = [single(*part, scale) for part in parts if len(part[0])]
    return (torch.cat(outputs) if len(outputs) != 1 else outputs[0])[..., :size]


def _with_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys whose products have `bias` [M] added, and values as wide, all with more channels.

    In half precision the bias is the sum of two numbers, which is nearly exact.
    """
    high = bias.to(k.dtype)
    low = (bias - high.float()).to(k.dtype)
    more = F.pad(torch.stack([high, low], -1), (0, BIAS_CHANNELS - 2))
    ones = F.pad(q.new_ones(len(q), 2), (0, BIAS_CHANNELS - 2))
    q, k = (
        torch.cat([x, extra[:, None].expand(-1, x.shape[1], -1)], -1) for x, extra in ((q, ones), (k, more))
    )
    return q, k, F.pad(v, (0, BIAS_CHANNELS))


def _every_head(k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Keys and values of grouped queries, repeated for each of `heads`."""
    groups = heads // k.shape[1]
    return (k, v) if groups == 1 else (k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))


def _matmul(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v written out, of one sequence; [L, heads, head_dim] in and out."""
    k, v = _every_head(k, v, q.shape[1])
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (x.transpose(0, 1) for x in (q * scale, k, v))
    weights = torch.softmax(q @ k.transpose(1, 2), dim=-1).to(v.dtype)
    return (weights @ v).transpose(0, 1)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """SDPA of one sequence; [L, heads, head_dim] in and out."""
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    return out.squeeze(0).transpose(0, 1)
