"""Clips and tiny random networks of the published architectures, made the same on every machine.

A clip is a YUV4MPEG2 file: its samples are stored as they are, so no encoder's version is in it, and both
programs decode it (the name says .mp4, as the layouts ask for; FFmpeg looks at the content).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTokenizer

from tests.benchmark import networks

PROMPT = (
    "A red ball rolls over the sand, slowly, while a dog\u2019s owner looks on from the shade of an old tree."
)
SIZES = {"wide": (11, 72, 128), "upright": (13, 128, 80), "large": (9, 400, 704)}  # frames, height, width
HEAD_WIDTHS = (8, 64)  # of ViCLIP's heads


def write_clip(path: Path, seed: int, frames: int, height: int, width: int) -> Path:
    """Smooth colours that move, 4:2:0 of 8 bits, no tags; sines of integers, rounded: the same everywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    waves = [
        np.sin(x / (7 + c + seed) + t * (0.2 + 0.1 * c)) * np.cos(y / (5 + 2 * c) - t * 0.3 * (1 + seed % 3))
        for c in range(3)
    ]
    luma, u, v = (np.round(128 + 90 * wave).astype(np.uint8) for wave in waves)
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F8:1 Ip A1:1 C420mpeg2\n".encode())
        for n in range(frames):
            planes = (luma[n], u[n, ::2, ::2], v[n, ::2, ::2])
            file.write(b"FRAME\n" + b"".join(np.ascontiguousarray(p).tobytes() for p in planes))
    return path


def write_tokenizer(folder: Path) -> Path:
    """CLIP's tokenizer without merges, its tokens numbered as in CLIP's own file: printable bytes first."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    letters = [*map(chr, printable), *(chr(256 + n) for n in range(256 - len(printable)))]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={w: n for n, w in enumerate(words)}, merges=[]).save_pretrained(folder)
    return folder


def write_networks(root: Path) -> dict[str, Path]:
    """Folders of CLIP, PickScore (a CLIP) and DINOv2, the tokenizer's, and one ViCLIP file per head width."""
    for name in ("tokenizer", "clip", "pick", "dino"):
        (root / name).mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(root / "tokenizer")
    made = {
        "tokenizer": tokenizer,
        "clip": networks.clip(root / "clip", tokenizer),
        "pick": networks.clip(root / "pick", tokenizer, seed=5),
        "dino": networks.dino(root / "dino"),
    }
    state = networks.viclip_state()  # towers 128 and 64 wide
    for width in HEAD_WIDTHS:
        made[f"viclip{width}"] = root / f"viclip{width}.pth"
        config = {"vision_heads": 128 // width, "text_heads": 64 // width}
        torch.save({"model": state, "config": config}, made[f"viclip{width}"])
    return made
