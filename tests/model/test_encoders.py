"""The offline encoders: an orthonormal transform that crops back exactly, and real text tokens only.

MiniLM is the installed package's.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.encoders import build, part
from model.encoders.text import MiniLM
from model.encoders.transform import COLOURS, HAAR, TransformCodec, cosine_basis, psnr

FULL = [[64, 64]] * 4


@pytest.mark.parametrize("matrix", [HAAR, COLOURS, cosine_basis(8), cosine_basis(4)])
def test_bases_are_orthonormal(matrix: torch.Tensor) -> None:
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 11), st.integers(1, 21), st.integers(1, 21))
def test_full_transform_is_lossless_and_crops_odd_sizes_back(frames: int, height: int, width: int) -> None:
    video = torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(frames)) * 2 - 1
    codec = TransformCodec(8, FULL)
    latents = codec.encode(video)
    assert tuple(latents.shape) == (*codec.latent_size(frames, height, width), codec.channels)
    back = codec.decode(latents, (frames, height, width))
    assert (back - video).abs().max() < 1 / 255


def test_an_image_is_a_one_frame_video() -> None:
    torch.manual_seed(0)
    video, codec = torch.rand(5, 16, 16, 3) * 2 - 1, TransformCodec(keep=[[10, 3], [4, 1]])
    image = codec.encode(video[:1])
    assert len(image) == 1
    torch.testing.assert_close(codec.encode(video)[:1], image)
    # a still video's later latents are those of the image
    torch.testing.assert_close(codec.encode(video[:1].repeat(5, 1, 1, 1))[1:], image, atol=1e-5, rtol=0)


def smooth_video() -> torch.Tensor:
    t, y, x = torch.meshgrid(torch.arange(9), torch.arange(48), torch.arange(64), indexing="ij")
    planes = [torch.sin(x / 9 + t / 8), torch.cos(y / 7), torch.sin((x + y) / 15 - t / 10)]
    return torch.stack(planes, -1) * 0.8


def test_reconstruction_floor_and_order() -> None:
    video = smooth_video()
    values = []
    for keep in ([[3, 1]], [[15, 3], [6, 1]], [[15, 3], [6, 1], [3, 0], [3, 0]], FULL):
        codec = TransformCodec(keep=keep)
        values.append(psnr(codec.decode(codec.encode(video), (9, 48, 64)), video))
    assert values == sorted(values)
    assert values[2] > 30
    assert values[-1] > 100


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_fitted_statistics_normalise_and_rebuild(whiten: float) -> None:
    video = smooth_video()
    codec = TransformCodec(keep=[[6, 2], [3, 1]], whiten=whiten).fitted([video])
    latents = codec.encode(video).flatten(0, 2)
    assert latents.mean(0).abs().max() < 1e-4
    assert latents.square().mean().item() == pytest.approx(1, abs=0.05)
    again = build(part("model.encoders.transform.TransformCodec", **codec.init_args))
    torch.testing.assert_close(again.encode(video), codec.encode(video))
    plain = TransformCodec(keep=[[6, 2], [3, 1]])
    torch.testing.assert_close(
        codec.decode(codec.encode(video)), plain.decode(plain.encode(video)), atol=1e-4, rtol=0
    )


def test_bad_settings_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="codec keep"):
        TransformCodec(keep=[[65, 1]])
    with pytest.raises(ValueError, match="2 numbers for 1 channels"):
        TransformCodec(keep=[[1, 0]], mean=[0.0, 0.0])
    with pytest.raises(ValueError, match="needs float"):
        TransformCodec().encode(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="do not hold a video"):
        TransformCodec(keep=[[1, 0]]).decode(torch.zeros(1, 1, 1, 1), (2, 8, 8))


def test_only_our_encoders_are_built() -> None:
    with pytest.raises(ValueError, match=r"only classes under model\.encoders"):
        build({"class_path": "subprocess.Popen", "init_args": {"args": "true"}})
    with pytest.raises(ValueError, match="unexpected keyword"):
        build(part("model.encoders.transform.TransformCodec", blocks=8))
    with pytest.raises(ValueError, match="class_path and init_args"):
        build({"class": "x"})


def test_text_states_are_of_real_tokens_only() -> None:
    encoder = MiniLM()
    alone = encoder.encode(["remove the dog"])[0]
    beside, longer, empty = encoder.encode(["remove the dog", "remove the dog and the very large cat", ""])
    assert alone.shape == (3, 384)
    assert torch.equal(alone, beside)
    assert longer.shape == (8, 384)
    assert empty.shape == (0, 384)
    assert not torch.allclose(longer[:3], alone)  # states are of the text in context
    with pytest.raises(ValueError, match="at most 4"):
        MiniLM(max_tokens=4).encode(["one two three four five six"])


def test_texts_are_counted_as_they_are_encoded() -> None:
    texts = ["", "Remove the red ball.", "I want to paint the egg blue. Detect the region", "é 漢字 <x>"]
    encoder = MiniLM()
    assert encoder.count(texts) == [len(states) for states in encoder.encode(texts)]
    assert encoder.count([]) == []
    with pytest.raises(ValueError, match="at most 4 are taken"):
        MiniLM(max_tokens=4).count(texts)
