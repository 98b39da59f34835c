"""Plans: pure, complete, within budget and even; every sample is visited as often as the mixture says."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import astuple, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.cli import main
from model.data.mixture import MixtureSampler, read_mixture, synthetic_lengths
from model.net.config import DiTConfig
from model.planner.alternatives import Alternative, alternatives
from model.planner.balance import BalanceError, Budget, Cluster, balance, largest_degree
from model.planner.cost import CostModel, by_formula, fit, read_cost
from model.planner.step_plan import Planner, StepPlan
from model.sequence.rope import RopeConfig
from model.training.config import FitConfig
from model.training.dataloader import PlannedSteps
from model.training.setup import build_datasets
from shards.errors import ConfigError

COST = CostModel(12.0, 0.01)
rows = st.lists(
    st.tuples(
        st.lists(st.integers(1, 9), min_size=1, max_size=4), st.sampled_from([0.25, 0.5, 1, 1.5, 2, 3, 10])
    ),
    min_size=1,
    max_size=4,
)
clusters = st.builds(
    lambda nodes, node, degree, heads: Cluster(
        nodes * node, node, min(degree, largest_degree(nodes * node, node, heads)), heads
    ),
    st.integers(1, 4),
    st.sampled_from([1, 2, 3, 4, 6, 8]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4, 6, 12, 16]),
)
costs = st.builds(
    CostModel,
    st.just(12.0),
    st.sampled_from([0.0, 0.01, 0.1]),
    st.sampled_from([0.0, 50.0, 3000.0]),
    st.sampled_from([0.0, 1.0, 10.0]),
    st.sampled_from([0.0, 100.0]),
)
lengths_of = st.lists(st.integers(1, 400), min_size=1, max_size=40)


def order_of(rows: list[tuple[list[int], float]], seed: int = 0, open_shards: int = 2) -> MixtureSampler:
    return MixtureSampler([shards for shards, _ in rows], [ratio for _, ratio in rows], seed, open_shards)


@settings(deadline=None)
@given(rows, st.integers(0, 5), st.integers(1, 3), st.integers(1, 17), clusters)
def test_every_sample_is_seen_ratio_times_an_epoch(
    rows: list[tuple[list[int], float]], seed: int, open_shards: int, batch_size: int, cluster: Cluster
) -> None:
    order = order_of(rows, seed, open_shards)
    planner = Planner(np.ones(sum(order.counts), int), order, batch_size, COST, cluster, Budget(100))
    epochs = 4  # after which every ratio here is a whole number of visits
    visits = order.epoch * epochs
    assert visits == sum(Fraction(ratio) * sum(shards) * epochs for shards, ratio in rows)
    seen: Counter[int] = Counter()
    left = int(visits)
    for step in range(-(-left // batch_size)):
        plan = planner(step)
        carried = Counter(i for pack in plan.balanced.packs for i in pack.samples)
        assert carried == Counter(range(batch_size))  # the plan loses none and adds none
        seen.update(d.index for d in plan.draws[:left])
        left -= batch_size
    for row, (_, ratio) in enumerate(rows):
        for index in range(int(order.offsets[row]), int(order.offsets[row + 1])):
            assert seen[index] == ratio * epochs
            assert order.row_of(index) == row


@settings(deadline=None)
@given(rows, st.integers(0, 5), st.integers(0, 10_000), st.integers(1, 30))
def test_the_order_can_be_entered_anywhere(
    rows: list[tuple[list[int], float]], seed: int, first: int, count: int
) -> None:
    order = order_of(rows, seed)
    here = order.draws(first, count)
    assert here == order_of(rows, seed).draws(first, count)
    assert here == [d for n in range(count) for d in order.draws(first + n, 1)]
    total = float(order.epoch)
    spread = Counter(order.row_of(d.index) for d in here)
    for row, (shards, ratio) in enumerate(rows):  # every stretch holds every row in proportion
        assert abs(spread[row] - count * sum(shards) * ratio / total) <= 2


def test_few_shards_are_open_at_a_time() -> None:
    order = MixtureSampler([[5] * 40], [1], 0, open_shards=4)
    shards = [d.index // 5 for d in order.draws(0, 200)]
    for first in range(0, 200, 20):
        assert len(set(shards[first : first + 20])) == 4
    assert shards != sorted(shards)
    again = [d.index for d in order.draws(200, 200)]
    assert [d.index for d in order.draws(0, 200)] != again
    assert {d.epoch for d in order.draws(0, 200)} == {0}
    assert order.draws(200, 1)[0].epoch == 1


def replay(plan: StepPlan, cost: CostModel) -> list[float]:
    """When each rank is done, if a shared micro-batch begins once the last of its ranks has come to it."""
    clock, place = [0.0] * len(plan.micro), [0] * len(plan.micro)
    while any(at < len(packs) for at, packs in zip(place, plan.micro, strict=True)):
        moved = False
        for rank, packs in enumerate(plan.micro):
            if place[rank] == len(packs):
                continue
            pack = packs[place[rank]]
            if all(place[r] < len(plan.micro[r]) and plan.micro[r][place[r]] is pack for r in pack.ranks):
                g, lengths = pack.size, [int(plan.lengths[i]) for i in pack.samples]
                work = sum(cost.linear * n + cost.quadratic * n * n for n in lengths) / g
                sent = 0.0 if g == 1 else cost.exchange * sum(lengths) * (g - 1) / g**2 + cost.exchange_step
                begin = max(clock[r] for r in pack.ranks)
                for r in pack.ranks:
                    clock[r], place[r] = begin + work + sent + cost.step, place[r] + 1
                moved = True
        assert moved, "ranks wait for each other in a circle"
    return clock


def check(plan: StepPlan, cluster: Cluster, budget: Budget, cost: CostModel) -> None:
    """Every sample once, in aligned groups of a node, within the budgets, and the load is what is waited."""
    assert Counter(i for p in plan.balanced.packs for i in p.samples) == Counter(range(len(plan.draws)))
    for pack in plan.balanced.packs:
        assert pack.size & (pack.size - 1) == 0
        assert pack.size <= cluster.degree
        assert pack.first % pack.size == 0
        assert pack.first // cluster.size == (pack.ranks[-1]) // cluster.size
        lengths = plan.lengths[list(pack.samples)]
        assert -(-int(lengths.sum()) // pack.size) <= budget.tokens
        assert float(cost.of(lengths).sum()) / pack.size <= budget.flops * (1 + 1e-6)
        assert (plan.balanced.degrees[list(pack.samples)] == pack.size).all()
    for rank, packs in enumerate(plan.micro):
        assert all(rank in pack.ranks for pack in packs)
        sizes = [pack.size for pack in packs]
        assert sizes == sorted(sizes, reverse=True)
    np.testing.assert_allclose(plan.balanced.load, replay(plan, cost), rtol=1e-9)
    np.testing.assert_allclose(plan.balanced.useful, cost.of(plan.lengths).sum() / cluster.ranks, rtol=1e-9)


@settings(deadline=None, max_examples=200)
@given(
    lengths_of,
    clusters,
    costs,
    st.integers(0, 3),
    st.integers(1, 40),
    st.floats(0.3, 4.0),
    st.floats(0.3, 9.0),
)
def test_a_plan_is_whole_within_budget_and_takes_what_it_says(
    lengths: list[int],
    cluster: Cluster,
    cost: CostModel,
    step: int,
    batch_size: int,
    room: float,
    time: float,
) -> None:
    longest = max(lengths)
    # what exceeds a rank's budget has to be shared
    tokens = max(int(longest * room), -(-longest // cluster.degree))
    budget = Budget(tokens, float(cost.of(longest)) * max(time, 1 / cluster.degree))
    order = MixtureSampler([[len(lengths)]], [1], 0)
    plan = Planner(lengths, order, batch_size, cost, cluster, budget)(step)
    check(plan, cluster, budget, cost)
    again = Planner(lengths, order, batch_size, cost, cluster, budget)(step)
    assert (again.draws, again.micro) == (plan.draws, plan.micro)
    assert plan.draws == Planner(lengths, order, batch_size, cost, Cluster(), Budget(longest))(step).draws
    if tokens >= longest and time >= 1:  # then it is allowed to split nothing, and splits only if that wins
        single = balance(plan.lengths, cost, Cluster(cluster.ranks, cluster.node), budget)
        assert plan.balanced.load.max() <= single.load.max() * (1 + 1e-9)
        if plan.split_tokens:
            assert plan.balanced.load.max() < single.load.max()


def test_what_fits_no_rank_alone_is_shared() -> None:
    cluster = Cluster(8, 4, 4, 16)
    budget = Budget(300)
    lengths = [1000, 1000, 10, 20, 500]
    plan = Planner(lengths, MixtureSampler([[5]], [1], 0), 5, COST, cluster, budget)(0)
    check(plan, cluster, budget, COST)
    assert plan.balanced.degrees[plan.lengths == 1000].tolist() == [4, 4]
    with pytest.raises(ConfigError, match=r"sequence 0 has 2000 tokens.*more than 4 rank.*\(the-long-one\)"):
        Planner(
            [2000, 5],
            MixtureSampler([[2]], [1], 0),
            2,
            COST,
            cluster,
            budget,
            ["the-long-one", "b"].__getitem__,
        )
    with pytest.raises(ConfigError, match=r"sequence 0 has 2000 tokens.*\(the-longest\)"):
        Planner(
            [1900, 2000],
            MixtureSampler([[2]], [1], 0),
            2,
            COST,
            cluster,
            budget,
            ["long", "the-longest"].__getitem__,
        )
    quick = Budget(10**6, float(COST.of(1000)) / 2.5)
    check(Planner(lengths, MixtureSampler([[5]], [1], 0), 5, COST, cluster, quick)(0), cluster, quick, COST)
    with pytest.raises(ConfigError, match="flop_budget=1e"):
        Planner(lengths, MixtureSampler([[5]], [1], 0), 5, COST, Cluster(8), Budget(1000, 1e3))


PAPER = CostModel(24 * 2048**2, 4 * 2048)


def test_a_split_evens_out_what_whole_sequences_cannot() -> None:
    random = np.random.default_rng(0)
    lengths = np.concatenate([random.integers(18_000, 40_000, 24), random.integers(1000, 2000, 104)])
    single = balance(lengths, PAPER, Cluster(64, 8, 1, 16), Budget(10**6))
    mixed = balance(lengths, PAPER, Cluster(64, 8, 8, 16), Budget(10**6))
    assert single.imbalance > 1.3
    assert mixed.imbalance < 1.02
    few = balance(lengths, PAPER, Cluster(8, 8, 8, 16), Budget(10**6))
    assert few.degrees.max() == 1  # where whole sequences balance, none is split
    assert few.imbalance < 1.005


def test_sending_has_its_price() -> None:
    """One long sequence and short ones on two ranks: it is shared unless that costs more than it saves."""
    lengths, cluster, budget = [3000] + [300] * 4, Cluster(2, 2, 2, 2), Budget(10**6)
    for change in ({}, {"exchange": 3.0}, {"exchange_step": 1000.0}):
        cheap = balance(lengths, replace(COST, **change), cluster, budget)
        assert cheap.degrees[0] == 2
        price = 3000 / 4 * change.get("exchange", 0.0) + change.get("exchange_step", 0.0)
        assert cheap.load.max() == pytest.approx(float(COST.of(lengths).sum()) / 2 + price)
    for change in ({"exchange": 200.0}, {"exchange_step": 60_000.0}):
        dear = balance(lengths, replace(COST, **change), cluster, budget)
        assert dear.degrees.max() == 1
    slow_to_launch = balance(lengths, replace(COST, step=60_000.0), cluster, budget)
    assert len(slow_to_launch.packs) == 1  # then one micro-batch of all is the fastest


def test_few_sequences_leave_no_gaps() -> None:
    """Where the longest fits a rank alone and the next ones do not fit beside it."""
    two = balance([24, 24, 36], COST, Cluster(2, 2, 2, 4), Budget(60))
    assert two.degrees.tolist() == [1, 1, 2]
    assert two.imbalance == pytest.approx(1)
    four = balance([4000, 3000, 1000], COST, Cluster(4, 4, 4, 4), Budget(10**6))
    assert four.imbalance == pytest.approx(1)


def test_other_ways_to_share_a_step_are_told_in_the_same_cost() -> None:
    """By hand: 100 tokens and four of 10 on four ranks, a token costs 1."""
    lengths, cost = np.array([100, 10, 10, 10, 10]), CostModel(1.0, 0.0, 2.0, 8.0, 1.0)
    ways = alternatives(lengths, cost, Cluster(4, 4, 2, 4))
    useful = 140 / 4
    assert ways["never split"] == Alternative((100 + 2) / useful, 0.0)
    # pairs: (100) and (40), each over 2, 8 / 4 per token sent, and 3 to launch
    assert ways["groups of 2 for all"] == Alternative((50 + 200 + 3) / useful, 1.0)
    # two single bags and a pair, whose capacity of 70 does not hold the long one either
    mixed = ways["KnapFormer's g1n2+g2n1"]
    assert mixed == Alternative((50 + 200 + 3) / useful, 100 / 140)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((12, 8, 1, 16), "12 ranks are no whole number of nodes of 8"),
        ((4, 8, 8, 16), "shared by 8 ranks, a node has 4"),
        ((8, 8, 4, 2), "shared by 4 ranks, the model has 2 heads"),
        ((8, 8, 3, 16), "shared by 3 ranks: it must be a power of two .* at most 8"),
        ((6, 6, 4, 16), "divides a node's 6 ranks and the model's 16 heads, at most 2"),
        ((8, 8, 8, 12), "divides a node's 8 ranks and the model's 12 heads, at most 4"),
        ((0, 8, 1, 1), "must be positive"),
    ],
)
def test_a_cluster_that_does_not_fit_is_refused(values: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(BalanceError, match=message):
        Cluster(*values)


def test_coefficients_are_found_again_from_timings() -> None:
    random = np.random.default_rng(0)
    packs = [random.integers(100, 30_000, random.integers(1, 6)).tolist() for _ in range(60)]
    true = CostModel(2e-6, 3e-10, 0.01)
    times = [(true.of(p).sum() + true.step) * random.normal(1, 0.02) for p in packs]
    found = fit(packs, times)
    np.testing.assert_allclose(
        [found.linear, found.quadratic, found.step], [true.linear, true.quadratic, true.step], rtol=0.1
    )
    with pytest.raises(ValueError, match="at least three"):
        fit(packs[:2], times[:2])
    true = CostModel(2e-6, 3e-10, 0.01, 4e-6, 0.005)
    sizes = [1, 2, 4] * 20
    timed = list(zip(packs, sizes, strict=True))
    times = [(true.of(p, g).sum() + true.latency(g)) * random.normal(1, 0.005) for p, g in timed]
    found = fit(packs, times, sizes)
    np.testing.assert_allclose(astuple(found), astuple(true), rtol=0.2)
    np.testing.assert_allclose([found.of(p, g).sum() + found.latency(g) for p, g in timed], times, rtol=0.05)


def test_cost_by_formula_is_the_paper_s() -> None:
    config = DiTConfig(width=2048, depth=1, heads=16, hidden=8192, rope=RopeConfig((12, 4, 56, 56)))
    cost = by_formula(config)
    # KnapFormer's 24 L d^2 + 4 L^2 d is one forward pass; SwiGLU at 4 d has three matrices instead of two
    assert cost.linear == 3 * (24 + 8) * 2048**2
    assert cost.quadratic == 3 * 4 * 2048


MIXTURE = """
rows:
  a: {group: image, count: 10, ratio: 2, tokens: [{frame: [4, 8]}]}
  b: {group: video, count: 5, ratio: 1.5, tokens: [{frame: [4, 8], frames: [2, 3], copies: 2}]}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_an_overlay_changes_its_base(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", MIXTURE)
    overlay = write(
        tmp_path,
        "over.yaml",
        "base: base.yaml\ndrop: [video]\nchange: {a: {ratio: 3}}\n"
        "rows: {c: {count: 4, tokens: [{frame: [9, 9]}]}}",
    )
    rows = read_mixture(overlay).rows
    assert {name: (row.count, row.ratio) for name, row in rows.items()} == {"a": (10, 3.0), "c": (4, 1.0)}
    kept = read_mixture(write(tmp_path, "keep.yaml", "base: base.yaml\nkeep: [b]")).rows
    assert list(kept) == ["b"]
    order, lengths = synthetic_lengths(read_mixture(tmp_path / "base.yaml"), 10**6, 0)
    assert order.epoch == Fraction(55, 2)
    assert len(lengths) == 15
    assert lengths.min() >= 4 + 12
    assert Counter(d.index for d in order.draws(0, 55)) == dict.fromkeys(range(10), 4) | dict.fromkeys(
        range(10, 15), 3
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: {a: {ratio: 0}}", r"rows.a: ratio 0.0 must be above 0"),
        ("rows: {a: {ratio: -1}}", "must be above 0"),
        ("rows: {a: {weight: 1}}", "unknown field 'weight'"),
        (
            "base: base.yaml\ndrop: [nothing]",
            "drop: no row or group 'nothing'; rows are a, b; groups image, video",
        ),
        ("base: base.yaml\nchange: {x: {ratio: 1}}", "change: no row 'x'"),
        ("base: base.yaml\nchange: {a: {ratio: 0}}", "must be above 0"),
        ("base: base.yaml\nrows: {a: {count: 1}}", "'a' is in base.yaml already"),
        ("base: base.yaml\ndrop: [image, video]", "no rows are left"),
        ("base: missing.yaml", "missing.yaml"),
        ("row: {}", "unknown field 'row'"),
        ("- a", "expected `rows`"),
        ("rows: {a: {tokens: [{frame: [5, 2]}]}}", "frame: least and most"),
    ],
)
def test_a_mixture_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "base.yaml", MIXTURE)
    with pytest.raises(ConfigError, match=message):
        read_mixture(write(tmp_path, "bad.yaml", text))


