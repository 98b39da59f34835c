"""Contact sheets of a task's samples at full size, to look at: `python -m tests.contact_sheet SHARDS OUT`.

A row is one sample in the middle of its window: source and target at full size, the difference of both, eight
times as strong, and, four times through the window, both enlarged around the mask.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np

from curation.ops.masks import bounds, grow
from shards.media import write_image
from shards.reader import Record, ShardSet

ROWS = 4


def row_of(record: Record) -> np.ndarray:
    """The row of a sample, uint8 RGB [H + 34, 4 W, 3]."""
    media = record.sample.media
    source, target = record.video("video1")[0], record.video("video2")[0]
    middle = len(source) // 2
    apart = cv2.absdiff(source[middle], target[middle]).astype(np.float32) * 8
    tiles = [source[middle], target[middle], apart.clip(0, 255).astype(np.uint8)]
    height, width = source.shape[1:3]
    mask = record.mask("mask") if "mask" in media else np.ones(source.shape[:3], bool)
    cells = []
    for t in np.linspace(0, len(source) - 1, 4).round().astype(int):
        box = bounds(mask[t])
        left, top, right, bottom = (0, 0, width, height) if box is None else grow(box, 1.5, mask[t].shape)
        scale = min(height / 2 / (bottom - top), width / 4 / (right - left))
        for video in (source, target):
            crop = cv2.resize(
                video[t, top:bottom, left:right], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC
            )
            cell = np.zeros((height // 2, width // 4, 3), np.uint8)
            cell[: crop.shape[0], : crop.shape[1]] = crop[: cell.shape[0], : cell.shape[1]]
            cells.append(cell)
    tiles.append(np.vstack([np.hstack(cells[:4]), np.hstack(cells[4:])]))
    picture = np.hstack([cv2.resize(tile, (width, height)) for tile in tiles])
    told = np.zeros((34, picture.shape[1], 3), np.uint8)
    for line, text in enumerate(textwrap.wrap(f"{record.sample.key}: {record.sample.text}", 200)[:2]):
        cv2.putText(told, text, (4, 14 + 15 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 0), 1)
    return np.vstack([told, picture])


def main(shards: str, out: str, ending: str = "") -> None:
    """Write sheet-00.png and so on of the samples whose keys end so; numbers alone when it is empty."""
    opened, folder = ShardSet(shards), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    keys = [k for k in opened.keys if (k.endswith(ending) if ending else k.rsplit("-", 1)[-1].isdigit())]
    for first in range(0, len(keys), ROWS):
        rows = [row_of(opened[key]) for key in keys[first : first + ROWS]]
        widest = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows]
        write_image(folder / f"sheet-{first // ROWS:02d}.png", np.vstack(padded))


if __name__ == "__main__":
    main(*sys.argv[1:])
