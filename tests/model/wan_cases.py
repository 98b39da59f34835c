"""A tiny member of Wan's family; weights and inputs are formulas, so that numbers computed elsewhere hold.

`bernini_outputs.json` was computed with the class `WanTransformer3DModel` of Bernini's repository
(bernini/models/transformer_wan.py, Apache-2.0), from `weights` and `latents` here: a source video (source
1), a reference picture (source 2) and a target video (source 0) in one sample, a picture alone in another,
packed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from model.net.wan_config import WanConfig
from model.sequence.rope import RopeConfig

# of diffusers' and Bernini's classes
SIZES = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 32,
    "freq_dim": 256,
    "ffn_dim": 96,
    "num_layers": 3,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 64,
}
CONFIG = WanConfig(
    text_dim=32, vision_dim=16, width=48, depth=3, heads=2, hidden=96, text_tokens=20, attention="sdpa"
)
BERNINI = WanConfig(
    text_dim=32,
    vision_dim=16,
    width=48,
    depth=3,
    heads=2,
    hidden=96,
    text_tokens=20,
    rope=RopeConfig(source=True),
    source_time="target",
    attention="sdpa",
)
TIME = 0.37  # of our convention: 1 is clean


def numbers(name: str, *shape: int) -> Tensor:
    """Irregular float32 numbers from -1 to 1, given by a name and a shape alone."""
    count = int(torch.tensor(shape).prod())
    place = torch.arange(1, count + 1, dtype=torch.float64)
    return torch.sin(place * place * 0.3719 + zlib.crc32(name.encode()) % 1000).float().view(shape)


def weights(shapes: Mapping[str, torch.Size], of: str = "") -> dict[str, Tensor]:
    """Of diffusers' layout: large enough that every part of the network shows in its output.

    Args:
        of: other numbers for another network.
    """
    made = {}
    for name, shape in shapes.items():
        made[name] = numbers(of + name, *shape) * (0.15 if len(shape) == 1 else 0.4)
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm2.weight")):
            made[name] += 1.5  # attention that prefers some keys
    return made


def latents(name: str, frames: int, height: int, width: int) -> Tensor:
    """[t, h, w, 4]"""
    return numbers(name, frames, height, width, 4)


VIDEO, PICTURE = (3, 4, 6), (1, 6, 4)  # latents: frames, height, width
EDIT = {
    "video1": latents("video1", *VIDEO),
    "image1": latents("image1", *PICTURE),
    "target": latents("target", *VIDEO),
}
ALONE = {"picture": latents("picture", *PICTURE)}
TEXTS = {"edit": numbers("edit", 7, 32), "alone": numbers("alone", 3, 32)}
