"""Video latents of a learned autoencoder: Wan's causal VAE, through diffusers, frozen.

It stands where the paper's own video autoencoder stands, behind the interface of the offline codec.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, Self, get_args

import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from shards.errors import SettingError
from shards.limits import MAX_PATCH, MAX_WIDTH, in_range, shown

Precision = Literal["float32", "bfloat16"]
Tiling = bool | Literal["auto"]
LOG = logging.getLogger(__name__)
# Of memory per pixel of a frame and channel of the first layer (base_dim), in numbers, while a few frames are
# encoded or decoded. Measured in float32 on a CPU: 45 for encoding 128x128, 63 for decoding 96x96.
ACTIVATIONS = 64
SHARE = 0.8  # of the free memory that may be taken
CHUNK = 4  # frames that diffusers encodes at a time after the first; it drops those that fill no chunk


class WanVAE:
    """Latents of an `AutoencoderKLWan`: the posterior's mean, normalised per channel; read on first use.

    Args:
        path: folder or hub id; pickled weights are refused.
        subfolder: of the path, where it exists; else config.json is looked for in the path itself.
        revision: of the hub's repository.
        dtype: of the weights and the computation; latents and video are float32.
        tiling: work on overlapping tiles of 256 pixels, in both directions, where a side is longer: less
            memory, and slightly other values. "auto" does where the whole would take more than is free. In
            time, four frames are taken at once in any case.
        pad: bring other lengths than 1 + temporal k frames, and other sides than multiples of `spatial`, up
            to size by repeating the last frame, row and column; False refuses them.
        channels, spatial, temporal: compared with the weights when they are read.
    """

    def __init__(
        self,
        path: str = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        subfolder: str | None = "vae",
        revision: str | None = None,
        dtype: Precision = "float32",
        tiling: Tiling = False,
        pad: bool = True,
        channels: int = 16,
        spatial: int = 8,
        temporal: int = 4,
    ) -> None:
        if dtype not in get_args(Precision):
            raise SettingError(f"codec dtype: one of {', '.join(get_args(Precision))}, got {dtype!r}")
        if not isinstance(path, str) or not path:
            raise SettingError(f"codec path: a folder or a hub id, got {shown(path)}")
        if any(type(n) is not int for n in (channels, spatial, temporal)) or temporal not in (1, 2, 4):
            raise SettingError(
                "codec: channels and spatial are at least 1, temporal is 1, 2 or 4, "
                f"got {shown(channels)}, {shown(spatial)}, {shown(temporal)}"
            )
        in_range("codec channels", channels, 1, MAX_WIDTH)
        in_range("codec spatial", spatial, 1, MAX_PATCH)
        self.path, self.subfolder, self.revision, self.dtype = path, subfolder, revision, dtype
        self.tiling, self.pad = tiling, pad
        self.channels, self.spatial, self.temporal = channels, spatial, temporal
        self._device = torch.device("cpu")
        self._loaded: tuple[Any, Tensor, Tensor] | None = None

    def to(self, device: torch.device | str) -> Self:
        """This codec with its weights, read or yet to be read, on `device`."""
        self._device = torch.device(device)
        if self._loaded:
            model, mean, std = self._loaded
            self._loaded = model.to(self._device), mean.to(self._device), std.to(self._device)
        return self

    def release(self) -> None:
        """Drop the weights; they are read again on the next use."""
        self._loaded = None

    def _refusal(self, reason: str) -> ValueError:
        return SettingError(f"codec: {self.path} {reason}")

    def _unreadable(self, error: Exception) -> Exception:
        """What to say when diffusers cannot read the path."""
        reason = str(error).strip().partition("\n")[0]
        if not Path(self.path).is_dir():
            return FileNotFoundError(
                f"codec: {self.path} is no folder here, and not (or not whole) in the local cache of the "
                f"model hub: give its folder, or run `hf download {self.path}` first ({reason})"
            )
        return self._refusal(f"cannot be read: {reason} (needed: config.json and safetensors)")

    def _check(self, config: Any) -> None:
        """Raise ValueError naming the first difference between what was read and this description."""
        stages = len(config.dim_mult) - 1
        spatial = 2**stages * (config.patch_size or 1)
        found = {
            "channels": config.z_dim,
            "spatial": spatial,
            "temporal": 2 ** sum(config.temperal_downsample[:stages]),
        }
        for name, value in found.items():
            if value != getattr(self, name):
                raise self._refusal(
                    f"has {name} {value}, not {getattr(self, name)}: set it to that of the weights"
                )
        if config.scale_factor_spatial != spatial:  # what diffusers cuts tiles by
            raise self._refusal(
                f"reduces by {spatial}, but its config.json says scale_factor_spatial "
                f"{config.scale_factor_spatial}"
            )
        for name in ("latents_mean", "latents_std"):
            if len(config[name] or ()) != self.channels:
                raise self._refusal(f"does not give {self.channels} numbers as {name} in config.json")

    def _load(self) -> tuple[Any, Tensor, Tensor]:
        """(model, mean, std); raises FileNotFoundError or ValueError saying what is wrong with the path."""
        if self._loaded is None:
            from diffusers import AutoencoderKLWan

            own = self.subfolder and Path(self.path).is_dir() and not Path(self.path, self.subfolder).is_dir()
            place: dict[str, Any] = {
                "pretrained_model_name_or_path": self.path,
                "subfolder": None if own else self.subfolder,
                "revision": self.revision,
            }
            options: dict[str, Any] = {"torch_dtype": getattr(torch, self.dtype), "output_loading_info": True}
            try:
                kind = AutoencoderKLWan.load_config(**place).get("_class_name")
                if kind != "AutoencoderKLWan":
                    raise ValueError(f"{kind} is not AutoencoderKLWan")
                model, report = AutoencoderKLWan.from_pretrained(**place, **options, use_safetensors=True)
            except (OSError, ValueError, RuntimeError) as error:
                raise self._unreadable(error) from error
            self._check(model.config)
            if missing := sorted(report["missing_keys"]):
                raise self._refusal(f"lacks {len(missing)} weights, the first is {missing[0]}")
            for name, weight in model.named_parameters():
                if not weight.isfinite().all():
                    raise self._refusal(f"is broken: the weights {name} are not finite")
            mean, std = (torch.tensor(model.config[n]) for n in ("latents_mean", "latents_std"))
            if not mean.isfinite().all() or not std.isfinite().all() or not (std > 0).all():
                raise self._refusal("gives latents_mean or latents_std that are not finite, or a std of 0")
            self._loaded = model.eval().requires_grad_(False), mean, std
            self.to(self._device)
        return self._loaded

    def _choose_tiling(self, model: Any, frames: int, height: int, width: int) -> None:
        """Have the model work in tiles or as a whole, as `tiling` says; what "auto" chooses is logged."""
        tiles = bool(self.tiling)
        if self.tiling == "auto":
            need = memory_of(model.config.base_dim, model.dtype.itemsize, frames, height, width)
            free = free_memory(self._device)
            tiles = need > SHARE * free and max(height, width) > model.tile_sample_min_height
            if tiles:
                LOG.warning(
                    "codec: works in tiles of %d pixels: %dx%d as a whole takes about %.1f GB, %.1f are free",
                    *(model.tile_sample_min_height, width, height, need / 1e9, free / 1e9),
                )
        (model.enable_tiling if tiles else model.disable_tiling)()

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(t, h, w) of a video's latents: 1 + ceil((T - 1) / temporal), and sides over `spatial`, rounded up.

        Raises ValueError for a size that `pad` would have to change where it is False.
        """
        if min(frames, height, width) < 1:
            raise ValueError(f"video of {frames} frames of {height}x{width}: every size must be at least 1")
        if not self.pad:
            first, s = 1 + (frames - 1) // self.temporal * self.temporal, self.spatial
            if frames != first:
                raise SettingError(
                    f"video of {frames} frames: the codec takes 1 + {self.temporal} k, such as {first} or "
                    f"{first + self.temporal}; cut it, or set pad"
                )
            for name, side in (("height", height), ("width", width)):
                if side % s:
                    low = max(s, side // s * s)
                    raise SettingError(
                        f"video of {name} {side}: the codec takes multiples of {s}, such as {low} or "
                        f"{low + s}; resize it, or set pad"
                    )
        t = 1 + -(-(frames - 1) // self.temporal)
        return t, -(-height // self.spatial), -(-width // self.spatial)

    @torch.inference_mode(False)  # weights read in a caller's inference mode could not be moved afterwards
    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """float [T, H, W, 3] in [-1, 1] -> float32 latents [t, h, w, channels], on this codec's device.

        Odd sizes are padded by repeating the last frame, row and column; `decode` crops them back. Raises
        ValueError for other shapes and types, values that are not finite, and what `latent_size` refuses.
        """
        if video.ndim != 4 or video.shape[-1] != 3 or not video.is_floating_point():
            raise ValueError(f"encode: needs float [T, H, W, 3], got {video.dtype} {list(video.shape)}")
        if not video.isfinite().all():
            raise SettingError("encode: the video holds values that are not finite")
        frames, height, width = video.shape[:3]
        t, h, w = self.latent_size(frames, height, width)
        model, mean, std = self._load()
        s, long = self.spatial, 1 + -(-(frames - 1) // CHUNK) * CHUNK
        planes = video.to(self._device, torch.float32).permute(3, 0, 1, 2)[None]
        self._choose_tiling(model, frames, height, width)
        planes = F.pad(planes, (0, w * s - width, 0, h * s - height, 0, long - frames), mode="replicate")
        # Causal: where a latent frame is less than a chunk, those of padding alone are cut off.
        latents = model.encode(planes.to(model.dtype)).latent_dist.mode()[0, :, :t]
        return (latents.float().permute(1, 2, 3, 0) - mean) / std

    @torch.inference_mode(False)
    @torch.no_grad()
    def decode(self, latents: Tensor, size: tuple[int, int, int] | None = None) -> Tensor:
        """Latents [t, h, w, channels] -> float32 [T, H, W, 3]; `size` crops to (T, H, W).

        Nothing is clipped here, but diffusers clamps what its decoder returns to [-1, 1].
        """
        if latents.ndim != 4 or latents.shape[-1] != self.channels:
            raise ValueError(f"decode: needs [t, h, w, {self.channels}], got {list(latents.shape)}")
        t, h, w = latents.shape[:3]
        if size is not None and self.latent_size(*size) != (t, h, w):
            raise ValueError(f"decode: latents [{t}, {h}, {w}] do not hold a video of {list(size)}")
        model, mean, std = self._load()
        self._choose_tiling(model, 1 + (t - 1) * self.temporal, h * self.spatial, w * self.spatial)
        values = latents.to(self._device, torch.float32) * std + mean
        video = model.decode(values.permute(3, 0, 1, 2)[None].to(model.dtype)).sample[0].float()
        frames, height, width = size or video.shape[1:]
        return video.permute(1, 2, 3, 0)[:frames, :height, :width]


def memory_of(channels: int, itemsize: int, frames: int, height: int, width: int) -> int:
    """Bytes that the whole of a video takes while it is encoded or decoded: by a formula, on the safe side.

    Args:
        channels: of the model's first layer, `base_dim`.
        itemsize: bytes of a number of the computation.
        frames, height, width: of the video, which diffusers holds twice while it puts it together.
    """
    return height * width * itemsize * (ACTIVATIONS * channels + 2 * 3 * frames)


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken on a device."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held