def test_no_samples_are_an_error() -> None:
    with pytest.raises(ConfigError, match="no training samples"):
        MixtureSampler([[]], [1], 0)


def test_the_paper_s_mixture_is_planned_from_the_command_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mixtures = Path(__file__).parents[2] / "configs" / "train" / "mixtures"
    rows = read_mixture(mixtures / "editverse.yaml").rows
    sums = Counter[str]()
    for row in rows.values():
        sums[row.group] += row.count
    assert sums == {
        "image_editing": 6_033_214,
        "image_generation": 1_869_950,
        "video_editing": 287_503,
        "video_generation": 3_921_491,
    }
    models = mixtures.parents[1] / "model"
    command = ["plan", "--model", str(models / "2b.yaml"), "--ranks", "64", "--steps", "2"]
    small = ["--model", str(models / "small.yaml"), "--mixture", str(mixtures / "video_edit_only.yaml")]
    assert main([*command, *small]) == 0
    out = capsys.readouterr().out
    assert "video_editing" in out
    assert "image_editing" not in out
    picture = tmp_path / "plan.png"
    asked = ["--checkpointing", "full", "--tflops", "300", "--picture", str(picture)]
    assert main([*command, "--mixture", str(mixtures / "no_image.yaml"), *asked]) == 0
    out = capsys.readouterr().out
    assert "estimate" in out
    assert "waited maximum over mean" in out
    assert "KnapFormer's g1n32+g8n4" in out
    with Image.open(picture) as drawn:
        assert len(set(drawn.convert("L").resize((64, 64)).tobytes())) > 10  # bars, not an empty sheet
    assert main([*command, "--mixture", str(mixtures / "editverse.yaml"), "--token_budget", "1000"]) == 2
    assert "raise the budget or the sequence-parallel degree" in capsys.readouterr().err
    assert main([*command, "--mixture", str(mixtures / "no_image.yaml"), "--degree", "16"]) == 2
    assert "shared by 16 ranks, a node has 8" in capsys.readouterr().err
    assert main([*command, "--mixture", str(mixtures / "no_image.yaml"), "--steps", "0"]) == 2
    assert "at least 1, from 0 on" in capsys.readouterr().err
    assert main([*command, "--mixture", str(mixtures / "offline.yaml")]) == 2
    assert "row object_removal: a plan reads no shards, so the row needs its count" in capsys.readouterr().err


