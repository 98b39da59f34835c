"""Which shortcuts an edit takes; none unless asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shards.errors import SettingError
from shards.limits import in_range

MAX_COEFFICIENTS = 10


@dataclass(frozen=True)
class Shortcuts:
    """What of the network's work is left out. The defaults leave out nothing.

    Attributes:
        step_cache: how far the network's input may move, as a sum of relative changes, before the network is
            run and its last prediction not taken again (TeaCache, Liu et al. 2024), see
            `model.acceleration.step_cache`; 0 runs it always.
        step_cache_polynomial: coefficients, the highest power first, of what such a change of the input does
            to the prediction, see `Recorder.fit`; none takes the change itself.
        context_tokens: share of the tokens of what is edited, and of its masks, that the network is given,
            half of them nearest to the change, see `SparseContext`; 1 is all of them.
        beyond: what becomes of the others: dropped, or pooled, so that each block of 2x2 is one token.
        weights: how the linear layers' weights are held: as they are, or in eight bits, with a scale per
            row. They are rounded where they are, by the first edit that asks for it, and stay so.
        compile: compile the blocks of the network; the first edit of a length then waits for it.
    """

    step_cache: float = 0.0
    step_cache_polynomial: tuple[float, ...] = ()
    context_tokens: float = 1.0
    beyond: Literal["drop", "pool"] = "pool"
    weights: Literal["as_loaded", "int8", "fp8"] = "as_loaded"
    compile: bool = False

    def __post_init__(self) -> None:
        in_range("shortcuts.step_cache", self.step_cache, 0, 100)
        for number, coefficient in enumerate(self.step_cache_polynomial):
            in_range(f"shortcuts.step_cache_polynomial[{number}]", coefficient, -1e12, 1e12)
        if len(self.step_cache_polynomial) > MAX_COEFFICIENTS:
            raise SettingError(f"shortcuts.step_cache_polynomial: at most {MAX_COEFFICIENTS} coefficients")
        in_range("shortcuts.context_tokens", self.context_tokens, 0, 1)


NO_SHORTCUTS = Shortcuts()
