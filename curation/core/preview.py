"""Small pictures of a pair, to be looked at: source with the mask's outline, target, and both enlarged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from curation.ops.masks import bounds
from shards.frames import evenly_spaced
from shards.media import iter_frames, probe, read_image, write_image

COLUMNS = 4  # frames shown
CELL = (180, 240)  # height and width of one whole frame in the preview


def write_preview(path: Path, source: np.ndarray, target: np.ndarray, mask: np.ndarray) -> None:
    """PNG with `COLUMNS` moments: whole frames above (source, target), the mask's region enlarged below."""
    columns = []
    for t in evenly_spaced(len(source), COLUMNS):
        outlined = outline(source[t], mask[t])
        whole = [_fit(outlined), _fit(target[t])]
        near = [_fit(_crop(p, mask[t])) for p in (source[t], target[t])]
        columns.append(np.vstack([np.hstack(whole), np.hstack(near)]))
    write_image(path, np.vstack([np.hstack(columns[:2]), np.hstack(columns[2:])]))


def write_strips(path: Path, media: list[Path]) -> None:
    """PNG with `COLUMNS` moments of each video, one strip below the other; pictures alone are shown once."""
    counts = [1 if file.suffix == ".png" else probe(file).frames for file in media]
    columns = min(COLUMNS, max(counts))
    rows = []
    for file, count in zip(media, counts, strict=True):
        moments = evenly_spaced(count, columns).tolist()
        if file.suffix == ".png":
            shown = {0: read_image(file)}
        else:
            shown = dict(zip(sorted(set(moments)), iter_frames(file, only=set(moments)), strict=True))
        rows.append(np.hstack([_fit(shown[t]) for t in moments]))
    write_image(path, np.vstack(rows))


def outline(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the mask's outline in red; uint8 RGB [H, W, 3]."""
    drawn = picture.copy()
    lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, lines, -1, (255, 40, 40), 1)
    return drawn


def _crop(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The region around the mask, in the proportions of a preview cell."""
    box = bounds(mask)
    if box is None:
        return picture
    height = min(float(box[3] - box[1]) * 1.5, picture.shape[0])
    height = min(max(height, float(box[2] - box[0]) * 1.3 * CELL[0] / CELL[1]), picture.shape[0])
    width = min(height * CELL[1] / CELL[0], picture.shape[1])
    x = int(np.clip((box[0] + box[2] - width) / 2, 0, picture.shape[1] - width))
    y = int(np.clip((box[1] + box[3] - height) / 2, 0, picture.shape[0] - height))
    return picture[y : y + int(height), x : x + int(width)]


def _fit(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(
        picture, CELL[::-1], interpolation=cv2.INTER_AREA if picture.shape[0] > CELL[0] else cv2.INTER_CUBIC
    )
