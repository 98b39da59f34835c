"""How the blocks of a transformer that is trained are run: compiled, and with activations computed again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from model.net.blocks import PackedAttention
from model.net.cross_attention import Prompts
from model.net.wan import WanAttention
from model.sequence.rope import mark_constants

Checkpointing = Literal["none", "selective", "full"]

# results that `selective` keeps: of matrix products with weights, attention, and what came from other ranks
SAVED_OPS = {
    "aten::mm",
    "aten::addmm",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "torch_attn::_varlen_attn",
    "flash_attn::_flash_attn_varlen_forward",
    "_c10d_functional::all_to_all_single",
    "_c10d_functional::wait_tensor",
}


def prepare_blocks(
    dit: nn.Module, checkpointing: Checkpointing, compiled: bool, offload: bool = False
) -> None:
    """Make the blocks of a transformer, in place, recompute what they do not keep, and compile them.

    Call it before the weights are shared out among ranks, so that gathering them stays outside. The weights
    and their names do not change.

    Args:
        compiled: every block once, for one number of tokens; attention itself is left as it is, since where
            sequences lie changes from batch to batch. Under `selective` the compiler alone decides what is
            kept.
        offload: keep the inputs of blocks, which is what `full` keeps, in the memory of the CPU.
    """
    blocks: Any = dit.blocks
    if compiled:
        mark_constants()
    for block in blocks:
        if compiled:
            block.forward = compiled_forward(block)
        if checkpointing == "full" or (checkpointing == "selective" and not compiled):
            block.forward = functools.partial(
                checkpoint,
                block.forward,
                use_reentrant=False,
                preserve_rng_state=False,  # nothing is random
                context_fn=_contexts if checkpointing == "selective" else noop_context_fn,
            )
        if offload:
            block.forward = _offloaded(block.forward)


def compiled_forward(block: nn.Module) -> Callable[..., Tensor]:
    """A block's forward pass, compiled for each number of tokens, but for attention itself.

    `mark_constants` is called before the first of them.
    """
    for part in block.modules():
        if isinstance(part, PackedAttention):
            # no two batches are laid out alike
            part.mix = torch.compiler.disable(part.mix)  # type: ignore[method-assign]
        if isinstance(part, WanAttention):
            part.mix_text = torch.compiler.disable(part.mix_text)  # type: ignore[method-assign]
    return _fixed(torch.compile(block.forward, dynamic=False))


def _contexts() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_: Any, operator: Any, *arguments: Any, **keywords: Any) -> CheckpointPolicy:
    """Keep the results of `SAVED_OPS`."""
    if operator.name().partition(".")[0] in SAVED_OPS:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _offloaded(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A block whose input is on the CPU, pinned for a GPU, from its forward to its backward pass."""

    def run(x: Tensor, *others: Any) -> Tensor:
        def pack(tensor: Tensor) -> Any:
            # other arguments are the same for all blocks
            if tensor.data_ptr() != x.data_ptr() or tensor.shape != x.shape:
                return tensor
            host = torch.empty(x.shape, dtype=x.dtype, pin_memory=x.is_cuda)
            return x.device, host.copy_(tensor, non_blocking=True)

        def unpack(kept: Any) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            device, host = kept
            returned: Tensor = host.to(device, non_blocking=True)
            return returned

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return forward(x, *others)

    return run


def _fixed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A compiled block, told that the number of segments and of prompts' tokens alone changes."""

    def run(x: Tensor, modulation: Tensor | None, *others: Any) -> Tensor:
        if modulation is not None:
            if len(modulation) == 1:  # the compiler makes a constant of 1
                modulation = torch.cat([modulation, modulation])
            torch._dynamo.mark_dynamic(modulation, 0)
        for other in others:
            if isinstance(other, Prompts):
                torch._dynamo.mark_dynamic(other.states, 0)
        return forward(x, modulation, *others)

    return run
