"""Folders as published suites lay them out, with a result for each item, written without our suites' code.

Everything is drawn here and written by json, csv, pyarrow, Pillow and PyAV alone. Each writer returns a
`Layout` that says what is where, and what a suite should find in it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

FRAMES, HEIGHT, WIDTH = 5, 32, 48

Rows = list[dict[str, Any]]


@dataclass
class Layout:
    """A suite's data and results.

    Attributes:
        items: ids in the suite's order; files: where the result of each lies.
        column: one that the suite needs; rows, write: a list that has it, and what writes that anew.
        extra: where a result lies that belongs to no item.
    """

    suite: str
    root: Path
    items: list[str]
    files: list[str]
    column: str
    rows: Rows
    write: Callable[[Rows], Any]
    extra: str

    @property
    def data(self) -> Path:
        """What `--data` names."""
        return self.root / "data"

    @property
    def results(self) -> Path:
        """A folder of results."""
        return self.root / "results"

    def rename(self) -> None:
        """Write the list with the column called `words`."""
        self.write([{("words" if n == self.column else n): v for n, v in row.items()} for row in self.rows])


def drawn(seed: int, tint: int = 0) -> np.ndarray:
    """uint8 [T, H, W, 3], a square that moves over a slope of colour."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    slope = np.stack([x * 4, y * 6, np.full_like(x, 60 + 20 * (seed % 5))], -1)
    frames = np.repeat(slope[None], FRAMES, 0).astype(int)
    top, left = random.integers(2, 14, 2)
    for t in range(FRAMES):
        frames[t, top : top + 12, left + 2 * t : left + 2 * t + 12] = random.integers(0, 255, 3)
    frames[..., 0] += tint
    return np.clip(frames, 0, 255).astype(np.uint8)


def video(path: Path, frames: np.ndarray, fps: int = 10) -> None:
    """An H.264 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def pictures(folder: Path, frames: np.ndarray, pattern: str = "{:05d}.png") -> None:
    """A folder of frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / pattern.format(number))


def table(path: Path, rows: Rows) -> None:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def parquet(path: Path, rows: Rows) -> None:
    """A Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def listed(path: Path, rows: Rows) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def openve(root: Path) -> Layout:
    """`benchmark_videos.csv` whose paths begin at the folder's parent, as in the published file."""
    rows, files = [], []
    for n, kind in enumerate(("global_style", "local_remove", "creative_edit")):
        name = f"{n:04d}_{kind}_Make_it"
        video(root / "data" / "videos" / f"{name}.mp4", drawn(n))
        video(root / "results" / f"{name}_edited.mp4", drawn(n, 30))
        path = f"OpenVE-Bench/videos/{name}.mp4"
        rows.append({"edited_type": kind, "prompt": f'Make it red, "really" {n}', "original_video": path})
        files.append(f"{name}_edited.mp4")
    write = partial(table, root / "data" / "benchmark_videos.csv")
    write(rows)
    ids = [file.removesuffix("_edited.mp4") for file in files]
    return Layout("openve", root, ids, files, "prompt", rows, write, "x_edited.mp4")


def ivebench(root: Path) -> Layout:
    """Two lists, videos of the short one as files, of the long one as frames; results the other way round."""
    files: list[str] = []
    lists: dict[str, Rows] = {}
    for subset, number in (("short", 2), ("long", 1)):
        folder = root / "data" / f"ivebenchdb_mp4_{subset}"
        lists[subset] = []
        for n in range(number):
            stem = f"{subset}_{n:03d}"
            if subset == "short":
                video(folder / f"{stem}.mp4", drawn(n))
                pictures(root / "results" / stem, drawn(n, 20))
            else:
                pictures(folder / stem, drawn(n), "{:05d}.jpg")
                video(root / "results" / f"{stem}.mp4", drawn(n, 20))
            entry = {
                "id": n + 1,
                "src_video_name": f"{stem}.mp4",
                "category": "style_editing",
                "subcategory": "oil",
                "source_prompt": "A square.",
                "edit_prompt": f"Paint it in oil {n}.",
                "target_prompt": "A square in oil.",
                "target_phrase": "square",
                "target_span": [2, 8],
            }
            lists[subset].append(entry)
            files.append(stem if subset == "short" else f"{stem}.mp4")
        listed(root / "data" / f"ivebenchdb_prompt_{subset}.json", lists[subset])
    write = partial(listed, root / "data" / "ivebenchdb_prompt_short.json")
    ids = [Path(file).stem for file in files]
    return Layout("ivebench", root, ids, files, "edit_prompt", lists["short"], write, "other.mp4")


