"""What a run made, to be looked at: a contact sheet of every accepted pair, and a page that plays them."""

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

PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem; background: #fafafa; color: #222 }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(620px, 1fr)); gap: 1.5rem }}
section {{ background: #fff; padding: .8rem; border-radius: 8px; box-shadow: 0 1px 4px #0002 }}
.pair {{ display: flex; gap: 6px }} video {{ width: 50%; background: #000 }}
h2 {{ font-size: 14px; margin: 0 0 .4rem }} li {{ font-size: 13px }}
.numbers {{ color: #777; font-size: 12px }}
</style>
<h1>{title}</h1><p>{count} pairs. Left: with the object. Right: without. Both play in step.</p>
<main>{sections}</main>
<script>
const watch = new IntersectionObserver(entries => entries.forEach(e => {{
  const [a, b] = e.target.querySelectorAll("video");
  if (e.isIntersecting) {{ b.currentTime = a.currentTime; a.play(); b.play(); }}
  else {{ a.pause(); b.pause(); }}
}}));
document.querySelectorAll("section").forEach(s => {{
  const [a, b] = s.querySelectorAll("video");
  a.addEventListener("timeupdate", () => {{
    if (Math.abs(a.currentTime - b.currentTime) > 0.08) b.currentTime = a.currentTime;
  }});
  watch.observe(s);
}});
</script>
"""


def write_contact_sheet(path: Path, pairs: list[dict[str, Any]]) -> None:
    """PNG of all pairs' previews, `SHEET_COLUMNS` in a row; `pairs` hold `key` and `folder`."""
    cells = []
    for pair in pairs:
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
    """One HTML file that needs no other: videos, instructions and scores of all pairs."""
    sections = []
    for pair in pairs:
        videos = "".join(
            '<video muted loop playsinline preload="metadata" '
            f'src="{_data(Path(pair["folder"]) / name)}"></video>'
            for name in ("source.mp4", "target.mp4")
        )
        texts = "".join(f"<li>{html.escape(text)}</li>" for text in pair["texts"])
        numbers = ", ".join(f"{name} {value:g}" for name, value in pair["pair"]["scores"].items())
        heading = f"{html.escape(pair['key'])} ({pair['split']}, {pair['pair']['frames']} frames)"
        sections.append(
            f'<section><h2>{heading}</h2><div class="pair">{videos}</div><ul>{texts}</ul>'
            f'<p class="numbers">{html.escape(numbers)}</p></section>'
        )
    page = PAGE.format(title=f"{task}: accepted pairs", count=len(pairs), sections="\n".join(sections))
    write_bytes(path, page.encode())


def _data(path: Path) -> str:
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
