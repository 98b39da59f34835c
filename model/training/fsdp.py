"""A transformer whose weights, gradients and optimizer state are shared out among ranks (FSDP2).

Weights are gathered once per step, whatever the number of micro-batches, so that ranks may have different
numbers of them; between steps every rank holds its shard.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from model.training.distributed import World

Sharding = Literal["full", "hybrid", "ddp"]


def mesh_of(world: World, sharding: Sharding, device: str) -> DeviceMesh:
    """Over which ranks one copy of the weights is shared out: all, those of a node (replicated), or one."""
    size = {"full": world.world_size, "hybrid": world.local_world_size, "ddp": 1}[sharding]
    mesh = init_device_mesh(device, (world.world_size // size, size), mesh_dim_names=("replicate", "shard"))
    return mesh["shard"] if size == world.world_size else mesh


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Share a transformer out, block by block, in place."""
    blocks: Any = getattr(module, "blocks", [])
    for part in [*blocks, module]:
        fully_shard(part, mesh=mesh, reshard_after_forward=False)
    assert isinstance(module, FSDPModule)
    module.set_manual_backward_finalization(True)
    module.set_requires_gradient_sync(False)
    module.set_reshard_after_backward(False)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            # they still are there in a backward pass; looking for them again gathers at other times on ranks
            # with another number of micro-batches
            part.set_unshard_in_backward(False)


def reduce_gradients(module: nn.Module) -> None:
    """Sum the gradients of a step over all ranks, and give the gathered weights up.

    It comes after the backward passes of all micro-batches, not during the last one as is FSDP2's way: that
    one may be shared with ranks that have more to do before it, and would wait for them while they wait for
    this rank's gradients.
    """
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(True)
        module.set_reshard_after_backward(True)
        module.finalize_backward()
        module.set_requires_gradient_sync(False)
        module.set_reshard_after_backward(False)


def gathered(value: Tensor) -> Tensor:
    """The whole of a tensor that may be shared out; all ranks call it together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@torch.no_grad()
def copy_whole(source: nn.Module, target: nn.Module) -> nn.Module:
    """Copy the weights of a module that may be shared out into a plain one; all ranks call it together."""
    parameters = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        parameter.copy_(gathered(parameters[name]))
    return target
