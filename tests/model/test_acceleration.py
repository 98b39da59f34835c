"""Shortcuts of sampling: what is left out, what is not, and what becomes of the result."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model import Editor
from model.acceleration.config import Shortcuts
from model.acceleration.network import accelerated, weight_bytes
from model.acceleration.step_cache import Evaluations, Recorder, relative_change
from model.config import InferenceConfig
from model.flow.flow_matching import FlowConfig
from model.inference.sampler import Job, packs, sample, sample_many
from model.net.dit import DiT
from model.net.frozen_linear import freeze_base
from model.net.transformer import Transformer
from model.net.wan import WanExperts, WanTransformer
from model.sequence.interleave import (
    SequenceConfig,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
)
from shards.errors import SettingError
from tests.model.wan_cases import BERNINI

FLOW = FlowConfig()
NEVER = Shortcuts(step_cache=100.0)  # runs the network at the first and the last step alone


def job(seed: int, frames: int = 2, known: int = 0, text_dim: int = 8) -> Job:
    """A source, words and a target; and the same without its words. Some tokens of the target are known."""
    random = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(frames, 4, 6, 3, generator=random) for _ in range(2))
    words = torch.randn(3 + seed, text_dim, generator=random)
    media = [VisionElement("video1", source), VisionElement("video2", target, target=True)]
    layout = SequenceConfig(patch=2)
    with_text = build_sequence([media[0], TextElement(words), media[1]], layout, spatial=8)
    without = build_sequence(list(media), layout, spatial=8)
    noise = torch.randn(frames * 6, 12, generator=random)
    given = torch.randn(known, 12, generator=random) if known else None
    return Job(with_text, without, noise, known=given)


def wan_job(seed: int) -> Job:
    """As `job`, of Wan's family, whose words are prompts."""
    random = torch.Generator().manual_seed(seed)
    layout = SequenceConfig(pixel_positions=False, text="cross_attention", first_axis="source")

    def built(words: int) -> TokenSequence:
        return build_sequence(
            [
                VisionElement("video1", torch.randn(2, 4, 6, 4, generator=random)),
                TextElement(torch.randn(words, 32, generator=random)),
                VisionElement("video2", torch.zeros(2, 4, 6, 4), target=True),
            ],
            layout,
        )

    return Job(built(5), built(1), torch.randn(12, 16, generator=random))


def wan(seed: int = 0) -> WanTransformer:
    """A tiny member of Wan's family whose output is not zero."""
    torch.manual_seed(seed)
    network = WanTransformer(BERNINI)
    nn.init.normal_(network.proj_out.weight, std=0.1)
    return network.eval()


def experts() -> WanExperts:
    network = WanExperts(dataclasses.replace(BERNINI, boundary=0.875))
    network.transformer, network.transformer_2 = wan(1), wan(2)
    return network


def runs(network: nn.Module) -> list[float]:
    """The target's time at every run of a network from now on."""
    times: list[float] = []

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        times.append(round(float(inputs[2][inputs[0].target_segment][0]), 6))

    network.register_forward_pre_hook(note)
    return times


@pytest.mark.parametrize("family", ["dit", "wan", "experts"])
@torch.no_grad()
def test_what_is_measured_is_what_the_first_block_is_given(trained_like: DiT, family: str) -> None:
    networks: dict[str, Transformer] = {"dit": trained_like, "wan": wan(), "experts": experts()}
    network = networks[family]
    seen: list[Tensor] = []
    first = network.blocks[0].get_submodule("attention" if family == "dit" else "attn1")
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    one = job(0) if family == "dit" else wan_job(0)
    sample_many(network, [one], FLOW, InferenceConfig(steps=1, guidance=1.0))
    tokens = len(one.noise)
    target = seen[0][-1 - tokens : -1] if family == "dit" else seen[0][-tokens:]  # an end token, or none
    torch.testing.assert_close(network.step_input(one.noise, 0.0), target)


