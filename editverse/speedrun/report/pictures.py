"""The pictures of the page: pairs of each source, pairs that were refused, and edits beside their source.

Each is a small JPEG of middle frames, inside of the page.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from benchmark.core.item import SOURCE, TARGET
from benchmark.evaluation.runner import execute, held
from benchmark.evaluation.setup import Evaluation
from editverse.speedrun.report.data import Facts
from shards.errors import EditVerseError, first_line
from shards.frames import evenly_spaced
from shards.limits import read_text
from shards.media import read_video, resize
from shards.reader import Record, ShardSet
from shards.sample import tags_of

WIDTH = 240  # pixels of a frame on the page at most
GAP = 4  # white pixels between two frames
QUALITY = 82  # of the JPEGs
PAIRS = 6  # shown of each folder
REJECTED = 6  # shown of each folder
EDITS = 8  # items shown of each suite


@dataclass(frozen=True)
class Picture:
    """A picture of the page: its `src`, and the text below it."""

    src: str
    caption: str
    label: str = ""


@dataclass(frozen=True)
class Strip:
    """An item of a suite: its instruction, and a picture of each row."""

    text: str
    task: str
    pictures: tuple[Picture, ...]


def pair_pictures(folder: Path, count: int = PAIRS) -> list[Picture]:
    """Samples of a folder, spread evenly over it: what is given, then what is to be made of it."""
    shards = ShardSet(folder)
    return [
        Picture(_data_url(pair_frame(record)), record.sample.text, record.sample.task)
        for number in np.unique(evenly_spaced(len(shards), min(count, len(shards)))).tolist()
        for record in [shards[number]]
    ]


def pair_frame(record: Record) -> np.ndarray:
    """The middle frames of a sample's elements side by side, those to be made last; uint8 RGB [H, W, 3]."""
    sample = record.sample
    names = [name for name in dict.fromkeys(tags_of(sample.text)) if name in sample.media]
    names.sort(key=lambda name: name in sample.targets)
    frames = []
    for name in names:
        middle = (sample.media[name].frames or 1) // 2
        frames.append(_narrow(record.pixels(name, middle, middle + 1)[0]))
    return side_by_side(frames)


def side_by_side(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames uint8 RGB [H, W, 3] in a row with a gap; their heights are made the first one's."""
    height = frames[0].shape[0]
    parts = []
    for frame in frames:
        width = max(1, round(frame.shape[1] * height / frame.shape[0]))
        parts += [np.full((height, GAP, 3), 255, np.uint8), resize(frame, (height, width))]
    return np.hstack(parts[1:])


def refused_by_gates(folder: Path, source: Path, count: int = REJECTED) -> list[Picture]:
    """Samples that the rules of a filtered folder dropped, of different rules first, with the rule."""
    path = folder / "rejected.jsonl"
    if not path.is_file():
        return []
    by_rule: dict[str, list[Facts]] = {}
    for line in read_text(path, most=2**30).splitlines():
        row = json.loads(line)
        by_rule.setdefault(row["rule"], []).append(row)
    chosen: list[Facts] = []
    while len(chosen) < count and any(by_rule.values()):  # in turn, so that no rule has all the places
        chosen += [rows.pop(len(rows) // 2) for rows in by_rule.values() if rows]
    if not chosen:
        return []
    shards = ShardSet(source)
    found = []
    for row in chosen[:count]:
        record = shards[row["key"]]
        value = "not measured" if row["value"] is None else f"{row['value']:.4g}"
        words = f"{record.sample.text}: not {row['rule']} ({value})"
        found.append(Picture(_data_url(pair_frame(record)), words, record.sample.task))
    return found


class _Gallery(HTMLParser):
    """The rejected candidates of a page that `python -m curation run` wrote: (reason, src, where)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.reason, self.heading, self.inside = "", False, False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "section" and named.get("aria-label") == "Rejected":
            self.inside = True
        elif self.inside and tag == "h4":
            self.reason, self.heading = "", True
        elif self.inside and tag == "img":
            self.found.append((self.reason, named.get("src") or "", named.get("alt") or ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "h4":
            self.heading = False

    def handle_data(self, data: str) -> None:
        if self.heading:
            self.reason += data


def refused_by_curation(folder: Path, count: int = REJECTED) -> list[Picture]:
    """Candidates that curation rejected, of different reasons first, from the gallery that it wrote."""
    path = folder / "gallery.html"
    if not path.is_file():
        return []
    gallery = _Gallery()
    gallery.feed(read_text(path, most=2**30))
    by_reason: dict[str, list[tuple[str, str, str]]] = {}
    for one in gallery.found:
        by_reason.setdefault(one[0], []).append(one)
    chosen: list[tuple[str, str, str]] = []
    while len(chosen) < count and any(by_reason.values()):
        chosen += [some.pop(0) for some in by_reason.values() if some]
    pictures = []
    for reason, src, where in chosen[:count]:
        if not src.startswith("data:"):
            src = _file_url(path.parent / src)
        pictures.append(Picture(src, f"{reason.partition(':')[0]} ({where})"))
    return pictures


def edits(run: Path, suite: Facts, count: int = EDITS) -> list[Strip]:
    """Items of a suite, spread over it: the source, every stage's edit and the target.

    Raises:
        EditVerseError: the suite's data or edits are not there any more.
    """
    from benchmark.__main__ import read_config  # brings all of the benchmark

    folder = run / suite["folder"]
    with contextlib.chdir(run), held(folder):  # the paths of a run are relative to its folder
        bench = Evaluation(read_config(folder), folder)
        done = execute(bench.config, folder, Console(quiet=True), gallery=count, bench=bench)
    strips = []
    for outcome in done.outcomes:
        labels = {SOURCE: "source"} | {row: label for row, label in suite["rows"].items() if row != TARGET}
        labels |= {TARGET: "target"}
        pictures = [
            Picture(_data_url(_narrow(_middle(outcome.videos[row]))), label)
            for row, label in labels.items()
            if row in outcome.videos
        ]
        if pictures:
            strips.append(Strip(outcome.item.text, outcome.item.task, tuple(pictures)))
    return strips[:count]


def why_none(error: EditVerseError | OSError, run: Path) -> str:
    """Why a page has no pictures, without the folders of this machine."""
    return first_line(error).replace(f"{run}/", "")


def _middle(video: Path) -> np.ndarray:
    frames, _ = read_video(video)
    return np.asarray(frames[len(frames) // 2])


def _narrow(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    if width <= WIDTH:
        return frame
    return resize(frame, (max(1, round(height * WIDTH / width)), WIDTH))


def _data_url(frame: np.ndarray) -> str:
    """uint8 RGB [H, W, 3] as a JPEG's data URL."""
    coarse = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), coarse)
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _file_url(path: Path) -> str:
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
