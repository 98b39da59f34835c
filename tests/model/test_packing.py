"""Plans: pure, complete and within budget.

A step's plan needs no earlier step.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.packing import draws_of, plan_step

lengths_of = st.lists(st.integers(1, 50), min_size=1, max_size=12)


@settings(deadline=None)
@given(lengths_of, st.integers(0, 20), st.integers(1, 9), st.integers(0, 3), st.integers(50, 120))
def test_a_plan_holds_the_step_s_samples_within_budget(
    lengths: list[int], step: int, batch_size: int, seed: int, budget: int
) -> None:
    plan = plan_step(lengths, step, seed=seed, batch_size=batch_size, token_budget=budget)
    assert plan == plan_step(lengths, step, seed=seed, batch_size=batch_size, token_budget=budget)
    planned = Counter(draw for part in plan for draw in part)
    assert planned == Counter(draws_of(step, len(lengths), batch_size, seed))
    assert all(sum(lengths[d.index] for d in part) <= budget for part in plan)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 7), st.integers(0, 5))
def test_every_epoch_visits_every_sample_once(samples: int, batch_size: int, seed: int) -> None:
    drawn = [d for step in range(3 * samples) for d in draws_of(step, samples, batch_size, seed)]
    for epoch in range(3):
        assert sorted(d.index for d in drawn if d.epoch == epoch) == list(range(samples))


def test_a_budget_too_small_names_the_sample() -> None:
    with pytest.raises(ValueError, match="sample 1 has 30 tokens, more than token_budget=20"):
        plan_step([5, 30], 0, seed=0, batch_size=1, token_budget=20)
    with pytest.raises(ValueError, match="no training samples"):
        plan_step([], 0, seed=0, batch_size=1, token_budget=20)