@pytest.mark.parametrize(
    ("solver", "times"),
    [
        ("euler", [0.0, 0.875]),
        ("midpoint", [0.0, 0.0625, 0.875, 0.9375]),
        ("unipc", [0.0, 0.875]),
    ],
)
@torch.no_grad()
def test_the_first_and_the_last_step_are_computed_whatever_the_threshold(
    trained_like: DiT, solver: Literal["euler", "midpoint", "unipc"], times: list[float]
) -> None:
    calls, counts = runs(trained_like), Evaluations()
    config = InferenceConfig(steps=8, guidance=2.0, solver=solver)
    sample_many(trained_like, [job(0)], FLOW, config, shortcuts=NEVER, evaluations=counts)
    assert calls == [t for t in times for _ in range(2)]  # with the text and without
    asked = 32 if solver == "midpoint" else 16
    assert (counts.computed, counts.reused) == (len(calls), asked - len(calls))
    assert counts.describe() == f"{len(calls)} of {asked} network evaluations computed"


@torch.no_grad()
def test_a_threshold_lies_between_all_and_hardly_any(trained_like: DiT) -> None:
    config = InferenceConfig(steps=16, guidance=2.0)
    plain = sample_many(trained_like, [job(0)], FLOW, config)[0]
    computed, errors = [], []
    for threshold in (1e-9, 0.7, 2.0, 100.0):
        counts = Evaluations()
        shortcuts = Shortcuts(step_cache=threshold)
        made = sample_many(trained_like, [job(0)], FLOW, config, shortcuts=shortcuts, evaluations=counts)[0]
        computed.append(counts.computed)
        errors.append(float((made - plain).norm() / plain.norm()))
    assert (computed[0], errors[0]) == (32, 0.0)
    assert computed == sorted(computed, reverse=True)
    assert len(set(computed)) == 4
    assert errors == sorted(errors)


@torch.no_grad()
def test_where_guidance_begins_all_branches_are_computed(trained_like: DiT) -> None:
    calls = runs(trained_like)
    config = InferenceConfig(steps=8, guidance=2.0, interval=(0.5, 0.75))
    sample_many(trained_like, [job(0)], FLOW, config, shortcuts=NEVER)
    assert calls == [0.0, 0.5, 0.5, 0.875]


@torch.no_grad()
def test_a_prediction_of_clean_data_is_taken_again_not_its_velocity(trained_like: DiT) -> None:
    """Towards x1 from where the tokens are now; so three quarters of the way there after three steps of 4."""
    flow, config = FlowConfig(prediction="x1"), InferenceConfig(steps=4, guidance=1.0)
    steps: list[Tensor] = []
    trained_like.register_forward_hook(lambda *call: steps.append(call[2][0]))
    given: list[Tensor] = []
    trained_like.register_forward_pre_hook(lambda _, inputs: given.append(inputs[1][inputs[0].target_vision]))
    one = job(0)
    sample_many(trained_like, [one], flow, config, shortcuts=NEVER)
    assert len(given) == 2
    torch.testing.assert_close(given[1], torch.lerp(one.noise, steps[0], 0.75))


@torch.no_grad()
def test_a_fit_turns_changes_of_the_input_into_those_of_the_prediction(trained_like: DiT) -> None:
    config = InferenceConfig(steps=12, guidance=2.0)
    with Recorder(trained_like) as recorder:
        for seed in (0, 1):
            sample_many(trained_like, [job(seed)], FLOW, config)
    sample_many(trained_like, [job(2)], FLOW, config)  # no longer watched
    assert [len(run) for run in (*recorder.inputs, *recorder.outputs)] == [11] * 4
    polynomial = recorder.fit(degree=2)
    inputs, outputs = np.concatenate(recorder.inputs), np.concatenate(recorder.outputs)
    fitted = np.polyval(polynomial, inputs)
    assert ((fitted - outputs) ** 2).mean() < ((inputs - outputs) ** 2).mean()
    with pytest.raises(ValueError, match="needs more than 23 changes"):
        recorder.fit(degree=22)
    counts = [Evaluations(), Evaluations()]
    for number, scale in enumerate((1.0, 10.0)):
        shortcuts = Shortcuts(step_cache=0.5, step_cache_polynomial=(scale, 0.0))
        sample_many(trained_like, [job(0)], FLOW, config, shortcuts=shortcuts, evaluations=counts[number])
    assert counts[0].computed < counts[1].computed


