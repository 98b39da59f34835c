"""A transformer whose weights, gradients and optimizer state are shared out among ranks (FSDP2).

Weights are gathered once per step, whatever the number of micro-batches, so that ranks may have different
numbers of them; between steps every rank holds its shard. With `reshard` (ZeRO-3) a block's weights are
gathered for its forward pass and again for its backward pass, and gradients are summed after every
micro-batch, so that a rank holds the weights of one block at a time; all ranks then run equally many
micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from model.net.distributed import World
from model.net.frozen_linear import codes_of
from model.net.transformer import Transformer
from shards.errors import ConfigError

Sharding = Literal["full", "hybrid", "ddp"]
Gather = Literal["float32", "bfloat16"]


def mesh_of(world: World, sharding: Sharding, device: str) -> DeviceMesh:
    """Over which ranks one copy of the weights is shared out: all, those of a node (replicated), or one."""
    size = {"full": world.world_size, "hybrid": world.local_world_size, "ddp": 1}[sharding]
    mesh = init_device_mesh(device, (world.world_size // size, size), mesh_dim_names=("replicate", "shard"))
    return mesh["shard"] if size == world.world_size else mesh


def shard(module: nn.Module, mesh: DeviceMesh, gather: Gather = "float32", reshard: bool = False) -> None:
    """Share a transformer out, block by block, in place.

    Args:
        gather: what the blocks' weights are sent and held in while they are whole; shards, sums of gradients
            and everything outside the blocks are in the dtype of the weights.
            Weights that are kept as int8 or nf4 are whole on every rank.
        reshard: give a block's weights up after its forward pass, and those outside the blocks after a
            micro-batch.

    Raises:
        ConfigError: a PyTorch that cannot sum gradients apart from a backward pass, without `reshard`.
    """
    if not reshard and not hasattr(FSDPModule, "finalize_backward"):
        raise ConfigError(
            f"parallel.reshard: PyTorch {torch.__version__} has no FSDPModule.finalize_backward, which "
            "several ranks need; install a newer one, or set parallel.reshard to true"
        )
    blocks: Any = getattr(module, "blocks", [])
    quantized = codes_of(module)
    for parameter in quantized:
        parameter.data = parameter.data.to(mesh.device_type)
    policy = MixedPrecisionPolicy()
    if gather == "bfloat16":
        # what enters a block stays as it is: the residual stream and the modulation are float32
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for block in blocks:
        fully_shard(
            block, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy, ignored_params=quantized
        )
    fully_shard(module, mesh=mesh, reshard_after_forward=False, ignored_params=quantized)
    assert isinstance(module, FSDPModule)
    if not reshard:
        module.set_manual_backward_finalization(True)
        module.set_requires_gradient_sync(False)
        module.set_reshard_after_backward(False)
    if isinstance(module, Transformer):
        register_fsdp_forward_method(module, "prefill_context")
    for part in module.modules():
        if isinstance(part, FSDPModule):
            # Unless they are given up they still are there in a backward pass; looking for them again gathers
            # at other times on ranks with another number of micro-batches.
            part.set_unshard_in_backward(reshard)


def before_micro_batch(module: nn.Module, last: bool, reshard: bool) -> None:
    """With `reshard`, have gradients summed in the backward pass, among replicas in the `last` one of a step.

    All ranks run as many micro-batches then, so that none waits for another's. Without, `reduce_gradients`
    does it.
    """
    if isinstance(module, FSDPModule) and reshard:
        module.set_requires_gradient_sync(True)
        module.set_requires_all_reduce(last)
        module.set_reshard_after_backward(True)
        module.set_is_last_backward(last)


def reduce_gradients(module: nn.Module, reshard: bool) -> None:
    """Without `reshard`, sum the gradients of a step over all ranks, and give the gathered weights up.

    It comes after the backward passes of all micro-batches, not during the last one as is FSDP2's way: that
    one may be shared with ranks that have more to do before it, and would wait for them while they wait for
    this rank's gradients.
    """
    if isinstance(module, FSDPModule) and not reshard:
        module.set_requires_gradient_sync(True)
        module.set_reshard_after_backward(True)
        module.finalize_backward()
        module.set_requires_gradient_sync(False)
        module.set_reshard_after_backward(False)


def gathered(value: Tensor) -> Tensor:
    """The whole of a tensor that may be shared out; all ranks call it together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@torch.no_grad()
def whole_on_main(named: Iterable[tuple[str, Tensor]], world: World) -> dict[str, Tensor]:
    """Copies of tensors that may be shared out, on the CPU of rank 0; none elsewhere. All ranks call it.

    One at a time is whole on a device.
    """
    copies = {}
    for name, value in named:
        whole = gathered(value.detach())
        if world.is_main_process:
            copies[name] = torch.empty_like(whole, device="cpu").copy_(whole)
    return copies
