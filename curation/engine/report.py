"""What a run made, to be looked at: a contact sheet of accepted pairs, and a page that plays them.

The page also names what was rejected and why. A small page holds its media; a large one has them as files in
a folder of its name beside it, so that a browser loads only what is looked at.
"""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from shards.files import write_bytes
from shards.location import Location
from shards.manifest import MANIFEST
from shards.media import MediaError, read_image, read_video
from shards.reader import ShardSet

SHEET_WIDTH = 640  # pixels of one pair in the sheet
SHEET_COLUMNS = 3
SHEET_PAIRS = 36  # on the sheet at most, spread evenly over all
SHEET_BYTES = 2_000_000
SHOWN = 240  # pairs on the page at most, spread evenly over all
INLINE_BYTES = 4_000_000  # of media that a page holds; with more they lie beside it
POSTER_WIDTH = 480  # pixels, of the still that stands for a video until it plays
EXAMPLES = 6  # rejected candidates of each reason on the page at most
QUARANTINED = 20  # quarantined files and candidates on the page at most

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,">
<style>
* {{ box-sizing: border-box }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1.2rem; max-width: 1500px;
  background: #fafafa; color: #222; overflow-wrap: anywhere }}
h1 {{ font-size: 24px; margin: 0 0 .3rem }} h2 {{ font-size: 19px; margin: 2rem 0 .6rem }}
h3 {{ font-size: 13px; margin: 0 0 .5rem; color: #666; font-weight: 600 }}
.legend {{ max-width: 90ch; margin: 0 0 1rem; color: #555 }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap: 1rem }}
.cards > :is(h2, h4) {{ grid-column: 1 / -1; margin: .8rem 0 0 }} h4 {{ font-size: 15px }}
article {{ background: #fff; padding: .8rem; min-width: 0;
  border-radius: 8px; box-shadow: 0 1px 4px #0002 }}
.pair {{ display: flex; gap: 6px; align-items: flex-start }}
figure {{ flex: 1; min-width: 0; margin: 0 }}
figcaption {{ font-size: 12px; color: #666; text-align: center }}
video, img {{ display: block; width: 100%; height: auto; border-radius: 4px; background: #ddd }}
ul {{ margin: .5rem 0; padding-left: 1.2rem }} li {{ margin: .15rem 0 }}
.numbers {{ color: #666; font-size: 12px; margin: 0 }}
.small {{ grid-template-columns: repeat(auto-fill, minmax(min(220px, 100%), 1fr)) }}
.small article {{ padding: .5rem; font-size: 12px; color: #555 }}
</style>
<h1>{title}</h1>
<p class="legend">{legend}</p>
{body}
<script>
"use strict";
// In view: all videos of a card play in step with its first one. Out of view: none plays.
const play = (video) => video.play().catch(() => {{}});  // a pause that comes first is no fault
const watch = new IntersectionObserver((entries) => entries.forEach((entry) => {{
  const videos = [...entry.target.querySelectorAll("video")];
  for (const video of videos) if (entry.isIntersecting) play(video); else video.pause();
}}));
for (const card of document.querySelectorAll("article")) {{
  const [first, ...others] = card.querySelectorAll("video");
  if (!first) continue;
  first.addEventListener("timeupdate", () => {{
    for (const other of others)
      if (Math.abs(first.currentTime - other.currentTime) > 0.08) other.currentTime = first.currentTime;
  }});
  watch.observe(card);
}}
</script>
</html>
"""


@dataclass(frozen=True)
class Shown:
    """A medium of an accepted pair: its element's name in the text, whether it is to be made, its file."""

    name: str
    is_target: bool
    path: Path


@dataclass(frozen=True)
class Pair:
    """An accepted pair on the page; `folder` holds its preview.png."""

    key: str
    split: str
    texts: list[str]
    folder: Path
    media: list[Shown]
    scores: Mapping[str, float | None]


@dataclass(frozen=True)
class Rejected:
    """A rejected candidate: why, where it comes from (frames of `source`), and its folder if it has one."""

    reason: str
    source: str
    first: int
    stop: int
    fps: float
    folder: Path | None = None


@dataclass(frozen=True)
class Rejections:
    """All that was not accepted: candidates, clips by the filter's reason, and quarantine's lines."""

    candidates: list[Rejected] = field(default_factory=list)
    clips: Mapping[str, int] = field(default_factory=dict)
    quarantined: list[str] = field(default_factory=list)


class Media:
    """The pictures and videos of a page: in it, or in files beside it.

    Files appear whole before the page that names them; `sweep` then removes those of an earlier page.
    """

    def __init__(self, page: Path, inline: bool) -> None:
        self.folder, self.inline = page.with_suffix(""), inline
        self.names: set[str] = set()

    def url(self, name: str, data: bytes) -> str:
        """What `src` is to be."""
        if self.inline:
            kind = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg"}[Path(name).suffix]
            return f"data:{kind};base64,{base64.b64encode(data).decode()}"
        path = self.folder / name
        if not path.is_file() or path.read_bytes() != data:
            write_bytes(path, data)
        self.names.add(name)
        return f"{self.folder.name}/{name}"

    def sweep(self) -> None:
        """Remove files that the page does not name."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if path.name not in self.names and path.suffix in (".mp4", ".png", ".jpg"):
                path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def spread(pairs: list[Any], most: int = SHOWN) -> list[Any]:
    """At most so many of them, the first among them, evenly."""
    count = min(most, len(pairs))
    return [pairs[number * len(pairs) // count] for number in range(count)]


def write_contact_sheet(path: Path, pairs: list[Pair]) -> None:
    """JPEG of up to `SHEET_PAIRS` previews, `SHEET_COLUMNS` in a row, of at most `SHEET_BYTES`.

    A sheet that is too large is encoded more coarsely, then holds fewer pairs.
    """
    most = SHEET_PAIRS
    while True:
        sheet = _sheet(spread(pairs, most), len(pairs))
        for quality in (85, 75, 65, 50):
            encoded = _jpeg(sheet, quality)
            if len(encoded) <= SHEET_BYTES or (most == 1 and quality == 50):
                write_bytes(path, encoded)
                return
        most = max(1, most // 2)


def _sheet(shown: list[Pair], total: int) -> np.ndarray:
    """Previews of pairs below a line that says how many of `total` they are; uint8 RGB."""
    cells = []
    for pair in shown:
        picture = read_image(pair.folder / "preview.png")
        height = round(picture.shape[0] * SHEET_WIDTH / picture.shape[1])
        cell = cv2.resize(picture, (SHEET_WIDTH, height), interpolation=cv2.INTER_AREA)
        cells.append(np.vstack([_line(f"{pair.key} {pair.split}", SHEET_WIDTH), cell]))
    tallest = max(c.shape[0] for c in cells)
    cells = [np.vstack([c, np.full((tallest - c.shape[0], SHEET_WIDTH, 3), 255, np.uint8)]) for c in cells]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % SHEET_COLUMNS)
    rows = [np.hstack(cells[i : i + SHEET_COLUMNS]) for i in range(0, len(cells), SHEET_COLUMNS)]
    count = f"{len(shown)} of {total} accepted pairs, drawn evenly; {total - len(shown)} not shown"
    return np.vstack([_line(count, SHEET_WIDTH * SHEET_COLUMNS), *rows])


def write_gallery(path: Path, pairs: list[Pair], task: str, rejections: Rejections | None = None) -> None:
    """The page of a task: videos, instructions and scores of pairs (`spread`), and what was rejected."""
    shown = spread(pairs)
    rejections = rejections or Rejections()
    media = Media(path, sum(m.path.stat().st_size for p in shown for m in p.media) <= INLINE_BYTES)
    cards = []
    for pair in shown:
        figures = "".join(
            _figure(media, f"{pair.key}-{m.name}", m.path.read_bytes(), m.path.suffix, m.name, m.is_target)
            for m in pair.media
        )
        texts = "".join(f"<li>{html.escape(text)}</li>" for text in pair.texts)
        scores = ", ".join(f"{n} {'none' if v is None else f'{v:g}'}" for n, v in pair.scores.items())
        cards.append(
            f'<article><h3>{html.escape(pair.key)} ({pair.split})</h3><div class="pair">{figures}</div>'
            f'<ul>{texts}</ul><p class="numbers">{html.escape(scores)}</p></article>'
        )
    legend = (
        f"{len(shown)} of {len(pairs)} accepted pairs, drawn evenly. Left, what is given; right, what is to"
        " be made of it: these are the files that the shards hold. Below, the instruction of each sample that"
        " the pair gives (some give the reverse edit too), then the numbers that gates and judges gave it."
        " Videos play while they are in view."
    )
    body = f'<main class="cards">{"".join(cards)}</main>{_rejected(media, rejections)}'
    page = PAGE.format(title=f"{html.escape(task)}: accepted pairs", legend=legend, body=body)
    write_bytes(path, page.encode())
    media.sweep()


def write_overview(path: Path, folders: Mapping[str, str | Path], most: int = 3) -> None:
    """The page of several tasks, with up to `most` samples of each one's shards, spread over them."""
    opened = {task: ShardSet(folder) for task, folder in folders.items() if _has_shards(folder)}
    records = {task: [shards[key] for key in spread(shards.keys, most)] for task, shards in opened.items()}

    def elements(record: Any) -> list[str]:
        names = [n for n, medium in record.sample.media.items() if medium.kind != "mask"]
        return sorted(names, key=lambda n: (n in record.sample.targets, n))

    sizes = [len(r.bytes(n)) for some in records.values() for r in some for n in elements(r)]
    media, parts = Media(path, sum(sizes) <= INLINE_BYTES), []
    for task, some in records.items():
        parts.append(f"<h2>{html.escape(task)}</h2>")
        for record in some:
            sample = record.sample
            figures = "".join(
                _figure(
                    media,
                    f"{task}-{sample.key}-{name}",
                    record.bytes(name),
                    Path(sample.media[name].file).suffix,
                    name,
                    name in sample.targets,
                )
                for name in elements(record)
            )
            parts.append(
                f'<article><h3>{html.escape(sample.key)}</h3><div class="pair">{figures}</div>'
                f"<ul><li>{html.escape(sample.text)}</li></ul></article>"
            )
    legend = (
        f"Up to {most} samples of each of {len(folders)} tasks. Left, what is given; right, what is to be"
        " made of it; below, the instruction. Videos play while they are in view."
    )
    body = f'<main class="cards">{"".join(parts)}</main>'
    write_bytes(path, PAGE.format(title="samples of every task", legend=legend, body=body).encode())
    media.sweep()


def _has_shards(folder: str | Path) -> bool:
    try:
        return bool(Location(folder).read(MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _figure(media: Media, name: str, data: bytes, suffix: str, element: str, is_target: bool) -> str:
    """A video with its poster, or a picture, and what it is."""
    caption = f"{html.escape(element)}, {'to be made' if is_target else 'given'}"
    if suffix == ".png":
        return f"{_image(media.url(f'{name}.png', data), caption)}<figcaption>{caption}</figcaption></figure>"
    first = read_video(data, 0, 1)[0][0]
    poster = media.url(f"{name}.jpg", _jpeg(_narrow(first), 70))
    height, width = first.shape[:2]
    return (
        f'<figure><video muted loop playsinline preload="none" width="{width}" height="{height}" '
        f'style="aspect-ratio:{width}/{height}" poster="{poster}" src="{media.url(f"{name}.mp4", data)}" '
        f'aria-label="{caption}"></video><figcaption>{caption}</figcaption></figure>'
    )


def _image(url: str, about: str) -> str:
    """The start of a figure; `about` is escaped."""
    return f'<figure><img loading="lazy" decoding="async" alt="{about}" src="{url}">'


def _rejected(media: Media, rejections: Rejections) -> str:
    """The section of what was not accepted: each reason with its count and a few examples."""
    groups: dict[str, list[Rejected]] = {}
    for candidate in rejections.candidates:
        groups.setdefault(candidate.reason, []).append(candidate)
    parts = []
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    for group, (reason, members) in enumerate(ordered):
        # gates on tracks name the whole clip, so that several candidates may share their frames
        counts = Counter(members)
        some = spread(list(counts), EXAMPLES)
        there = sum(counts[one] for one in some)
        more = f", {there} of them shown" if there < len(members) else ""
        parts.append(f"<h4>{html.escape(reason)}: {len(members)}{more}</h4>")
        for number, one in enumerate(some):
            name = Path(one.source).name
            where = html.escape(f"{name}, frames {one.first} to {one.stop}")
            where += f": {counts[one]} candidates" if counts[one] > 1 else ""
            picture = _preview(one)
            figure = ""
            if picture is not None:
                file = f"rejected-{group}-{number}.jpg"
                figure = _image(media.url(file, _jpeg(_narrow(picture), 70)), where) + "</figure>"
            parts.append(f"<article>{figure}{where}</article>")
    total = len(rejections.candidates)
    body = f"<h2>Rejected candidates: {total}</h2>"
    if parts:
        body += (
            '<p class="legend">By reason, the most frequent first. Pictures: the middle of the frames named, '
            f'where the source is a file.</p><div class="cards small">{"".join(parts)}</div>'
        )
    if rejections.clips:
        lines = "".join(f"<li>{html.escape(r)}: {n}</li>" for r, n in rejections.clips.items())
        body += f"<h2>Clips refused before any work: {sum(rejections.clips.values())}</h2><ul>{lines}</ul>"
    if rejections.quarantined:
        shown = rejections.quarantined[:QUARANTINED]
        left = len(rejections.quarantined) - len(shown)
        lines = "".join(f"<li>{html.escape(reason)}</li>" for reason in shown)
        lines += f"<li>and {left} more, in quarantine.jsonl</li>" if left else ""
        body += f"<h2>Quarantined: {len(rejections.quarantined)}</h2><ul>{lines}</ul>"
    return f'<section aria-label="Rejected">{body}</section>'


def _preview(candidate: Rejected) -> np.ndarray | None:
    """A picture of a rejected candidate, uint8 RGB; None where its source is no file that can be read."""
    if candidate.folder is not None and (candidate.folder / "preview.png").is_file():
        return read_image(candidate.folder / "preview.png")
    if not Path(candidate.source).is_file():
        return None
    middle = (candidate.first + candidate.stop) / 2 / candidate.fps
    try:
        with av.open(candidate.source) as container:
            stream = container.streams.video[0]
            begin = float((stream.start_time or 0) * (stream.time_base or 0))
            # a seek and a group of pictures, not the whole file from its start
            container.seek(int((begin + middle) * av.time_base), backward=True)
            picture = None
            for frame in container.decode(stream):
                picture = frame
                if frame.time is not None and frame.time >= begin + middle:
                    break
            return None if picture is None else picture.to_ndarray(format="rgb24")
    except (av.FFmpegError, MediaError, IndexError, OSError):
        return None  # a file that went or broke since; its reason is shown all the same


def _narrow(picture: np.ndarray) -> np.ndarray:
    """A picture of at most `POSTER_WIDTH`."""
    height, width = picture.shape[:2]
    if width <= POSTER_WIDTH:
        return picture
    size = (POSTER_WIDTH, max(1, round(height * POSTER_WIDTH / width)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    """uint8 RGB [H, W, 3] as JPEG."""
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return data.tobytes()


def _line(text: str, width: int) -> np.ndarray:
    """Black on white, uint8 RGB [18, width, 3]."""
    bar = np.full((18, width, 3), 255, np.uint8)
    cv2.putText(bar, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return bar