@pytest.mark.parametrize("polynomial", [(), (2.0, 0.1)])
@torch.no_grad()
def test_a_threshold_for_a_share_of_the_evaluations_computes_that_share(
    trained_like: DiT, polynomial: tuple[float, ...]
) -> None:
    config = InferenceConfig(steps=12, guidance=1.0)
    with Recorder(trained_like) as recorder:
        sample_many(trained_like, [job(0)], FLOW, config)
    for share, computed in ((1.0, 12), (0.5, 6), (0.34, 4)):
        threshold = recorder.threshold(share, polynomial)
        shortcuts = Shortcuts(step_cache=threshold, step_cache_polynomial=polynomial)
        counts = Evaluations()
        sample_many(trained_like, [job(0)], FLOW, config, shortcuts=shortcuts, evaluations=counts)
        # a reused prediction moves the tokens on otherwise than those that were recorded
        assert computed - 2 <= counts.computed <= computed + 1


def test_a_change_is_relative_to_what_was_before() -> None:
    assert relative_change(torch.tensor([3.0, -1.0]), torch.tensor([2.0, -2.0])) == 0.5


@pytest.mark.parametrize(("weights", "error"), [("int8", 0.02), ("fp8", 0.1)])
@torch.no_grad()
def test_weights_in_eight_bits_take_a_quarter_and_give_nearly_the_same(
    trained_like: DiT, weights: Literal["int8", "fp8"], error: float
) -> None:
    config = InferenceConfig(steps=2, guidance=2.0)
    plain = sample_many(trained_like, [job(0)], FLOW, config)[0]
    blocks = weight_bytes(trained_like)
    linear = sum(m.weight.nbytes for m in trained_like.blocks.modules() if isinstance(m, nn.Linear))
    rows = sum(m.out_features for m in trained_like.blocks.modules() if isinstance(m, nn.Linear))
    with accelerated(trained_like, Shortcuts(weights=weights)):
        made = sample_many(trained_like, [job(0)], FLOW, config)[0]
    assert weight_bytes(trained_like) == blocks - linear + linear // 4 + 4 * rows
    assert 0 < float((made - plain).norm() / plain.norm()) < error
    with accelerated(trained_like, Shortcuts(weights=weights)):  # rounded once
        assert torch.equal(sample_many(trained_like, [job(0)], FLOW, config)[0], made)
    with pytest.raises(SettingError, match=f"rounded to {weights} by an edit before.*load the model anew"):
        accelerated(trained_like, Shortcuts()).__enter__()


@pytest.mark.parametrize("solver", ["euler", "unipc"])
@pytest.mark.parametrize("context", ["full", "cached"])
@torch.no_grad()
def test_edits_side_by_side_are_what_they_are_alone(
    trained_like: DiT, context: Literal["full", "cached"], solver: Literal["euler", "unipc"]
) -> None:
    network = DiT(dataclasses.replace(trained_like.config, context=context)).eval()
    network.load_state_dict(trained_like.state_dict())
    jobs = [job(0), job(1, frames=3), job(2, frames=1, known=4)]
    config = InferenceConfig(steps=3, guidance=2.0, solver=solver, rescale=0.5)
    calls = runs(network)
    together = sample_many(network, jobs, FLOW, config)
    assert len(calls) == 6
    for one, made in zip(jobs, together, strict=True):
        torch.testing.assert_close(made, sample_many(network, [one], FLOW, config)[0])
    known = jobs[2].known
    assert known is not None
    torch.testing.assert_close(together[2][:4], known)


@torch.no_grad()
def test_edits_of_wan_s_family_too_with_projected_guidance() -> None:
    network, jobs = wan(), [wan_job(0), wan_job(1)]
    config = InferenceConfig(steps=3, guidance=4.0, solver="unipc_wan", eta=0.5, norm=2.0, momentum=-0.5)
    for one, made in zip(jobs, sample_many(network, jobs, FLOW, config), strict=True):
        alone = sample(network, one.with_text, one.without_text, one.noise, FLOW, config)
        torch.testing.assert_close(made, alone)