def vefx(root: Path) -> Layout:
    """A CSV of the columns that the published scoring script reads."""
    rows: Rows = []
    for n in range(2):
        video(root / "data" / "original" / f"{n}.mp4", drawn(n))
        video(root / "results" / f"{n}_edited.mp4", drawn(n, 25))
        names = {"original_video": f"original/{n}.mp4", "edited_video": f"edited/{n}_edited.mp4"}
        rows.append(names | {"instruction": f"Colour it {n}.", "category": "Attribute Change"})
    write = partial(table, root / "data" / "vefx_bench.csv")
    write(rows)
    ids, files = ["0_edited", "1_edited"], ["0_edited.mp4", "1_edited.mp4"]
    return Layout("vefx", root, ids, files, "instruction", rows, write, "9_edited.mp4")


def vie_bench(root: Path) -> Layout:
    """A Parquet table; one edit has a reference picture."""
    rows: Rows = []
    for n in range(2):
        video(root / "data" / "videos" / f"{n}.mp4", drawn(n))
        video(root / "results" / f"{n}.mp4", drawn(n, 25))
        words = {"instruction": f"Swap it {n}.", "task": "swap", "image": None}
        rows.append({"video": f"videos/{n}.mp4"} | words)
    (root / "data" / "images").mkdir()
    Image.fromarray(drawn(7)[0]).save(root / "data" / "images" / "r.png")
    rows[1] |= {"image": "images/r.png", "task": "reference swap"}
    write = partial(parquet, root / "data" / "vie_bench.parquet")
    write(rows)
    return Layout("vie_bench", root, ["0", "1"], ["0.mp4", "1.mp4"], "task", rows, write, "5.mp4")


def gedit(root: Path) -> Layout:
    """Parquet with pictures in it; results are larger than sources, which lie beside them."""
    rows: Rows = []
    ids = []
    for n, (kind, language) in enumerate((("color_alter", "en"), ("color_alter", "cn"), ("ps_human", "en"))):
        held = io.BytesIO()
        Image.fromarray(drawn(n)[0]).save(held, "PNG")
        picture = {"bytes": held.getvalue(), "path": None}
        key = f"{n:032x}"
        words = "把它变红。" if language == "cn" else "Make it red."
        told = {"task_type": kind, "key": key, "instruction": words, "instruction_language": language}
        rows.append(told | {"input_image": picture, "input_image_raw": picture, "Intersection_exist": n < 2})
        folder = root / "results" / "fullset" / kind / language
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn(n)[0]).save(folder / f"{key}_SRCIMG.png")
        Image.fromarray(np.repeat(np.repeat(drawn(n, 40)[0], 2, 0), 2, 1)).save(folder / f"{key}.png")
        ids.append(f"{kind}/{language}/{key}")
    write = partial(parquet, root / "data" / "data" / "train-00000-of-00001.parquet")
    write(rows)
    files = [f"fullset/{id}.png" for id in ids]
    return Layout("gedit", root, ids, files, "instruction_language", rows, write, "halfset/a.png")


def five(root: Path) -> Layout:
    """Two of the six lists, frames as JPEG, results named by the evaluation's cut of the target prompt."""
    ids, files = [], []
    lists: dict[int, Rows] = {}
    for kind in (1, 6):
        name = f"{kind:04d}_bus"
        pictures(root / "data" / "images" / name, drawn(kind), "{:05d}.jpg")
        mask = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
        mask[:, 4:20, 4:24] = 255
        pictures(root / "data" / "bmasks" / name, mask)
        target = "A [train] drives along a road in the sun."
        entry = {
            "video_name": name,
            "editing_type_id": kind,
            "source_prompt": "A [bus] drives along a road in the sun.",
            "target_prompt": target,
            "save_dir": f"{kind}_{target[:20]}",
            "source_yes_no_question": "Is there a bus?",
            "target_yes_no_question": "Is there a train?",
            "multiple_choice_question": "What is there?\na) A bus\nb) A train",
        }
        lists[kind] = [entry]
        listed(root / "data" / "edit_prompt" / f"edit{kind}_FiVE.json", [entry])
        saved = f"{name}/{kind}_{target[:20]}"
        if kind == 1:
            video(root / "results" / f"{saved}.mp4", drawn(kind, 30))
        else:
            pictures(root / "results" / saved, drawn(kind, 30))
        files.append(f"{saved}.mp4" if kind == 1 else saved)
        ids.append(f"{kind}/{name}/{target[:20]}")
    write = partial(listed, root / "data" / "edit_prompt" / "edit1_FiVE.json")
    return Layout("five", root, ids, files, "target_prompt", lists[1], write, "9999_tram/1_x.mp4")


WRITERS = {
    "openve": openve,
    "ivebench": ivebench,
    "vefx": vefx,
    "vie_bench": vie_bench,
    "gedit": gedit,
    "five": five,
}
