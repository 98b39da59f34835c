"""The transformer computes the same alone, packed and padded, and starts from a known loss.

Also rotary positions and attention backends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from model.net.attention import attention, choose_backend
from model.net.blocks import modulate
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.interleave import TokenSequence
from model.sequence.packing import PackedBatch, pack
from model.sequence.rope import RopeConfig, inverse_frequencies, paper_dims, rotate, rotation


def times(batch: PackedBatch, values: list[float]) -> torch.Tensor:
    """Timesteps of segments: the targets' in order, 1 elsewhere."""
    timestep = torch.ones(batch.segments)
    timestep[batch.target_segment] = torch.tensor(values)
    return timestep


def run(
    dit: DiT, sequences: list[TokenSequence], t: list[float], pad_to: int | None = None
) -> list[torch.Tensor]:
    batch = pack(sequences, pad_to)
    with torch.no_grad():
        out = dit(batch, batch.vision, times(batch, t))[0]
    return [out[batch.target_sequence == i] for i in range(len(sequences))]


def test_alone_packed_and_padded_agree(
    trained_like: DiT, make_sequence: Callable[..., TokenSequence]
) -> None:
    sequences = [make_sequence(0), make_sequence(1, frames=3, words=1), make_sequence(2, height=2)]
    t = [0.1, 0.6, 0.9]
    alone = [run(trained_like, [s], [v])[0] for s, v in zip(sequences, t, strict=True)]
    packed = run(trained_like, sequences, t)
    padded = run(trained_like, sequences, t, pad_to=sum(map(len, sequences)) + 37)
    backwards = run(trained_like, sequences[::-1], t[::-1])[::-1]
    for one, *others in zip(alone, packed, padded, backwards, strict=True):
        assert one.std() > 0.1  # the comparison is of something
        for other in others:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_every_input_reaches_the_target(
    trained_like: DiT, make_sequence: Callable[..., TokenSequence]
) -> None:
    sequence = make_sequence()
    base = run(trained_like, [sequence], [0.5])[0]
    text = run(trained_like, [dataclasses.replace(sequence, text=sequence.text + 1)], [0.5])[0]
    vision = sequence.vision.clone()
    vision[0] += 1
    source = run(trained_like, [dataclasses.replace(sequence, vision=vision)], [0.5])[0]
    later = run(trained_like, [sequence], [0.6])[0]
    for other in (text, source, later):
        assert (base - other).abs().max() > 1e-3


def test_norms_of_queries_and_keys_take_out_their_length(
    trained_like: DiT, make_sequence: Callable[..., TokenSequence]
) -> None:
    bare = DiT(dataclasses.replace(trained_like.config, qk_norm=False)).eval()
    bare.load_state_dict(trained_like.state_dict(), strict=False)
    for name in ("q", "k"):
        for dit, changes in ((trained_like, False), (bare, True)):
            before = run(dit, [make_sequence()], [0.5])[0]
            with torch.no_grad():
                for block in dit.blocks:
                    getattr(block.attention, name).weight.mul_(5.0)
            gap = (run(dit, [make_sequence()], [0.5])[0] - before).abs().max()
            assert (gap > 1e-2) if changes else (gap < 1e-4), (name, gap)


def test_modulation_of_nought_leaves_tokens_and_each_segment_has_its_own() -> None:
    x, nought = torch.randn(3, 4), torch.zeros(2, 4)
    segment = torch.tensor([0, 1, 1])
    assert torch.equal(modulate(x, nought, nought, segment), x)
    shift, scale = torch.randn(2, 4), torch.randn(2, 4)
    moved = modulate(x, shift, scale, segment)
    torch.testing.assert_close(moved[2], x[2] * (1 + scale[1]) + shift[1])


def test_each_axis_turns_its_own_channels() -> None:
    config = RopeConfig(dims=(2, 4, 6, 8))
    channels = {0: [0], 1: [1, 2], 2: [3, 4, 5], 3: [6, 7, 8, 9]}
    for axis, own in channels.items():
        position = torch.zeros(1, 4)
        position[0, axis] = 0.5
        _, sin = rotation(position, config)
        assert sin[0].nonzero().flatten().tolist() == own


def test_output_starts_at_zero(dit_config: DiTConfig, make_sequence: Callable[..., TokenSequence]) -> None:
    assert not run(DiT(dit_config), [make_sequence()], [0.3])[0].any()


def test_rotation_depends_on_distance_alone() -> None:
    config = RopeConfig(dims=(4, 4, 4, 4), ntk=(1.0, 1.0, 2.0, 4.0))
    q, k = torch.randn(1, 1, 16), torch.randn(1, 1, 16)

    def score(a: list[int], b: list[int]) -> float:
        turned = [rotate(x, *rotation(torch.tensor([p]), config)) for x, p in ((q, a), (k, b))]
        return float((turned[0] * turned[1]).sum())

    assert score([5, 1, 3, 7], [2, 0, 1, 1]) == pytest.approx(
        score([15, 11, 13, 17], [12, 10, 11, 11]), abs=1e-5
    )
    assert score([5, 1, 3, 7], [2, 0, 1, 1]) != pytest.approx(score([5, 1, 3, 8], [2, 0, 1, 1]), abs=1e-5)


def test_ntk_slows_the_lowest_frequency_by_its_factor() -> None:
    plain, scaled = (inverse_frequencies(RopeConfig(dims=(12,), ntk=(s,)))[0] for s in (1.0, 8.0))
    assert scaled[0] == plain[0]
    assert float(plain[-1] / scaled[-1]) == pytest.approx(8.0)


def test_paper_split_and_its_scaling() -> None:
    assert paper_dims(128) == (12, 4, 56, 56)
    for size in range(16, 256, 8):
        dims = paper_dims(size)
        assert sum(dims) == size
        assert all(d >= 2 and d % 2 == 0 for d in dims)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backends_agree(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(20, heads, 16, dtype=dtype) for heads in (4, 2, 2))
    bounds = torch.tensor([0, 7, 7, 20], dtype=torch.int32)  # an empty sequence too
    sdpa, matmul = (attention(q, k, v, bounds, 13, name) for name in ("sdpa", "matmul"))
    torch.testing.assert_close(sdpa, matmul, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=0)


def test_a_backend_that_cannot_run_is_an_error() -> None:
    with pytest.raises(ValueError, match="'varlen' needs CUDA"):
        choose_backend("varlen", "cpu", torch.bfloat16, 10)
    with pytest.raises(ValueError, match="unknown backend"):
        choose_backend("fast", "cpu", torch.float32, 10)  # type: ignore[arg-type]
    assert choose_backend("auto", "cpu", torch.float32, 10) == "sdpa"


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="does not divide into 3 heads"):
        DiTConfig(width=32, heads=3)
    with pytest.raises(ValueError, match="add up to 16, heads have 8"):
        DiTConfig(width=32, heads=4, rope=RopeConfig(dims=(4, 4, 4, 4)))
    with pytest.raises(ValueError, match="even number"):
        RopeConfig(dims=(3, 3, 4, 4))
