"""Operations of the encoders by formula: Wan's video autoencoders, both ways, and UMT5.

Matrix products and convolutions only, two operations per multiply-add, as `torch.utils.flop_counter` counts
them. Layers are those of diffusers' `AutoencoderKLWan` (0.40 and later), which works through a video four
frames at a time after the first; its padding counts as data.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True)
class AutoencoderSizes:
    """Sizes of an autoencoder, by default those of Wan 2.1.

    Attributes:
        width, decoder_width: channels of the first layer, and of the decoder's last one.
        channels: of a latent position; factors: channels of each level over `width`.
        blocks: residual blocks of a level, the decoder's have one more.
        temporal: whether a level halves the frames, from the first level of the encoder on.
        residual: levels are bridged and keep their channels when they grow, as in Wan 2.2 TI2V.
        patch: side of the squares of pixels that are folded into channels before all else.
    """

    width: int = 96
    decoder_width: int = 96
    channels: int = 16
    factors: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    temporal: tuple[bool, ...] = (False, True, True)
    residual: bool = False
    patch: int = 1


# by latent channels
WAN_AUTOENCODERS = {
    16: AutoencoderSizes(),
    48: AutoencoderSizes(width=160, decoder_width=256, channels=48, residual=True, patch=2),
}


def encoder_flops(sizes: AutoencoderSizes, frames: int, height: int, width: int) -> int:
    """Operations of making latents.

    Args:
        frames: 1 + 4 k; height, width: in pixels, multiples of what a latent position spans.
    """
    h, w = height // sizes.patch, width // sizes.patch
    dims = [sizes.width * n for n in (1, *sizes.factors)]
    macs = frames * h * w * 27 * 3 * sizes.patch**2 * dims[0]
    for level, (into, out) in enumerate(itertools.pairwise(dims)):
        macs += frames * h * w * (_block(into, out) + (sizes.blocks - 1) * _block(out, out))
        if level == len(sizes.factors) - 1:
            break
        h, w = h // 2, w // 2
        macs += frames * h * w * 9 * out * out
        if sizes.temporal[level]:
            frames = 1 + (frames - 1) // 2
            macs += (frames - 1) * h * w * 3 * out * out  # the first frame passes as it is
    means = 2 * sizes.channels  # with their spread
    macs += _middle(dims[-1], frames, h * w)
    macs += frames * h * w * (27 * dims[-1] * means + means * means)
    return 2 * macs


def decoder_flops(sizes: AutoencoderSizes, frames: int, height: int, width: int) -> int:
    """Operations of making a video of latents; arguments as `encoder_flops`."""
    levels = len(sizes.factors)
    scale = sizes.patch * 2 ** (levels - 1)
    h, w = height // scale, width // scale
    for halved in sizes.temporal:
        frames = 1 + (frames - 1) // 2 if halved else frames
    dims = [sizes.decoder_width * n for n in (sizes.factors[-1], *sizes.factors[::-1])]
    macs = frames * h * w * sizes.channels * (sizes.channels + 27 * dims[0])
    macs += _middle(dims[0], frames, h * w)
    for level, (into, out) in enumerate(itertools.pairwise(dims)):
        into = into // 2 if level and not sizes.residual else into
        macs += frames * h * w * (_block(into, out) + sizes.blocks * _block(out, out))
        if level == levels - 1:
            break
        if sizes.temporal[levels - 2 - level]:
            macs += (frames - 1) * h * w * 3 * out * 2 * out
            frames = 1 + 2 * (frames - 1)
        h, w = 2 * h, 2 * w
        macs += frames * h * w * 9 * out * (out if sizes.residual else out // 2)
    macs += frames * h * w * 27 * dims[-1] * 3 * sizes.patch**2
    return 2 * macs


def umt5_flops(tokens: int, width: int = 4096, inner: int = 10_240, layers: int = 24) -> int:
    """Operations of UMT5's encoder, by default the XXL one, on one text of `tokens` tokens.

    Its heads together are as wide as its states.
    """
    matrices = 4 * width * width + 3 * width * inner
    return 2 * layers * (tokens * matrices + 2 * tokens * tokens * width)


def _block(into: int, out: int) -> int:
    """Multiply-adds of a residual block for each position."""
    return 27 * (into * out + out * out) + (into * out if into != out else 0)


def _middle(width: int, frames: int, positions: int) -> int:
    """Of the two blocks in the middle and the attention within each frame between them."""
    each = 2 * _block(width, width) + 4 * width * width + 2 * positions * width
    return frames * positions * each
