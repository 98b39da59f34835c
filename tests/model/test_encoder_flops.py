"""Operations of the encoders by formula are those that the libraries' modules are counted to do."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch.utils.flop_counter import FlopCounterMode
from transformers import UMT5Config, UMT5EncoderModel

from model.encoders.flops import (
    WAN_AUTOENCODERS,
    AutoencoderSizes,
    decoder_flops,
    encoder_flops,
    umt5_flops,
)
from model.inference.bases import AUTOENCODERS


def autoencoder(sizes: AutoencoderSizes) -> AutoencoderKLWan:
    planes = 3 * sizes.patch**2
    return AutoencoderKLWan(
        base_dim=sizes.width,
        decoder_base_dim=sizes.decoder_width,
        z_dim=sizes.channels,
        dim_mult=list(sizes.factors),
        num_res_blocks=sizes.blocks,
        temperal_downsample=list(sizes.temporal),
        is_residual=sizes.residual,
        patch_size=sizes.patch if sizes.patch > 1 else None,
        in_channels=planes,
        out_channels=planes,
    )


@pytest.mark.parametrize(
    ("sizes", "frames"),
    [
        (AutoencoderSizes(width=4, decoder_width=4, channels=4), 9),
        (AutoencoderSizes(width=4, decoder_width=8, channels=6, residual=True, patch=2), 9),
        (AutoencoderSizes(width=4, decoder_width=4, channels=4, blocks=1), 1),
    ],
    ids=["wan2.1", "wan2.2", "a picture"],
)
def test_the_autoencoder_does_what_the_formula_says(sizes: AutoencoderSizes, frames: int) -> None:
    model = autoencoder(sizes)
    with torch.no_grad(), FlopCounterMode(display=False) as there:
        latents = model.encode(torch.zeros(1, 3, frames, 32, 64)).latent_dist.mode()
    with torch.no_grad(), FlopCounterMode(display=False) as back:
        model.decode(latents)
    assert encoder_flops(sizes, frames, 32, 64) == there.get_total_flops()
    assert decoder_flops(sizes, frames, 32, 64) == back.get_total_flops()


def test_the_published_sizes_have_the_published_weights() -> None:
    with torch.device("meta"):
        counts = {c: sum(p.numel() for p in autoencoder(s).parameters()) for c, s in WAN_AUTOENCODERS.items()}
    assert counts == AUTOENCODERS


def test_the_text_encoder_does_what_the_formula_says() -> None:
    config = UMT5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    model = UMT5EncoderModel(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        model(torch.zeros(1, 7, dtype=torch.long))
    assert umt5_flops(7, width=32, inner=48, layers=2) == count.get_total_flops()
