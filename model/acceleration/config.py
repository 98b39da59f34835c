"""Which shortcuts an edit takes; none unless asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shards.limits import in_range


@dataclass(frozen=True)
class Shortcuts:
    """What of the network's work is left out. The defaults leave out nothing.

    Attributes:
        step_cache: how far the network's input may move, as a sum of relative changes, before a solver step
            is computed and not taken from the one before (TeaCache, Liu et al. 2024); 0 computes all.
        context_tokens: share of the tokens of what is edited, and of its masks, that the network is given, half
            of them nearest to the change; 1 is all of them. See `SparseContext`.
        beyond: what becomes of the others: dropped, or pooled, so that each block of 2x2 is one token.
        weights: how the linear layers' weights are held: as they are, or in eight bits.
        compile: compile the blocks of the network; the first edit then waits for it.
    """

    step_cache: float = 0.0
    context_tokens: float = 1.0
    beyond: Literal["drop", "pool"] = "pool"
    weights: Literal["as_loaded", "int8", "fp8"] = "as_loaded"
    compile: bool = False

    def __post_init__(self) -> None:
        in_range("shortcuts.step_cache", self.step_cache, 0, 100)
        in_range("shortcuts.context_tokens", self.context_tokens, 0, 1)


NO_SHORTCUTS = Shortcuts()
