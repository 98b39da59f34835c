"""Wan's VAE in tiles: where memory would not suffice, and close to the whole."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from model.encoders import wan
from model.encoders.wan import WanVAE, free_memory, memory_of
from tests.model.test_reference_encoders import tiny_vae

SIZE = 5, 16, 288


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wan")
    tiny_vae().save_pretrained(place / "vae")
    return place


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    """float32 [5, 16, 288, 3] in [-1, 1], smooth and moving."""
    t, y, x = torch.meshgrid(*(torch.arange(side) for side in SIZE), indexing="ij")
    return torch.stack([torch.sin(x / 19 + t / 3), torch.cos(y / 23), torch.sin((x + y) / 31 - t)], -1)


def test_tiles_are_chosen_where_memory_would_not_suffice_and_it_is_said(
    folder: Path, video: torch.Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, tiled, auto = (WanVAE(str(folder), tiling=t) for t in (False, True, "auto"))
    latents = whole.encode(video)
    assert torch.equal(auto.encode(video), latents)
    assert caplog.records == []
    monkeypatch.setattr(wan, "SHARE", 0.0)  # as if nothing were free
    in_tiles = auto.encode(video)
    assert torch.equal(in_tiles, tiled.encode(video))
    assert "codec: works in tiles of 256 pixels: 288x16 as a whole takes about" in caplog.text
    small = video[:, :, :64]
    assert torch.equal(auto.encode(small), whole.encode(small))  # one tile holds it
    monkeypatch.undo()
    assert torch.equal(auto.encode(video), latents)  # and back again
    # close to the whole: a tile's edge is not a picture's, but where both are seen they fade into one another
    pixels, pieces = whole.decode(latents, SIZE), tiled.decode(latents, SIZE)
    assert (pixels - pieces).abs().mean() < MEAN * pixels.std()
    assert (in_tiles - latents).abs().mean() < MEAN * latents.std()
    seam = (pieces[:, :, 1:] - pieces[:, :, :-1]).abs().mean((0, 1, 3))
    assert seam[190:258].max() < 2 * seam[20:180].max()  # columns where tiles meet


MEAN = 0.02  # of the deviation of what is compared


def test_memory_grows_with_the_picture_and_is_counted_against_what_is_free() -> None:
    small, large = memory_of(96, 4, 81, 480, 832), memory_of(96, 4, 81, 2160, 3840)
    assert large / small == pytest.approx(2160 * 3840 / (480 * 832))
    assert memory_of(96, 2, 81, 480, 832) * 2 == small
    assert 5e9 < small < 15e9
    assert 0 < free_memory(torch.device("cpu")) < psutil.virtual_memory().total
