"""Bars as SVG that stands alone in a file or in a page; nothing is drawn with a library."""

from __future__ import annotations

import html
from collections.abc import Sequence

WIDTH, HEIGHT = 560, 220  # of a histogram, in units of the SVG
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 28, 34
ROW = 22  # of a bar with a name
STYLE = "font:12px system-ui,sans-serif"
INK, BAR = "#60666d", "#1f5fbf"


def number(value: float) -> str:
    """A number in at most four digits, with thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def histogram(title: str, edges: Sequence[float], counts: Sequence[int], unit: str = "") -> str:
    """SVG of counts between edges, of which there is one more than counts."""
    top, first, last = max([*counts, 1]), edges[0], edges[-1]
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = wide / max(1, len(counts))
    bars = "".join(
        f'<rect x="{LEFT + n * step + 0.5:.1f}" y="{TOP + high * (1 - count / top):.1f}" '
        f'width="{max(0.5, step - 1):.1f}" height="{high * count / top:.1f}" fill="{BAR}">'
        f"<title>{number(edges[n])} to {number(edges[n + 1])}: {count:,}</title></rect>"
        for n, count in enumerate(counts)
    )
    marks = "".join(
        f'<text x="{LEFT + wide * part:.0f}" y="{HEIGHT - 14}" text-anchor="middle" fill="{INK}">'
        f"{number(first + (last - first) * part)}</text>"
        for part in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    scale = "".join(
        f'<text x="{LEFT - 6}" y="{TOP + high * (1 - part) + 4:.0f}" text-anchor="end" fill="{INK}">'
        f"{number(top * part)}</text>"
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{TOP + high * (1 - part):.1f}" '
        f'y2="{TOP + high * (1 - part):.1f}" stroke="{INK}" stroke-opacity=".25"/>'
        for part in (0.0, 0.5, 1.0)
    )
    return _svg(f"{title}{f', {unit}' if unit else ''}", HEIGHT, scale + bars + marks)


def named_bars(title: str, rows: Sequence[tuple[str, int]]) -> str:
    """SVG of a bar for each name, in the order given."""
    most, left = max([count for _, count in rows] + [1]), 190
    wide = WIDTH - left - 80
    parts = []
    for place, (name, count) in enumerate(rows):
        y = TOP + place * ROW
        short = name if len(name) <= 26 else name[:25] + "…"
        parts.append(
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end" fill="{INK}">{html.escape(short)}'
            f"<title>{html.escape(name)}</title></text>"
            f'<rect x="{left}" y="{y + 3}" width="{max(0.5, wide * count / most):.1f}" height="{ROW - 8}" '
            f'fill="{BAR}"/>'
            f'<text x="{left + wide * count / most + 6:.0f}" y="{y + 14}" fill="{INK}">{count:,}</text>'
        )
    return _svg(title, TOP + ROW * len(rows) + 10, "".join(parts))


def _svg(title: str, height: int, inside: str) -> str:
    name = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{name}" style="{STYLE}">'
        f'<text x="{WIDTH / 2:.0f}" y="16" text-anchor="middle" font-weight="600" fill="{INK}">{name}</text>'
        f"{inside}</svg>\n"
    )