def test_steps_are_planned_by_measured_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fit_config: FitConfig
) -> None:
    model, out = tmp_path / "model.yaml", tmp_path / "cost.json"
    small = "{text_dim: 8, vision_dim: 8, width: 32, depth: 1, heads: 2, rope: {dims: [4, 4, 4, 4]}}"
    model.write_text(f"dit: {small}\n")
    measure = ["cost", "--model", str(model), "--out", str(out), "--token_budget"]
    assert main([*measure, "1024"]) == 0
    assert "written to" in capsys.readouterr().out
    found = read_cost(out)
    assert 0 < found.linear < 1e-3
    assert main([*measure, "1024", "--ranks", "3"]) == 2
    assert "3 ranks cannot share micro-batches" in capsys.readouterr().err
    assert main([*measure, "256"]) == 2
    mixture = write(tmp_path, "mixture.yaml", MIXTURE)
    plan = ["plan", "--mixture", str(mixture), "--model", str(model), "--batch_size", "8", "--steps", "2"]
    assert main([*plan, "--cost", str(out)]) == 0
    assert "as measured" in capsys.readouterr().out
    assert main([*plan, "--cost", str(mixture)]) == 2
    assert "mixture.yaml: not a measured cost" in capsys.readouterr().err

    # it changes who does what and not what is learned, and MFU counts operations either way
    pairs, _, _ = build_datasets(fit_config, None)
    steps = [PlannedSteps(pairs, fit_config.data, 0, 0, 3, cost=c) for c in (None, found)]
    assert [s[1].plan["flops"] for s in steps] == [
        by_formula(pairs.model.dit).of(steps[0].plan(1).lengths).sum()
    ] * 2
    assert steps[0].plan(1).draws == steps[1].plan(1).draws


