"""Training curves as inline SVG, from the CSV file that a training run writes.

Any CSV with a `step` column will do; every other numeric column with two values or more is a curve.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from benchmark.core.item import BenchmarkError
from shards.errors import EditVerseError
from shards.limits import read_text

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 26, 12, 40  # the last step's number is centred on the right edge
SMOOTH_FROM = 60  # curves with at least this many points also get a running mean
SKIP = {"epoch", "step", "time", "samples", "tokens"}  # where the run stands, not how it goes


@dataclass(frozen=True)
class Curve:
    """One column of the file: `steps` and `values`, float64 [N], in the order of the steps."""

    name: str
    steps: np.ndarray
    values: np.ndarray

    @property
    def window(self) -> int:
        """Points of the running mean; 1 is none."""
        return max(5, len(self.values) // 20) if len(self.values) >= SMOOTH_FROM else 1


def read_curves(path: Path) -> list[Curve]:
    """Read a metrics CSV; raises BenchmarkError naming the file when it is missing or has no curve."""
    if not path.is_file():
        raise BenchmarkError(f"--curves {path}: no such file")
    try:
        with io.StringIO(read_text(path), newline="") as handle:
            rows = list(csv.DictReader(handle))
    except (EditVerseError, csv.Error) as error:
        raise BenchmarkError(f"--curves {path}: not a CSV file ({error})") from None
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        step = _number(row.get("step"))
        for name, cell in row.items():
            value = _number(cell)
            if step is not None and value is not None and name not in SKIP:
                points.setdefault(name, []).append((step, value))
    curves = [
        Curve(name, *np.array(sorted(found, key=lambda p: p[0]), dtype=np.float64).T)
        for name, found in points.items()
        if len(found) > 1
    ]
    if not curves:
        raise BenchmarkError(f"--curves {path}: no `step` column with numbers beside it")
    return curves


def _number(cell: object) -> float | None:
    """A finite number, or None; a short row has None and a long one a list in its cells."""
    if not isinstance(cell, str):
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred running mean [N]; the window shrinks at the ends."""
    ones = np.ones(window)
    smooth: np.ndarray = np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")
    return smooth


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between low and high, some `about` of them."""
    span = (high - low) or abs(high) or 1.0
    raw = span / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10) if unit * k >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]


def svg(curve: Curve) -> str:
    """One curve with axes and labels as an SVG element; colours come from the page's style."""
    steps, values = curve.steps, curve.values
    shown = values if curve.window == 1 else np.concatenate([running_mean(values, curve.window), values])
    low, high = (float(v) for v in np.quantile(shown, [0.0, 0.995]))
    pad = 0.06 * ((high - low) or abs(high) or 1.0)
    low, high = low - pad, high + pad
    if float(values.min()) >= 0:
        low = max(low, 0.0)
    first, last = float(steps[0]), float(steps[-1])
    inner_w, inner_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(step: float) -> float:
        return LEFT + inner_w * (step - first) / ((last - first) or 1.0)

    def y(value: float) -> float:
        return TOP + inner_h * (1 - (min(max(value, low), high) - low) / (high - low))

    def path(ys: np.ndarray) -> str:
        return "M" + "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(steps, ys, strict=True))

    title = f"{curve.name}: {values[0]:.4g} at step {first:g}, {values[-1]:.4g} at step {last:g}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in nice_ticks(low, high):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in nice_ticks(first, last, 6):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>'
    )
    parts.append(f'<text x="{LEFT + inner_w / 2}" y="{HEIGHT - 4}" text-anchor="middle">step</text>')
    if curve.window > 1:
        parts.append(f'<path class="raw" d="{path(values)}"/>')
        parts.append(f'<path class="line" d="{path(running_mean(values, curve.window))}"/>')
    else:
        parts.append(f'<path class="line" d="{path(values)}"/>')
        if len(values) < SMOOTH_FROM:
            parts += [
                f'<circle class="dot" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.5"/>'
                for a, b in zip(steps, values, strict=True)
            ]
    return "".join(parts) + "</svg>"
