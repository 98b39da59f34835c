"""How the report says numbers, times and names."""

from __future__ import annotations

from typing import Any

from editverse.speedrun.plan import duration as in_words


def number(value: Any) -> str:
    """A score or a count for a reader: four digits that count, "inf" as it is, a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def duration(seconds: float | None) -> str:
    """Seconds in words as the runner says them; a dash for none."""
    return "-" if seconds is None else in_words(seconds)


def size(count: float | None) -> str:
    """Bytes in words: 12 kB, 3.4 MB, 1.2 GB; a dash for none."""
    if count is None:
        return "-"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def words_of(metric: str) -> str:
    """A metric's name as a sentence has it."""
    text = metric.replace("_", " ")
    for name in ("psnr", "ssim", "lpips", "iou", "clip"):
        text = text.replace(name, name.upper())
    return text