def test_packs_hold_what_is_alike_within_a_budget() -> None:
    shifted = FlowConfig(shift=3.0, shift_tokens=12)  # so that times depend on length
    jobs = [job(0), job(0, frames=3), job(0), job(0), job(0, frames=3)]
    tokens = jobs[0].tokens
    assert packs(jobs, FLOW, InferenceConfig(), 10**6) == [[0, 1, 2, 3, 4]]
    assert packs(jobs, shifted, InferenceConfig(), 10**6) == [[0, 2, 3], [1, 4]]
    assert packs(jobs, shifted, InferenceConfig(), 2 * tokens) == [[0, 2], [1], [3], [4]]
    assert packs(jobs, FLOW, InferenceConfig(), 1) == [[0], [1], [2], [3], [4]]
    with pytest.raises(ValueError, match="differ in the times"):
        sample_many(DiT.__new__(DiT), jobs[:2], shifted, InferenceConfig())


def test_an_edit_says_what_was_computed(editor: Editor) -> None:
    video = np.zeros((5, 48, 64, 3), np.uint8)
    options: dict[str, Any] = {"video1": video, "steps": 6}
    plain = editor("<video1> Make it red.", **options)
    assert "evaluations" not in plain.describe()
    edit = editor("<video1> Make it red.", **options, shortcuts=NEVER)
    assert " · 2 of 6 network evaluations computed" in edit.describe()


def test_a_list_of_edits_runs_the_network_once_for_all(editor: Editor) -> None:
    """But not for one that takes several windows; the longer one is sampled on its own."""
    clips = [np.full((frames, 48, 64, 3), 20 * frames, np.uint8) for frames in (3, 5, 9)]
    texts = ["<video1> Make it red.", "<video1> Remove the big dog.", "<video1> Make it blue."]
    calls: list[int] = []
    hook = editor.dit.register_forward_pre_hook(lambda *_: calls.append(0))
    ticks: list[tuple[int, int]] = []
    together = editor(texts, video1=clips, steps=2, progress=lambda *tick: ticks.append(tick))
    sampled = len(calls)
    alone = [editor(text, video1=clip, steps=2) for text, clip in zip(texts, clips, strict=True)]
    assert len(calls) - sampled == sampled + 2  # two of three share their two steps
    assert ticks == [(n + 1, len(calls) - sampled) for n in range(len(calls) - sampled)]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.frames.astype(int) - other.frames).max() <= 1
    editor(texts[:2], video1=clips[:2], steps=2, shortcuts=NEVER)
    assert len(calls) == 2 * sampled + 2 + 4  # one by one
    hook.remove()


@pytest.mark.slow
@torch.no_grad()
def test_compiled_blocks_give_the_same_and_leave_the_network_as_it_was(trained_like: DiT) -> None:
    network = DiT(dataclasses.replace(trained_like.config, depth=1)).eval()
    network.load_state_dict(trained_like.state_dict(), strict=False)
    one, config = job(0), InferenceConfig(steps=2, guidance=1.0)
    plain = sample_many(network, [one], FLOW, config)[0]
    block: Any = network.blocks[0]
    with accelerated(network, Shortcuts(compile=True)):
        assert "forward" in vars(block)
        made = sample_many(network, [one], FLOW, config)[0]
    torch.testing.assert_close(made, plain, rtol=1e-4, atol=1e-4)
    assert "forward" not in vars(block)


def test_weights_that_were_loaded_in_fewer_bits_stay_so(trained_like: DiT) -> None:
    trained_like.requires_grad_(False)
    freeze_base(trained_like, "int8")
    with accelerated(trained_like, Shortcuts()):
        pass
    with (
        pytest.raises(SettingError, match=r"loaded in fewer bits \(int8\)"),
        accelerated(trained_like, Shortcuts(weights="fp8")),
    ):
        pass
