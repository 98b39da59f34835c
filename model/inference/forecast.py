"""What a long edit will take, said before its video is read."""

from __future__ import annotations

import shutil
from pathlib import Path

from model.config import ModelConfig
from model.encoders import Codec
from model.inference.request import Request
from model.streaming.windows import plan_windows

NUMBER = 4  # bytes of a latent's number in `<out>.parts`


def forecast(plan: Request, config: ModelConfig, vae: Codec, out: Path | None, passes: int = 1) -> str | None:
    """A line on frames, windows and room on disk; None for an edit of one window.

    How long a window takes nobody knows before the first one; then the bar tells.

    Args:
        plan: the request.
        config, vae: of the editor.
        out: the file that is written, beside which finished windows are kept; None where none are.
        passes: how often every window is sampled.
    """
    spans = plan_windows(plan.length, config.media.frames, vae.temporal)  # more where there are cuts
    if len(spans) == 1:
        return None
    height, width = plan.size
    rows, columns = plan.work
    seconds = round(plan.length / plan.fps)
    length = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    words = [
        f"{plan.length} frames of {width}x{height}, {length}",
        f"{len(spans)} windows or more, edited at {columns}x{rows}"
        + (f", {passes} times each" if passes > 1 else ""),
        "time unknown until the first is done",
    ]
    if out is not None:
        t, h, w = vae.latent_size(spans[0].frames, *plan.work)
        room = passes * len(spans) * t * h * w * vae.channels * NUMBER
        words.append(f"{_size(room)} in {out}.parts while it is made, beside the result")
        folder = next(place for place in out.absolute().parents if place.is_dir())
        if room > (free := shutil.disk_usage(folder).free):
            words.append(f"only {_size(free)} are free there")
    return " · ".join(words)


def _size(number: int) -> str:
    """Bytes in words."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(1, round(number / 1e6))} MB"
