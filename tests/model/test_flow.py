"""Flow matching: the path, times, solvers and what the two predictions mean.

Pure functions, so equations are checked as equations.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.flow import (
    SOLVERS,
    FlowConfig,
    draw_time,
    guide,
    interpolate,
    shift_time,
    target_velocity,
    time_grid,
    to_velocity,
    token_loss,
)

CLEAN, VELOCITY = FlowConfig(prediction="clean"), FlowConfig(prediction="velocity")


def test_velocity_is_the_path_s_derivative() -> None:
    x0, x1 = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    step = 1e-6
    derivative = (interpolate(x0, x1, 0.4 + step) - interpolate(x0, x1, 0.4 - step)) / (2 * step)
    torch.testing.assert_close(derivative, x1 - x0, atol=1e-8, rtol=0)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.94])
def test_perfect_predictions_of_either_kind_have_no_loss(t: float) -> None:
    x0, x1, time = torch.randn(4, 6), torch.randn(4, 6), torch.full((4, 1), t)
    xt = interpolate(x0, x1, time)
    torch.testing.assert_close(to_velocity(x1, xt, time, CLEAN), x1 - x0, atol=1e-4, rtol=1e-4)
    for output, config in ((x1, CLEAN), (x1 - x0, VELOCITY)):
        wanted = target_velocity(x0, x1, xt, time, config)
        assert token_loss(to_velocity(output, xt, time, config, config.floor), wanted).max() < 1e-8


def test_error_weight_of_a_clean_prediction_is_bounded_by_the_floor() -> None:
    x0, x1, time = torch.zeros(1, 1), torch.ones(1, 1), torch.full((1, 1), 0.999)
    xt = interpolate(x0, x1, time)
    guess = to_velocity(x1 + 0.1, xt, time, CLEAN, CLEAN.floor)
    wrong = token_loss(guess, target_velocity(x0, x1, xt, time, CLEAN))
    assert wrong.item() == pytest.approx((0.1 / CLEAN.floor) ** 2, rel=1e-3)


@settings(deadline=None)
@given(st.integers(1, 60), st.floats(0.2, 8))
def test_grid_runs_from_noise_to_data(steps: int, shift: float) -> None:
    grid = time_grid(steps, shift)
    assert len(grid) == steps + 1
    assert grid[0] == pytest.approx(0, abs=1e-12)
    assert grid[-1] == pytest.approx(1)
    assert all(a < b for a, b in itertools.pairwise(grid))


def test_shift_moves_times_towards_noise_and_one_is_the_identity() -> None:
    t = torch.linspace(0.01, 0.99, 9)
    assert (shift_time(t, 3.0) < t).all()
    torch.testing.assert_close(shift_time(t, 1.0), t)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_solvers_follow_a_straight_path_exactly(name: str) -> None:
    x0, x1 = torch.randn(3, 2), torch.randn(3, 2)
    for x in SOLVERS[name](lambda x, t: x1 - x0, x0, time_grid(7, 2.0)):
        last = x
    torch.testing.assert_close(last, x1)


def test_midpoint_converges_faster_than_euler() -> None:
    # dx/dt = x has the solution e at t = 1
    errors = {}
    for name, solver in SOLVERS.items():
        *_, last = solver(lambda x, t: x, torch.ones(1, dtype=torch.float64), time_grid(10, 1.0))
        errors[name] = abs(last.item() - 2.718281828459045)
    assert errors["midpoint"] < errors["euler"] / 10


@pytest.mark.parametrize("sampling", ["uniform", "logit_normal"])
def test_times_are_keyed_and_inside(sampling: str) -> None:
    config = FlowConfig(sampling=sampling, shift=2.0)  # type: ignore[arg-type]
    drawn = torch.stack([draw_time(config, torch.Generator().manual_seed(s)) for s in range(300)])
    again = draw_time(config, torch.Generator().manual_seed(7))
    assert again == drawn[7]
    assert (drawn > 0).all()
    assert (drawn < 1).all()
    assert drawn.mean() < 0.5  # the shift favours noise


def test_guidance_of_one_is_no_guidance() -> None:
    a, b = torch.randn(2), torch.randn(2)
    torch.testing.assert_close(guide(a, b, 1.0), a)
    torch.testing.assert_close(guide(a, b, 3.0), b + 3 * (a - b))


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        time_grid(0, 1.0)
