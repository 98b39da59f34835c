"""An autoencoder without weights: a fixed orthonormal transform that keeps the low frequencies.

It stands in for a learned video VAE where no model hub can be reached, behind the same interface.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

import shards.frames
from shards.errors import SettingError
from shards.limits import MAX_BLOCK, in_range, shown

# Rows: low, first half against second half, first pair's difference, second pair's difference.
HAAR = torch.tensor(
    [
        [0.5, 0.5, 0.5, 0.5],
        [0.5, 0.5, -0.5, -0.5],
        [math.sqrt(0.5), -math.sqrt(0.5), 0.0, 0.0],
        [0.0, 0.0, math.sqrt(0.5), -math.sqrt(0.5)],
    ]
)
# The cosine basis over the three colours: grey, red against blue, green against the two.
COLOURS = torch.tensor(
    [
        [math.sqrt(1 / 3)] * 3,
        [math.sqrt(1 / 2), 0.0, -math.sqrt(1 / 2)],
        [math.sqrt(1 / 6), -math.sqrt(2 / 3), math.sqrt(1 / 6)],
    ]
)


def cosine_basis(size: int) -> Tensor:
    """The orthonormal DCT-II matrix, float32 [size, size]; row k is the cosine of frequency k."""
    n = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi * (2 * n[None] + 1) * n[:, None] / (2 * size)) * math.sqrt(2 / size)
    basis[0] *= math.sqrt(0.5)
    return basis.float()


def zigzag(size: int) -> list[tuple[int, int]]:
    """(row, column) frequencies of a block from low to high: by their sum of squares, then row."""
    return sorted(
        ((i, j) for i in range(size) for j in range(size)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f)
    )


class TransformCodec:
    """Block DCT in space, Haar in time over groups of four frames, a cosine basis over the colours.

    The first frame stands alone, so that an image is a one-frame video: its coefficients are doubled, which
    is what four equal frames would give, and its temporal details are zero. Every kept coefficient is then
    normalised per channel with the statistics given (see `fitted`).

    Args:
        block: side of a block in pixels; the spatial reduction.
        keep: per temporal band (low, half, pair, pair) how many of the lowest coefficients of a block are
            kept for grey and for each of the two colour differences; (64, 64) everywhere at block 8 is
            lossless up to 8-bit rounding. Bands left out are dropped.
        mean, scale: per channel; None means 0 and 1.
        whiten: exponent used by `fitted`: 1 gives every channel unit variance, 0 leaves the coefficients'
            own proportions, under which squared error in latents is squared error in pixels.
    """

    temporal = 4

    def __init__(
        self,
        block: int = 8,
        keep: Sequence[Sequence[int]] = ((15, 3), (6, 1), (3, 0), (3, 0)),
        mean: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        whiten: float = 1.0,
    ) -> None:
        if type(block) is not int:
            raise SettingError(f"codec block: a whole number of pixels, got {shown(block)}")
        in_range("codec block", block, 1, MAX_BLOCK)
        in_range("codec whiten", whiten, 0, 1)
        if not 1 <= len(keep) <= 4 or any(
            len(band) != 2 or not all(type(n) is int and 0 <= n <= block**2 for n in band) for band in keep
        ):
            raise SettingError(
                f"codec keep: one to four pairs (grey, colour) of 0 to {block**2} coefficients, "
                f"got {shown(keep)}"
            )
        if not any(n for band in keep for n in band):
            raise SettingError(f"codec keep: keeps nothing, got {keep}")
        self.spatial, self.whiten = block, whiten
        self.keep = [[int(n) for n in band] for band in keep]
        grey, colour = (max(band[i] for band in self.keep) for i in (0, 1))
        cosine, order = cosine_basis(block), zigzag(block)
        rows: list[Tensor] = []
        column: dict[tuple[int, int], int] = {}
        for c, count in enumerate((grey, colour, colour)):
            for n in range(count):
                column[c, n] = len(rows)
                i, j = order[n]
                plane = cosine[i][:, None] * cosine[j][None]
                rows.append((plane[:, :, None] * COLOURS[c]).flatten())
        self._basis = torch.stack(rows)  # [S, block * block * 3], orthonormal rows
        self._pick = torch.tensor(
            [
                band * len(rows) + column[c, n]
                for band, kept in enumerate(self.keep)
                for c in range(3)
                for n in range(kept[min(c, 1)])
            ]
        )
        self.channels = len(self._pick)
        self._mean = torch.tensor(mean if mean is not None else [0.0] * self.channels)
        self._scale = torch.tensor(scale if scale is not None else [1.0] * self.channels)
        for name, values in (("mean", self._mean), ("scale", self._scale)):
            if values.shape != (self.channels,):
                raise SettingError(f"codec {name}: {len(values)} numbers for {self.channels} channels")
            if not values.isfinite().all():
                raise SettingError(f"codec {name}: holds values that are not finite")
        if not (self._scale > 0).all():
            raise SettingError("codec scale: every number must be above 0, as latents are divided by it")

    @property
    def init_args(self) -> dict[str, Any]:
        """Arguments that rebuild this codec."""
        return {
            "block": self.spatial,
            "keep": self.keep,
            "mean": self._mean.tolist(),
            "scale": self._scale.tolist(),
            "whiten": self.whiten,
        }

    def fitted(self, videos: Iterable[Tensor]) -> TransformCodec:
        """This codec with per-channel statistics measured on `videos` (float [T, H, W, 3] in [-1, 1]).

        Channels that never vary keep scale 1. The scale is std ** whiten, times one number that brings the
        mean square of all latents to 1, since flow matching meets them with unit noise.
        """
        plain = TransformCodec(self.spatial, self.keep)
        count, total, squares = 0, torch.zeros(self.channels).double(), torch.zeros(self.channels).double()
        for video in videos:
            values = plain.encode(video).flatten(0, 2).double()
            count += len(values)
            total += values.sum(0)
            squares += values.square().sum(0)
        if not count:
            raise ValueError("codec statistics: no videos were given")
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        std = torch.where(std > 1e-6, std, torch.ones_like(std))
        scale = std**self.whiten
        scale *= (std / scale).square().mean().sqrt()
        return TransformCodec(self.spatial, self.keep, mean.tolist(), scale.tolist(), self.whiten)

    def to(self, device: torch.device | str) -> Self:
        """The transform computes wherever its input lies; returns itself."""
        return self

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(t, h, w) of a video's latents: 1 + ceil((T - 1) / 4), and sides over the block, rounded up."""
        if min(frames, height, width) < 1:
            raise ValueError(f"video of {frames} frames of {height}x{width}: every size must be at least 1")
        return 1 + -(-(frames - 1) // 4), -(-height // self.spatial), -(-width // self.spatial)

    def encode(self, video: Tensor) -> Tensor:
        """float [T, H, W, 3] in [-1, 1] -> float32 latents [t, h, w, channels].

        Odd sizes are padded by repeating the last frame, row and column; `decode` crops them back.
        """
        if video.ndim != 4 or video.shape[-1] != 3 or not video.is_floating_point():
            raise ValueError(f"encode: needs float [T, H, W, 3], got {video.dtype} {list(video.shape)}")
        frames, height, width = video.shape[:3]
        t, h, w = self.latent_size(frames, height, width)
        b = self.spatial
        pad = (0, w * b - width, 0, h * b - height, 0, 4 * t - 3 - frames)
        planes = F.pad(video.float().permute(3, 0, 1, 2)[None], pad, mode="replicate")[0]
        blocks = planes.reshape(3, 4 * t - 3, h, b, w, b).permute(1, 2, 4, 3, 5, 0).flatten(3)
        spatial = blocks @ self._basis.T.to(blocks.device)  # [T, h, w, S]
        first = F.pad(2 * spatial[:1, None], (0, 0, 0, 0, 0, 0, 0, 3))
        groups = (
            spatial[1:].unflatten(0, (t - 1, 4))
            if t > 1
            else spatial.new_zeros(0, 4, h, w, spatial.shape[-1])
        )
        bands = torch.cat([first, torch.einsum("bf,tfhws->tbhws", HAAR.to(spatial.device), groups)])
        values = bands.permute(0, 2, 3, 1, 4).flatten(3)[..., self._pick]
        return (values - self._mean.to(values.device)) / self._scale.to(values.device)

    def decode(self, latents: Tensor, size: tuple[int, int, int] | None = None) -> Tensor:
        """Latents [t, h, w, channels] -> float32 [T, H, W, 3], not clipped; `size` crops to (T, H, W)."""
        if latents.ndim != 4 or latents.shape[-1] != self.channels:
            raise ValueError(f"decode: needs [t, h, w, {self.channels}], got {list(latents.shape)}")
        t, h, w = latents.shape[:3]
        b, s = self.spatial, len(self._basis)
        values = latents.float() * self._scale.to(latents.device) + self._mean.to(latents.device)
        bands = values.new_zeros(t, h, w, 4 * s)
        bands[..., self._pick.to(values.device)] = values
        bands = bands.unflatten(3, (4, s)).permute(0, 3, 1, 2, 4)
        rest = torch.einsum("bf,tbhws->tfhws", HAAR.to(values.device), bands[1:]).flatten(0, 1)
        blocks = torch.cat([bands[:1, 0] / 2, rest]) @ self._basis.to(values.device)
        video = blocks.unflatten(3, (b, b, 3)).permute(0, 1, 3, 2, 4, 5).reshape(4 * t - 3, h * b, w * b, 3)
        if size is None:
            return video
        frames, height, width = size
        if self.latent_size(frames, height, width) != (t, h, w):
            raise ValueError(f"decode: latents [{t}, {h}, {w}] do not hold a video of {list(size)}")
        return video[:frames, :height, :width]


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of videos in [-1, 1] (peak 2)."""
    return shards.frames.psnr((a.float() - b.float()).square().mean().item(), peak=2)
