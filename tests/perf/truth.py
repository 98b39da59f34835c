"""How right the offline plates and masks are, on rendered scenes: no times, but IoU and PSNR."""

from __future__ import annotations

from pathlib import Path

from tests.curation.truth import SEEDS, VIEWS, score
from tests.perf.measure import Figure


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Score every scene under every view."""
    figures = []
    for seed in SEEDS[: 1 if quick else None]:
        for view in VIEWS:
            found = score(seed, view)
            said = f"IoU {found.iou:.3f}, PSNR {found.psnr:.1f} dB (Telea {found.telea:.1f})"
            said += f", {found.frames} frames, {found.refused} refused"
            figures.append(Figure(f"scene {seed}, {view or 'still camera'}", None, None, "", said))
    return figures
