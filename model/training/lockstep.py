"""Forward passes of a transformer that is shared out, on ranks that have different work to do.

Every pass gathers weights, which all ranks do together. So passes are counted off: each begins with all ranks
saying whether any is still at work, and a rank that has finished runs something small in the meantime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from model.net.transformer import Transformer


@contextmanager
def lockstep(network: Transformer, filler: Callable[[], object]) -> Iterator[None]:
    """Within it every rank may run `network` as often as it likes; all ranks enter and leave it together.

    Args:
        filler: runs the network once, forward, on anything.
    """
    if not isinstance(network, FSDPModule):
        yield
        return
    prefill = network.prefill_context
    working = True

    def announce(*_: Any) -> None:
        if working:
            _any_working(network, True)

    def announced(*arguments: Any) -> Any:
        announce()
        return prefill(*arguments)

    hook = network.register_forward_pre_hook(announce, prepend=True)  # before weights are gathered
    network.prefill_context = announced  # type: ignore[assignment, method-assign]
    try:
        yield
        working = False
        while _any_working(network, False):
            filler()
    finally:
        hook.remove()
        network.prefill_context = prefill  # type: ignore[method-assign]
        network.reshard()


def _any_working(network: Transformer, here: bool) -> bool:
    """Whether any rank is to run the network; all ranks ask together."""
    flag = torch.tensor(float(here), device=network.device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return here or bool(flag)
