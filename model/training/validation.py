"""Held-out pairs rendered while training: source | edit | target side by side, and their PSNR.

For the eye and the curve; the benchmark package measures properly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shards.frames
from model.data.dataset import EditDataset
from model.encoders.transform import psnr
from model.inference.editor import Editor
from model.sequence.pixels import to_float
from shards.media import write_video
from shards.sample import tags_of


@dataclass(frozen=True)
class Row:
    """One rendered pair: squared errors per pixel (0..1 scale) summed inside and outside the mask."""

    key: str
    task: str
    errors: dict[str, tuple[float, int, float, int]]  # row name -> (inside sum, count, outside sum, count)


@dataclass(frozen=True)
class Rendered:
    """Rendered pairs of one moment of the training."""

    rows: list[Row]

    def table(self) -> list[dict[str, float | str | int | None]]:
        """Per task and kind of result: mean PSNR in dB over the pairs, inside and outside the mask.

        Kinds: `edit` as the editor gives it, `raw` before detail carry-over, `copy` the source itself.
        Where a sample has no mask everything counts as outside.
        """
        result: list[dict[str, float | str | int | None]] = []
        for task in sorted({row.task for row in self.rows}):
            rows = [row for row in self.rows if row.task == task]
            for name in ("edit", "raw", "copy"):
                inside = [_db(r.errors[name][0], r.errors[name][1]) for r in rows if r.errors[name][1]]
                outside = [_db(r.errors[name][2], r.errors[name][3]) for r in rows if r.errors[name][3]]
                result.append(
                    {
                        "task": task,
                        "result": name,
                        "pairs": len(rows),
                        "inside": round(float(np.mean(inside)), 2) if inside else None,
                        "outside": round(float(np.mean(outside)), 2) if outside else None,
                    }
                )
        return result

    def score(self) -> float | None:
        """Mean PSNR of the edits in dB, tasks and the two sides of a mask counting the same."""
        sides = {n: v for n, v in self.metrics().items() if n.split("/")[2] == "edit"}
        tasks = {name.split("/")[1] for name in sides}
        means = [np.mean([v for n, v in sides.items() if n.split("/")[1] == task]) for task in tasks]
        return round(float(np.mean(means)), 3) if means else None

    def metrics(self) -> dict[str, float]:
        """The table as flat names for a logger."""
        return {
            f"heldout/{row['task']}/{row['result']}/{place}": float(row[place] or 0)
            for row in self.table()
            for place in ("inside", "outside")
            if row[place] is not None
        }


def _db(error: float, count: int) -> float:
    """PSNR of a mean squared error on a 0..1 scale; 100 dB stands for no error at all."""
    return min(100.0, shards.frames.psnr(error / count, peak=1))


def render_pairs(
    editor: Editor, pairs: EditDataset, most: int, folder: Path, name: str, share: tuple[int, int] = (0, 1)
) -> Rendered:
    """Edit the first window of up to `most` pairs, spread over the split, and write `name-key.mp4` each.

    A sample takes part when its target is a video or image and it has a source of the same size.

    Args:
        share: (which, of how many) equal parts of the pairs to render.
    """
    rows = []
    count = min(most, len(pairs))
    for number in range(share[0], count, share[1]):
        place = number * len(pairs) // count
        record, row = pairs.record(place), pairs.row_of(place)
        sample = record.sample
        target, named = sample.targets[0], tags_of(sample.text)
        window = pairs.windows(pairs.entry(place), target, 1, row)[0]
        media = {n: pairs.frames(record, n, window[n], row) for n in sample.media}
        source = next(
            (
                n
                for n, m in sample.media.items()
                if n != target and m.kind != "mask" and media[n].shape == media[target].shape
            ),
            None,
        )
        if source is None or media[target].shape[1] * media[target].shape[2] == 0:
            continue
        given: dict[str, Any] = {
            n: (media[n][0] if m.kind == "image" else media[n])
            for n, m in sample.media.items()
            if n != target and n in named
        }
        height, width = media[target].shape[1:3]
        edit = editor(sample.text, size=(height, width), frames=len(media[target]), target=target, **given)
        mask = (
            media["mask"][..., 0] > 127
            if "mask" in media and len(media["mask"]) == len(edit.frames)
            else None
        )
        errors = {}
        for kind, frames in (("edit", edit.frames), ("raw", edit.raw), ("copy", media[source])):
            squared = ((frames.astype(np.float32) - media[target]) / 255) ** 2
            per_pixel = squared.mean(-1)
            inside = mask if mask is not None else np.zeros(per_pixel.shape, bool)
            sums = float(per_pixel[inside].sum()), int(inside.sum())
            errors[kind] = (*sums, float(per_pixel[~inside].sum()), int((~inside).sum()))
        rows.append(Row(sample.key, sample.task, errors))
        panels = [media[source], edit.frames, media[target]]
        if edit.raw is not edit.frames:
            panels.insert(2, edit.raw)
        fps = pairs.clip_of(row).fps or sample.media[target].fps or pairs.model.media.fps
        write_video(folder / f"{name}-{sample.key}.mp4", np.concatenate(panels, axis=2), fps)
    return Rendered(rows)


def codec_psnr(pairs: EditDataset, most: int) -> float:
    """Mean reconstruction PSNR in dB of the codec over the targets of up to `most` training samples.

    Those that cannot be read are left out: whoever visits one says so.
    """
    values = []
    for index in range(0, len(pairs), max(1, len(pairs) // most)):
        record = pairs.record(index)
        try:
            frames = pairs.pixels(record, record.sample.targets[0])
        except (ValueError, OSError):
            continue
        video = to_float(frames[: pairs.model.media.frames])
        shape = (len(video), video.shape[1], video.shape[2])
        with torch.inference_mode():
            values.append(psnr(pairs.vae.decode(pairs.vae.encode(video), shape).cpu(), video))
    return float(np.mean([min(v, 100.0) for v in values])) if values else float("nan")
