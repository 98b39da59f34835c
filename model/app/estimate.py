"""What an edit will take, told before it is run: tokens and memory by formula, time by earlier edits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.config import fitted_size
from model.inference.editor import Editor
from model.inference.inputs import IMAGE_SUFFIXES
from model.inference.instruction import Instruction, check_instruction
from model.inference.request import pixels_per_token
from model.planner.flops import edit_flops
from model.planner.work import Shape
from model.sequence.interleave import SequenceError
from model.streaming.windows import plan_windows
from shards.media import probe, read_image

RECENT = 8  # edits that tell how fast this machine is
BOUNDS = 2  # tokens around every element: start and end of vision
FLOATS_PER_WIDTH = 16  # live values per token and unit of width in one block, counted for `DiT`
FLOAT_COPIES = 4  # of a window's pixels: source, decoded edit, decoded source, difference
BYTE_COPIES = 4  # of the whole result: source, edit, edit with the source's details, what is written


@dataclass(frozen=True)
class Estimate:
    """What one edit takes.

    Attributes:
        frames, height, width: of the result.
        tokens: of the longest sequence, text left out; runs: how many such sequences are sampled, one per
            window of a long video, twice that where the region is found first.
        flops: operations of the network in all of them.
        memory: bytes beside the weights.
    """

    frames: int
    height: int
    width: int
    tokens: int
    runs: int
    flops: int
    memory: int

    def describe(self, seconds: float | None) -> str:
        """In words, with the time if it is known."""
        size = f"{self.width}x{self.height}"
        what = f"an image of {size}" if self.frames == 1 else f"{self.frames} frames of {size}"
        parts = f" in {self.runs} parts" if self.runs > 1 else ""
        told = "time known after a first edit" if seconds is None else f"about {duration(seconds)}"
        memory = f"{self.memory / 1e9:.1f} GB" if self.memory >= 1e9 else f"{self.memory / 1e6:.0f} MB"
        return f"{what}: {self.tokens:,} tokens{parts}, {told}, about {memory} of memory"


def duration(seconds: float) -> str:
    """Seconds in words, as roughly as one says them: `8 s`, `2 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Speed:
    """How fast this machine edits, from the last edits: seconds per operation of the network."""

    def __init__(self) -> None:
        self._edits: deque[tuple[int, float]] = deque(maxlen=RECENT)

    def add(self, flops: int, seconds: float) -> None:
        """Count a finished edit."""
        self._edits.append((flops, seconds))

    def seconds(self, flops: int) -> float | None:
        """How long an edit will take; None before the first one."""
        if not self._edits:
            return None
        return flops * sum(took for _, took in self._edits) / sum(work for work, _ in self._edits)


def estimate(
    editor: Editor,
    text: str | Instruction,
    media: Mapping[str, Path],
    frames: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    ground: bool = False,
) -> Estimate:
    """What an edit would take; only the headers of videos are read.

    Args:
        text: the instruction; while it does not fit the media, an edit of the first video or image is meant.
        media, frames, steps, guidance, ground: as `Editor.__call__` takes them.

    Raises:
        MediaError: a file cannot be read.
        ConfigError: the model has no size for it.
    """
    config, defaults = editor.config, editor.config.inference
    clips = {name: _extent(path) for name, path in media.items()}
    first = next((name for name in clips if name.startswith("video")), None)
    looks = next((name for name in clips if not name.startswith("mask")), None)
    still = _makes_image(text, media, first is None and looks is not None)
    most = config.media.frames
    length = 1 if still else frames or (most if first is None else clips[first][0])
    side = int(config.media.max_area**0.5)
    height, width = clips[looks][1:] if looks else (side, side)
    multiple = pixels_per_token(config, editor.vae)
    work = fitted_size(height, width, config.media, multiple)

    def count(count_frames: int, rows: int, columns: int) -> int:
        t, h, w = editor.vae.latent_size(count_frames, rows, columns)
        patch = config.sequence.patch
        return t * math.ceil(h / patch) * math.ceil(w / patch)

    window = min(length, most)
    target = count(window, *work)
    vision = target + sum(
        count(min(n, window), *fitted_size(rows, columns, config.media, multiple))
        for n, rows, columns in clips.values()
    )
    segments = 1 + len(clips)
    total = vision + BOUNDS * segments
    shape = Shape(text=0, vision=vision, noisy=target + BOUNDS, target=target, total=total, segments=segments)
    guided = (defaults.guidance if guidance is None else guidance) != 1
    runs = len(plan_windows(length, most, editor.vae.temporal)) * (2 if ground else 1)
    flops = runs * edit_flops(config.network, [shape], steps or defaults.steps, guided)
    pixels = 3 * window * work[0] * work[1] * FLOAT_COPIES * 4 + 3 * length * height * width * BYTE_COPIES
    activations = total * config.network.width * FLOATS_PER_WIDTH * 4
    return Estimate(length, height, width, total, runs, flops, pixels + activations)


def _extent(path: Path) -> tuple[int, int, int]:
    """(frames, height, width) of a file."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return 1, *read_image(path).shape[:2]
    info = probe(path)
    return info.frames, info.height, info.width


def _makes_image(text: str | Instruction, media: Mapping[str, Path], default: bool) -> bool:
    """Whether the text asks for an image; the default while it cannot be read."""
    if isinstance(text, Instruction):
        return text.makes_image
    try:
        return check_instruction(text, media).makes_image
    except SequenceError:  # it is still being typed
        return default
