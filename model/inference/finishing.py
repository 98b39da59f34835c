"""Windows of an edit at their final size: the decoded edit put together with its source."""

from __future__ import annotations

import numpy as np
import torch

from model.extras.compositing import composite
from model.extras.faces import FacePolicy, faces_to_keep
from model.extras.keeping import Keep, blend, feather, keep_source
from model.inference.edit_stream import FinishedWindow
from model.inference.window import Window, WindowEdit
from model.sequence.pixels import to_pixels
from shards.media import resize


@torch.inference_mode()
def finish_window(
    window: Window, made: WindowEdit, keep: Keep | None = None, faces: FacePolicy = FacePolicy.NONE
) -> FinishedWindow:
    """A window's final frames at the result's size, put together with its source, kept as asked for."""
    plan, followed, final = window.plan, window.followed, window.span.final
    raw = resize(to_pixels(made.pixels[:final]), plan.size)
    clips = {name: clip if plan.clips[name].still else clip[:final] for name, clip in window.clips.items()}
    start, edited = window.span.start, made.edited[:final]
    mask = next((clip for name, clip in clips.items() if name.startswith("mask")), None)
    source = None if plan.source is None or plan.edited is None else clips[plan.source]
    frames, change, share = raw, None, None
    if keep is not None and source is not None:
        kept = keep_source(raw, source, edited, keep, mask)
        frames, share, change = kept.frames, kept.mask, kept.mask > 0
    elif followed is not None:
        frames, change = composite(raw, clips[followed], edited)
    if source is None or faces is FacePolicy.NONE:
        return FinishedWindow(start, frames, raw, change, source, mask=share)
    whole = resize(source, plan.size)
    inside = None if mask is None else resize(mask[..., 0] > 127, plan.size)
    found = faces_to_keep(frames, whole, change, faces, inside)
    if not found.any():
        return FinishedWindow(start, frames, raw, change, source, mask=share)
    beside = 255 - np.stack([feather(one) for one in found])
    if keep is not None and share is not None:
        share = np.minimum(share, beside)
        frames, change = blend(raw, whole, share, keep.strength), share > 0
    else:
        frames = blend(frames, whole, beside)
        change = None if change is None else change & (found < 255)
    number = int(found.any(axis=(1, 2)).sum())
    return FinishedWindow(start, frames, raw, change, source, mask=share, faces=number)
