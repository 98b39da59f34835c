"""Edits of randomly sampled held-out samples, as one picture and a page of text: what a checkpoint does."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmark.core.item import BenchmarkError, Item
from benchmark.suites import open_suite
from benchmark.systems.checkpoint_editor import grounded, weights_folder
from shards.files import write_bytes
from shards.frames import evenly_spaced
from shards.media import resize

MOMENTS, LINE = 3, 11  # frames per strip, height of a line of text in pixels
ROWS = ("source", "edit", "target")
MOST = 240  # items of a picture: a JPEG has at most 65,535 pixels a side


def draw_items(folders: Sequence[Path], count: int, seed: int) -> list[Item]:
    """`count` items, as many of one folder as of another; the same seed draws the same.

    Raises BenchmarkError where a folder has too few, or `count` is more than a picture holds.
    """
    if count > MOST:
        raise BenchmarkError(f"--count {count}: a picture holds {MOST} items at most")
    random = np.random.default_rng(seed)
    shares = [count // len(folders) + (n < count % len(folders)) for n in range(len(folders))]
    chosen = []
    for folder, share in zip(folders, shares, strict=True):
        items = [item for item in open_suite("heldout", folder).items if item.fault is None]
        if len(items) < share:
            raise BenchmarkError(f"{folder}: {len(items)} held-out items, {share} wanted")
        chosen += [items[n] for n in sorted(random.choice(len(items), share, replace=False))]
    return chosen


def write_gallery(
    folders: Sequence[Path],
    checkpoint: Path,
    out: Path,
    count: int,
    seed: int,
    steps: int | None,
    ground: Sequence[str] = (),
) -> list[str]:
    """Edit the items that the lot names and write `out` (a JPEG) and a Markdown page beside it.

    Edits of the tasks in `ground` by words alone find their region first, as in a run.

    Returns:
        The instructions, in the picture's order.
    """
    from model import Editor  # brings torch; finished results need none

    editor = Editor.from_pretrained(str(weights_folder(checkpoint)))
    cells, told = [], []
    for number, item in enumerate(draw_items(folders, count, seed), 1):
        loaded = item.load()
        first = grounded(item, ground)
        edit = editor(item.text, **loaded.inputs, size="model", steps=steps, seed=seed, ground=first)
        size = edit.frames.shape[1:3]
        rows = (loaded.source, edit.frames, loaded.target)
        strips = [strip(frames, size) for frames in rows if frames is not None]
        text = " ".join(item.text.replace("<video1>", "").replace("<video2>", "").split())
        cells.append(cell(f"{number}. {text}", strips))
        # a page would leave a bare tag out, as HTML
        told.append(f"{number}. `{item.id}`: {text.replace('<mask>', '`<mask>`')}")
    legend = f"Rows of a cell: {', '.join(ROWS)}; sampled with seed {seed}, noise of seed {seed}."
    page = sheet(cells)
    write_bytes(out, jpeg(np.vstack([written(legend, page.shape[1], 1), page])))
    lines = [legend, ""]
    write_bytes(out.with_suffix(".md"), "\n".join([*lines, f"![]({out.name})", "", *told, ""]).encode())
    return told


def strip(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`MOMENTS` of a clip side by side."""
    moments = evenly_spaced(len(frames), MOMENTS)
    return np.hstack(list(resize(frames[moments], size)))


def cell(text: str, strips: list[np.ndarray]) -> np.ndarray:
    """Text above strips, uint8 RGB."""
    return np.vstack([written(text, strips[0].shape[1], 3), *strips])


def written(text: str, width: int, least: int) -> np.ndarray:
    """Text in as many lines of `width` pixels as it needs, `least` at least; black on white, uint8 RGB."""
    import textwrap

    from PIL import Image, ImageDraw

    lines = textwrap.wrap(text, width // 6)
    picture = Image.new("RGB", (width, LINE * max(least, len(lines)) + 4), "white")
    ImageDraw.Draw(picture).text((2, 2), "\n".join(lines), fill="black", spacing=0)
    return np.asarray(picture)


def sheet(cells: list[np.ndarray], columns: int = 3) -> np.ndarray:
    """Cells in `columns`, white between them."""
    height, width = (max(c.shape[axis] for c in cells) + 8 for axis in (0, 1))
    rows = -(-len(cells) // columns)
    page = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for number, made in enumerate(cells):
        y, x = number // columns * height, number % columns * width
        page[y : y + made.shape[0], x : x + made.shape[1]] = made
    return page


def jpeg(picture: np.ndarray) -> bytes:
    """A picture as JPEG."""
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(picture).save(held, "JPEG", quality=90)
    return held.getvalue()
