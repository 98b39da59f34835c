"""What a run made, to be looked at: a contact sheet of accepted pairs, and a page that plays them."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shards.files import write_bytes
from shards.media import read_image, write_image

SHEET_WIDTH = 640  # pixels of one pair in the sheet
SHEET_COLUMNS = 3
SHOWN = 240  # pairs on the sheet and on the page at most, spread evenly over all

PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem; background: #fafafa; color: #222 }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(620px, 1fr)); gap: 1.5rem }}
section {{ background: #fff; padding: .8rem; border-radius: 8px; box-shadow: 0 1px 4px #0002 }}
.pair {{ display: flex; gap: 6px }} .pair > * {{ flex: 1; min-width: 0; background: #000 }}
h2 {{ font-size: 14px; margin: 0 0 .4rem }} li {{ font-size: 13px }}
.numbers {{ color: #777; font-size: 12px }}
</style>
<h1>{title}</h1><p>{count} pairs: what is given, then what is to be made of it. All play in step.</p>
<main>{sections}</main>
<script>
const watch = new IntersectionObserver(entries => entries.forEach(e => {{
  const [a, ...others] = e.target.querySelectorAll("video");
  if (!a) return;
  others.forEach(b => {{ b.currentTime = a.currentTime; }});
  [a, ...others].forEach(v => e.isIntersecting ? v.play() : v.pause());
}}));
document.querySelectorAll("section").forEach(s => {{
  const [a, ...others] = s.querySelectorAll("video");
  if (a) a.addEventListener("timeupdate", () => others.forEach(b => {{
    if (Math.abs(a.currentTime - b.currentTime) > 0.08) b.currentTime = a.currentTime;
  }}));
  watch.observe(s);
}});
</script>
"""


def spread(pairs: list[Any], most: int = SHOWN) -> list[Any]:
    """At most so many of them, the first among them, evenly."""
    count = min(most, len(pairs))
    return [pairs[number * len(pairs) // count] for number in range(count)]


def write_contact_sheet(path: Path, pairs: list[dict[str, Any]]) -> None:
    """PNG of previews (`spread`), `SHEET_COLUMNS` in a row; `pairs` hold `key`, `split` and `folder`."""
    cells = []
    for pair in spread(pairs):
        picture = read_image(Path(pair["folder"]) / "preview.png")
        height = round(picture.shape[0] * SHEET_WIDTH / picture.shape[1])
        cell = cv2.resize(picture, (SHEET_WIDTH, height), interpolation=cv2.INTER_AREA)
        bar = np.full((18, SHEET_WIDTH, 3), 255, np.uint8)
        cv2.putText(
            bar, f"{pair['key']} {pair['split']}", (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1
        )
        cells.append(np.vstack([bar, cell]))
    tallest = max(c.shape[0] for c in cells)
    cells = [np.vstack([c, np.full((tallest - c.shape[0], SHEET_WIDTH, 3), 255, np.uint8)]) for c in cells]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % SHEET_COLUMNS)
    rows = [np.hstack(cells[i : i + SHEET_COLUMNS]) for i in range(0, len(cells), SHEET_COLUMNS)]
    write_image(path, np.vstack(rows))


def write_gallery(path: Path, pairs: list[dict[str, Any]], task: str) -> None:
    """One HTML file that needs no other: videos, instructions and scores of pairs (`spread`)."""
    sections = []
    shown = spread(pairs)
    for pair in shown:
        pictures = "".join(_player(Path(file)) for file in pair["media"])
        texts = "".join(f"<li>{html.escape(text)}</li>" for text in pair["texts"])
        numbers = ", ".join(f"{name} {value:g}" for name, value in pair["scores"].items())
        heading = f"{html.escape(pair['key'])} ({pair['split']})"
        sections.append(
            f'<section><h2>{heading}</h2><div class="pair">{pictures}</div><ul>{texts}</ul>'
            f'<p class="numbers">{html.escape(numbers)}</p></section>'
        )
    count = f"{len(shown)} of {len(pairs)}"
    page = PAGE.format(title=f"{task}: accepted pairs", count=count, sections="\n".join(sections))
    write_bytes(path, page.encode())


def _player(path: Path) -> str:
    return _picture(path.read_bytes(), "image" if path.suffix == ".png" else "video")


def _picture(encoded: bytes, kind: str) -> str:
    """A video or picture with its bytes inside."""
    data = base64.b64encode(encoded).decode()
    if kind == "image":
        return f'<img src="data:image/png;base64,{data}">'
    return f'<video muted loop playsinline preload="metadata" src="data:video/mp4;base64,{data}"></video>'


def write_overview(path: Path, folders: dict[str, Path], most: int = 3) -> None:
    """One HTML file with up to `most` samples of each task's shards, spread over them."""
    from shards.reader import ShardSet

    sections = []
    for task, folder in folders.items():
        if not (folder / "manifest.jsonl").is_file():
            continue
        opened = ShardSet(folder)
        sections.append(f"<h2 style='grid-column: 1 / -1; font-size: 18px'>{html.escape(task)}</h2>")
        for key in spread(opened.keys, most):
            record = opened[key]
            sample = record.sample
            order = [name for name in sample.media if sample.media[name].kind != "mask"]
            order.sort(key=lambda name: (name in sample.targets, name))
            pictures = "".join(_picture(record.bytes(n), sample.media[n].kind) for n in order)
            sections.append(
                f'<section><h2>{html.escape(sample.key)}</h2><div class="pair">{pictures}</div>'
                f"<ul><li>{html.escape(sample.text)}</li></ul></section>"
            )
    page = PAGE.format(
        title="curation: samples of every task", count=len(folders), sections="\n".join(sections)
    )
    write_bytes(path, page.replace("pairs: what", "tasks: what").encode())
