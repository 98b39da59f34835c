"""Source tokens far from the change are dropped or pooled; what is left is where it was, and edits go on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import Editor
from model.acceleration.config import Shortcuts
from model.acceleration.sparse_context import change_distance, kept_tokens, sparse_sequence
from model.config import InferenceConfig, MediaConfig, ModelConfig
from model.encoders import part
from model.net.attention import attention
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.net.wan import WanTransformer
from model.net.wan_config import WanConfig
from model.sequence.interleave import (
    VISION,
    SequenceConfig,
    SequenceError,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
)
from model.sequence.packing import pack
from shards.serialization import to_dict

Size = tuple[int, int, int]


def two_videos(size: Size, text: str = "inline") -> TokenSequence:
    """A source and a target of `size` tokens, and three words."""
    t, rows, columns = size
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(t, 2 * rows, 2 * columns, 3, generator=generator) for _ in range(2))
    words = TextElement(torch.randn(3, 16, generator=generator))
    elements = [VisionElement("video1", source), words, VisionElement("video2", target, target=True)]
    first_axis = "sequence" if text == "inline" else "source"
    return build_sequence(elements, SequenceConfig(text=text, first_axis=first_axis), spatial=8)  # type: ignore[arg-type]


def source_rows(sequence: TokenSequence) -> torch.Tensor:
    segment = sequence.segments[0]
    places = torch.arange(segment.start, segment.stop)
    return places[sequence.kind[segment.start : segment.stop] == VISION]


def test_all_of_a_context_is_the_same_sequence() -> None:
    sequence = two_videos((2, 3, 4))
    weight = torch.from_numpy(kept_tokens(np.arange(24.0), 1.0))
    assert weight.tolist() == [1] * 24
    assert sparse_sequence(sequence, {"video1": weight}, "pool") is sequence


@pytest.mark.parametrize("text", ["inline", "cross_attention"])
@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    share=st.floats(0, 1),
    block=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_tokens_are_as_many_as_computed_and_where_they_were(
    text: str, size: Size, share: float, block: int, seed: int
) -> None:
    n = math.prod(size)
    changed = np.random.default_rng(seed).random(size) < 0.2
    weight = torch.from_numpy(kept_tokens(change_distance(changed).flatten(), share))
    kept = weight > 0
    assert kept.sum() == max(1, round(share * n))
    assert float(weight.sum()) == pytest.approx(n, rel=1e-5)
    sequence = two_videos(size, text)
    first = source_rows(sequence)
    rows: dict[str, int] = {}
    rows["drop"] = int(kept.sum())
    by_block = {
        (t, r // block, c // block)
        for (t, r, c), keep in zip(np.ndindex(size), kept.tolist(), strict=True)
        if not keep
    }
    rows["pool"] = rows["drop"] + len(by_block)
    for beyond, count in rows.items():
        sparse = sparse_sequence(sequence, {"video1": weight}, beyond, block)  # type: ignore[arg-type]
        own = source_rows(sparse)
        assert len(own) == count
        assert len(sparse) == len(sequence) - n + count
        places, values = sparse.positions[own][: rows["drop"]], sparse.vision[: rows["drop"]]
        assert torch.equal(places.double(), sequence.positions[first][kept].double())
        assert torch.equal(values, sequence.vision[:n][kept])
        # the target, its positions, and the words are those of the whole
        tail = len(sequence) - sequence.segments[0].stop
        assert torch.equal(sparse.positions[-tail:].double(), sequence.positions[-tail:].double())
        assert torch.equal(sparse.vision[count:], sequence.vision[n:])
        assert [s.size for s in sparse.segments] == [s.size for s in sequence.segments]
        assert sparse.segments[-1].stop == len(sparse)
        if sparse.weight is not None:
            assert float(sparse.weight[own].sum()) == pytest.approx(n, rel=1e-5)
            assert sparse.weight[-tail:].tolist() == [1] * tail


def test_a_pooled_token_is_the_mean_of_its_block() -> None:
    sequence = two_videos((1, 2, 4))
    weight = torch.tensor([1.0, 1, 0, 0, 1, 0, 0, 0])  # row 0: kept, kept, gone, gone
    sparse = sparse_sequence(sequence, {"video1": weight}, "pool")
    left, right = torch.tensor([5]), torch.tensor([2, 3, 6, 7])
    rows = source_rows(sparse)
    for place, block in ((3, left), (4, right)):
        torch.testing.assert_close(sparse.vision[place], sequence.vision[block].mean(0))
        wanted = sequence.positions[source_rows(sequence)][block].float().mean(0)
        torch.testing.assert_close(sparse.positions[rows[place]], wanted)
    assert sparse.weight is not None
    assert sparse.weight[rows].tolist() == [1, 1, 1, 1, 4]


@pytest.mark.parametrize("backend", ["sdpa", "matmul"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_key_of_weight_three_is_three_keys(backend: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(6, 2, 16).to(dtype) for _ in range(3))
    weight = torch.tensor([1, 3, 1, 1, 2, 1])
    lengths = torch.tensor([0, 6], dtype=torch.int32)
    found = attention(q, k, v, lengths, 6, backend, key_bias=weight.float().log())  # type: ignore[arg-type]
    repeated = (x.repeat_interleave(weight, 0) for x in (k, v))
    keys = torch.tensor([0, 9], dtype=torch.int32)
    wanted = attention(q, *repeated, lengths, 6, backend, cu_seqlens_k=keys, max_seqlen_k=9)  # type: ignore[arg-type]
    torch.testing.assert_close(found, wanted, atol=1e-6 if dtype == torch.float32 else 2e-2, rtol=0)


@pytest.mark.parametrize("context", ["full", "cached"])
@pytest.mark.parametrize("beyond", ["drop", "pool"])
def test_packed_is_as_alone(context: str, beyond: str) -> None:
    torch.manual_seed(0)
    config = DiTConfig(text_dim=16, vision_dim=12, width=32, depth=2, heads=2, context=context)  # type: ignore[arg-type]
    network = DiT(config).eval()
    torch.nn.init.normal_(network.out.weight)
    whole = two_videos((2, 4, 5))
    weight = torch.from_numpy(kept_tokens(np.arange(40.0), 0.4))
    sparse = sparse_sequence(whole, {"video1": weight}, beyond)  # type: ignore[arg-type]

    def run(sequences: list[TokenSequence], pad_to: int | None = None) -> list[torch.Tensor]:
        batch = pack(sequences, pad_to)
        timestep = torch.ones(batch.segments)
        timestep[batch.target_segment] = 0.3
        with torch.no_grad():
            out = network(batch, batch.vision, timestep)[0]
            if context == "cached":
                kept = network(batch, batch.vision, timestep, network.prefill_context(batch))[0]
                torch.testing.assert_close(out, kept, atol=1e-5, rtol=0)
        return [out[batch.target_sequence == i] for i in range(len(sequences))]

    alone = [run([s])[0] for s in (sparse, whole)]
    assert (alone[0] - alone[1]).abs().max() > 1e-3  # the context matters
    for packed in (run([sparse, whole]), run([whole, sparse], pad_to=300)[::-1]):
        for one, other in zip(alone, packed, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def nano() -> Editor:
    return Editor.from_pretrained("nano")


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, np.ndarray]:
    """A grey floor with a red block, uint8 [5, 96, 128, 3], and a mask of the block and a rim."""
    frames = np.tile(np.linspace(90, 160, 128, dtype=np.uint8)[None, None, :, None], (5, 96, 1, 3))
    mask = np.zeros_like(frames)
    frames[:, 40:60, 30:50] = (200, 30, 30)
    mask[:, 36:64, 26:54] = 255
    return frames, mask


@pytest.mark.parametrize("beyond", ["pool", pytest.param("drop", marks=pytest.mark.slow)])
def test_an_edit_within_a_mask_differs_little(
    nano: Editor, clip: tuple[np.ndarray, np.ndarray], beyond: str
) -> None:
    frames, mask = clip
    text = "<video1> Use <mask> to remove the red cube. <video2>"
    whole = nano(text, video1=frames, mask=mask)
    half = nano(text, video1=frames, mask=mask, shortcuts=Shortcuts(context_tokens=0.5, beyond=beyond))  # type: ignore[arg-type]
    assert not np.array_equal(whole.raw, half.raw)  # something was left out
    inside = mask[..., 0] > 0
    assert np.abs(whole.frames.astype(int) - half.frames)[inside].mean() < 25
    # without the transfer of details too, what is far from the mask is the source's
    far = np.abs(half.raw.astype(int) - whole.raw)[:, :, 100:]
    assert far.mean() < 3
    # all of it is no shortcut
    same = nano(text, video1=frames, mask=mask, shortcuts=Shortcuts(context_tokens=1.0))
    assert np.array_equal(same.frames, whole.frames)


@pytest.mark.slow
def test_without_a_mask_the_first_step_looks(nano: Editor, clip: tuple[np.ndarray, np.ndarray]) -> None:
    text, frames = "<video1> Remove the red cube.", clip[0]
    shortcuts = Shortcuts(context_tokens=0.25)
    sparse, whole = nano(text, video1=frames, shortcuts=shortcuts), nano(text, video1=frames)
    assert not np.array_equal(sparse.raw, whole.raw)
    with pytest.raises(SequenceError, match="without a mask the first step"):
        nano(text, video1=frames, shortcuts=shortcuts, steps=1)
    # the pass that marks a region has all, the one that edits is sparse
    marked = nano(text, video1=frames, shortcuts=shortcuts, ground=True)
    assert np.array_equal(marked.region, nano(text, video1=frames, ground=True).region)


def test_what_edits_nothing_is_refused(nano: Editor) -> None:
    with pytest.raises(SequenceError, match="context_tokens: leaves out parts of what is edited"):
        nano("A red fox. <video1>", frames=5, shortcuts=Shortcuts(context_tokens=0.5))


def test_wans_family_takes_a_sparse_context() -> None:
    """With guidance and a picture beside the video; the result is of the source's size, and of another."""
    network = WanConfig(text_dim=384, vision_dim=24, width=32, depth=1, heads=2, hidden=32, text_tokens=32)
    config = ModelConfig(
        vae=part("model.encoders.transform.TransformCodec", keep=[[3, 1], [1, 0]]),
        sequence=SequenceConfig(pixel_positions=False, text="cross_attention", first_axis="source"),
        transformer=part("model.net.wan.WanTransformer", **to_dict(network)),
        media=MediaConfig(min_area=48 * 64, max_area=48 * 64, frames=5),
        inference=InferenceConfig(steps=3, guidance=2.0),
    )
    torch.manual_seed(0)
    transformer = WanTransformer(network).eval()
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.2)
    editor = Editor(transformer, config)
    rng = np.random.default_rng(0)
    video, picture = (rng.integers(0, 255, shape, np.uint8) for shape in ((5, 48, 64, 3), (48, 64, 3)))
    for more in ({}, {"size": (64, 48)}):
        made = [
            editor(
                "<video1> Make the wall look like <image1>.",
                video1=video,
                image1=picture,
                shortcuts=Shortcuts(context_tokens=share),
                **more,
            ).raw
            for share in (1.0, 0.3)
        ]
        assert made[0].shape == made[1].shape
        assert not np.array_equal(made[0], made[1])
