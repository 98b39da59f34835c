"""Flow matching: the path, times, solvers and what the two predictions mean.

Pure functions, so equations are checked as equations.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.flow.flow_matching import (
    FlowConfig,
    draw_time,
    interpolate,
    shift_of,
    shift_time,
    target_velocity,
    time_grid,
    to_velocity,
    token_loss,
)
from model.flow.guidance import ProjectedGuidance, chain, rescaled
from model.flow.solvers import SOLVERS

CLEAN, VELOCITY = FlowConfig(prediction="x1"), FlowConfig(prediction="velocity")


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
        assert token_loss(to_velocity(output, xt, time, config, config.min_remaining), wanted).max() < 1e-8


def test_error_weight_of_a_clean_prediction_is_bounded_by_the_floor() -> None:
    x0, x1, time = torch.zeros(1, 1), torch.ones(1, 1), torch.full((1, 1), 0.999)
    xt = interpolate(x0, x1, time)
    guess = to_velocity(x1 + 0.1, xt, time, CLEAN, CLEAN.min_remaining)
    wrong = token_loss(guess, target_velocity(x0, x1, xt, time, CLEAN))
    assert wrong.item() == pytest.approx((0.1 / CLEAN.min_remaining) ** 2, rel=1e-3)


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
    seen = []
    for x in SOLVERS[name](lambda x, t: x1 - x0, x0, time_grid(7, 2.0)):
        seen.append(x)
    assert len(seen) == 7
    torch.testing.assert_close(seen[-1], x1, atol=1e-5, rtol=1e-4)


def test_steps_take_the_velocity_at_their_start_or_middle() -> None:
    """dx/dt = 2 t from 0 to 1, in two steps by hand."""
    zero, asked = torch.zeros(1), []

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        asked.append(t)
        return torch.full_like(x, 2 * t)

    euler = [float(x) for x in SOLVERS["euler"](velocity, zero, [0.0, 0.5, 1.0])]
    assert (euler, asked) == ([0.0, 0.5], [0.0, 0.5])
    asked.clear()
    midpoint = [float(x) for x in SOLVERS["midpoint"](velocity, zero, [0.0, 0.5, 1.0])]
    assert (midpoint, asked) == ([0.25, 1.0], [0.0, 0.25, 0.5, 0.75])


def test_midpoint_and_unipc_converge_faster_than_euler() -> None:
    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        """The flow from N(0, 1) to N(2, 1/4), which takes x to 2 + x / 2."""
        variance = t * t / 4 + (1 - t) ** 2
        return 2 + (t / 4 - (1 - t)) / variance * (x - 2 * t)

    x = torch.linspace(-2, 2, 9)[:, None]
    errors = {}
    for name, solver in SOLVERS.items():
        *_, last = solver(velocity, x, time_grid(20, 1.0))
        errors[name] = (last - (2 + x / 2)).abs().mean().item()
    assert errors["midpoint"] < errors["unipc"] < errors["euler"] / 4


@pytest.mark.parametrize("sampling", ["uniform", "logit_normal", "mode"])
def test_times_are_keyed_and_inside(sampling: str) -> None:
    config = FlowConfig(sampling=sampling, shift=2.0)  # type: ignore[arg-type]
    drawn = torch.stack([draw_time(config, torch.Generator().manual_seed(s), 64) for s in range(300)])
    again = draw_time(config, torch.Generator().manual_seed(7), 64)
    assert again == drawn[7]
    assert (drawn > 0).all()
    assert (drawn < 1).all()
    assert drawn.mean() < 0.5  # the shift favours noise


def test_mode_sampling_favours_the_middle_and_zero_is_uniform() -> None:
    def middle(scale: float) -> float:
        config = FlowConfig(sampling="mode", mode_scale=scale)
        times = torch.stack([draw_time(config, torch.Generator().manual_seed(s), 1) for s in range(1500)])
        return float(((times > 0.3) & (times < 0.7)).float().mean())

    assert middle(0.0) == pytest.approx(0.4, abs=0.04)
    assert middle(1.29) > 0.5
    uniform = FlowConfig(sampling="uniform")
    for seed in range(5):
        ours, plain = (
            draw_time(c, torch.Generator().manual_seed(seed), 1)
            for c in (FlowConfig(sampling="mode", mode_scale=0.0), uniform)
        )
        assert ours == plain


@settings(deadline=None)
@given(st.integers(1, 100_000), st.floats(0.5, 4), st.integers(1, 30))
def test_shift_of_a_resolution_is_shared_by_training_and_inference(
    tokens: int, shift: float, steps: int
) -> None:
    config = FlowConfig(sampling="uniform", shift=shift, shift_tokens=1024)
    assert shift_of(config, 1024) == pytest.approx(shift)
    assert shift_of(config, 4 * tokens) == pytest.approx(2 * shift_of(config, tokens))
    assert shift_of(FlowConfig(shift=shift), tokens) == shift
    # a uniform time u is drawn where the solver's grid puts its u-th fraction
    u = torch.rand((), generator=torch.Generator().manual_seed(steps))
    drawn = draw_time(config, torch.Generator().manual_seed(steps), tokens)
    assert drawn.item() == pytest.approx(shift_time(u, shift_of(config, tokens)).item())
    grid = time_grid(steps, shift_of(config, tokens))
    even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    assert grid == shift_time(even, shift_of(config, tokens)).tolist()


def test_guidance_of_one_is_no_guidance_and_rescaling_keeps_the_spread() -> None:
    a, b = torch.randn(50, 2), torch.randn(50, 2)
    torch.testing.assert_close(chain([b, a], [1.0]), a)
    torch.testing.assert_close(chain([b, a], [3.0]), b + 3 * (a - b))
    wide = chain([b, a], [7.0])
    kept = rescaled(wide, a, 1.0)
    assert wide.std() > 3 * a.std()
    torch.testing.assert_close(kept.std(), a.std())
    torch.testing.assert_close(rescaled(wide, a, 0.5), (wide + kept) / 2)


def test_guidance_along_a_chain() -> None:
    """Scales of 1 are the last link alone; projected guidance with eta 1 is the same."""
    velocities = [torch.randn(12, 4) for _ in range(4)]
    torch.testing.assert_close(chain(velocities, [1.0, 1.0, 1.0]), velocities[-1])
    none, video, images, text = velocities
    expected = none + 1.25 * (video - none) + 4.5 * (images - video) + 4.0 * (text - images)
    scales = [1.25, 4.5, 4.0]
    torch.testing.assert_close(chain(velocities, scales), expected)
    x = torch.randn(12, 4)
    plain = ProjectedGuidance(frames=3)(velocities, scales, x, 0.3)
    torch.testing.assert_close(plain, expected, atol=1e-5, rtol=1e-5)


PROJECTED = (  # the first six numbers after each of two steps
    [0.612409, -1.694217, 2.060535, -2.84465, 2.056255, 0.093452],
    [0.931799, -0.922483, 0.447894, -0.49398, 0.691661, -0.592955],
)


def test_projected_guidance_leaves_out_the_share_along_the_prediction_frame_by_frame() -> None:
    """Computed with `normalized_guidance` of Bernini's bernini/models/wan_diffusion.py, see the numbers."""
    x = torch.sin(torch.arange(24.0)).view(6, 4)
    less, more = torch.cos(torch.arange(24.0) * 2).view(6, 4), torch.cos(torch.arange(24.0) * 3).view(6, 4)
    guidance = ProjectedGuidance(frames=2, eta=0.5, norm=1.5, momentum=-0.5)
    for step, t in enumerate((0.2, 0.5)):
        guided = guidance([less, more], [4.0], x, t)
        torch.testing.assert_close(guided.flatten()[:6], torch.tensor(PROJECTED[step]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift": 0.0}, "flow.shift"),
        ({"shift_tokens": -1}, "shift_tokens"),
        ({"mode_scale": 2.0}, "mode_scale"),
        ({"logit_std": 0.0}, "flow.logit_std"),
        ({"min_remaining": 0.0}, "flow.min_remaining"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowConfig(**changes)  # type: ignore[arg-type]
    assert FlowConfig(mode_scale=2 / (math.pi - 2)).mode_scale < 1.76


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        time_grid(0, 1.0)