def test_a_cost_of_before_sending_was_measured_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, "cost.json", '{"linear": 1e-6, "quadratic": 1e-10, "step": 0.01, "measured": {}}')
    assert read_cost(file) == CostModel(1e-6, 1e-10, 0.01)
    file = write(
        tmp_path, "cost.json", '{"linear": 1, "quadratic": 2, "step": 3, "exchange": 4, "exchange_step": 5}'
    )
    assert read_cost(file) == CostModel(1, 2, 3, 4, 5)


@pytest.mark.slow
def test_sending_is_measured_on_two_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real processes; how long it takes is not for a test to say."""
    model, out = tmp_path / "model.yaml", tmp_path / "cost.json"
    small = "{text_dim: 8, vision_dim: 8, width: 64, depth: 1, heads: 4, rope: {dims: [4, 4, 4, 4]}}"
    model.write_text(f"dit: {small}\n")
    options = ["--token_budget", "1024", "--device", "cpu", "--precision", "32-true", "--ranks", "2"]
    assert main(["cost", "--model", str(model), "--out", str(out), *options]) == 0
    assert "s per token sent" in " ".join(capsys.readouterr().out.split())
    measured = json.loads(out.read_text())
    assert measured["measured"]["ranks"] == 2
    assert read_cost(out).exchange == measured["exchange"]
