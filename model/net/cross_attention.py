"""Attention from packed tokens to each sequence's own prompt, filled up with zeros as Wan was trained.

Wan pads a prompt of L tokens with zero rows to a fixed number n and masks nothing, so n - L equal keys take
part in the softmax. Equal keys with equal values are one key whose score is raised by log(n - L).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.net.attention import Backend, attention, choose_backend, log_backend
from model.sequence.packing import PackedText


@dataclass(frozen=True)
class Prompts:
    """What all blocks need of a pack's prompts.

    Attributes:
        states: [P + 1, width], P tokens of all prompts after the text embedding, then that of a zero row.
        packed: where they lie.
        tokens: n, to how many tokens each prompt is filled up.
        rows: int64 [S * n], the row of `states` of every key when all are written out; for kernels that take
            no bias.
    """

    states: Tensor
    packed: PackedText
    tokens: int
    rows: Tensor


def written_out(packed: PackedText, tokens: int) -> Tensor:
    """`Prompts.rows`: a prompt's own rows, then the zero row again and again; no wait for the device."""
    place = torch.arange(tokens, device=packed.cu_seqlens.device)
    first, length = packed.cu_seqlens[:-1, None].long(), packed.cu_seqlens.diff()[:, None]
    return torch.where(place < length, first + place, len(packed.states)).flatten()


def text_attention(
    q: Tensor, k: Tensor, v: Tensor, prompts: Prompts, backend: Backend = "auto", deterministic: bool = False
) -> Tensor:
    """Scaled dot-product attention from every token to its sequence's prompt and its padding.

    Args:
        q: [N, heads, head_dim], tokens of all sequences, one sequence after the other.
        k, v: [P + 1, heads, head_dim], of `prompts.states`.

    Returns:
        [N, heads, head_dim] in the dtype of `q`.
    """
    packed, tokens = prompts.packed, prompts.tokens
    most = max(packed.queries, default=0)
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    resolved = choose_backend(backend, q.device, q.dtype, max(most, tokens), deterministic)
    if resolved in ("flash", "varlen"):
        ends = torch.arange(len(packed.cu_seqlens), device=q.device, dtype=torch.int32) * tokens
        keys, values = (x.index_select(0, prompts.rows) for x in (k, v))
        return attention(
            *(q, keys, values, packed.cu_queries, most, resolved),
            cu_seqlens_k=ends,
            max_seqlen_k=tokens,
            deterministic=deterministic,
        )
    log_backend(resolved, q.device.type, q.dtype)
    # not slices, whose backward pass fills and adds up a whole tensor each
    queries = q.split(list(packed.queries))
    *keys_of, padding_key = k.split([*packed.lengths, 1])
    *values_of, padding_value = v.split([*packed.lengths, 1])
    outputs = []
    for query, key, value, length in zip(queries, keys_of, values_of, packed.lengths, strict=True):
        if not len(query):
            continue
        bias = None
        if tokens > length:
            key, value = torch.cat([key, padding_key]), torch.cat([value, padding_value])
            bias = q.new_zeros(1, length + 1)
            bias[:, -1] = math.log(tokens - length)
        query, key, value = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        outputs.append(out.squeeze(0).transpose(0, 1))
    return torch.cat(outputs) if outputs else torch.empty_like(q)
