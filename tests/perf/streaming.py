"""Long videos: warping error at the borders of windows and inside them, and peak memory by length."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmark.features.flow import Dis
from model import Editor
from model.streaming.cuts import find_cuts
from shards.media import read_video, write_video
from tests.perf.measure import Figure, scene

TEXTS = (
    "<video1> Remove the person.",
    "<video1> Remove the disc.",
    "<video1> Make the red ball green.",
    "<video1> Remove the red ball.",
)
WINDOW = 9  # frames of nano's windows


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Seams of edits by `nano`, fresh windows against overlapping ones, and memory of the command."""
    editor = Editor.from_pretrained("nano", device=device)
    clips = {"disc": scene(28 if quick else 100, 96, 128)[0]}
    low, wide = (240, 320), (136, 320)
    for name, first, size in (("vtest.avi", 0, low), ("bikes.mp4", 0, wide), ("bikes.mp4", 150, wide)):
        real = Path("data/clips", name)
        if real.exists() and not quick:
            clips[f"{name} from {first}"] = read_video(real, first, 64, size=size)[0]
    figures = []
    for name, frames in clips.items():
        for text in TEXTS:
            figures += _seams(editor, name, frames, text)
    for count in (50, 100) if quick else (100, 5000):
        path = scratch / f"{count}.mp4"
        write_video(path, itertools.islice(itertools.cycle(scene(50, 64, 96)[0]), count), 25)
        figures.append(_peak(path, count))
    return figures


def _seams(editor: Editor, name: str, frames: np.ndarray, text: str) -> list[Figure]:
    alone = [editor(text, video1=frames[i : i + WINDOW]) for i in range(0, len(frames), WINDOW)]
    fresh = np.concatenate([edit.frames for edit in alone])
    change = np.concatenate([edit.change for edit in alone if edit.change is not None])
    with editor.stream(text, video1=frames) as stream:
        windows = list(stream)
        spans = stream.spans
    results = {
        "fresh windows": (fresh, change, set(range(WINDOW - 1, len(frames) - 1, WINDOW))),
        "overlapping windows": (
            np.concatenate([w.frames for w in windows]),
            np.concatenate([w.change for w in windows if w.change is not None]),
            {
                i
                for s in spans[1:]
                for i in range(s.start - 1, s.start + s.overlap)
                if 0 <= i < len(frames) - 1
            },
        ),
    }
    maps = motion(frames)
    figures = []
    uncut = ~np.isin(np.arange(len(maps)), np.array(find_cuts(frames), int) - 1)
    for kind, (result, where, borders) in results.items():
        for area, inside in (("all", np.ones_like(where)), ("changed", where)):
            at = np.isin(np.arange(len(maps)), sorted(borders))
            ratios = []
            for shown in (result, frames):  # where the source itself moves more at borders, an edit does, too
                errors = warp_errors(maps, shown, inside)
                ratios.append(np.nanmean(errors[at & uncut]) / np.nanmean(errors[~at & uncut]))
            said = f"warp error at borders over inside {ratios[0]:.2f}, of the source {ratios[1]:.2f}"
            figures.append(Figure(f"{name}, {text[9:]} {kind}, {area} pixels", None, None, "", said))
    return figures


def motion(frames: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each pair of frames: where a pixel of the second was in the first [H, W, 2], and if both show it."""
    import cv2

    height, width = frames.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    maps = []
    for forward, pair in zip(Dis().between(frames), itertools.pairwise(frames), strict=True):
        back = Dis().between(np.stack(pair[::-1]))[0]
        place = grid + back
        returned = cv2.remap(forward, place[..., 0], place[..., 1], cv2.INTER_LINEAR)
        within = ((place >= 0) & (place < [width, height])).all(-1)
        maps.append((place, within & (np.linalg.norm(back + returned, axis=-1) < 1)))
    return maps


def warp_errors(
    maps: list[tuple[np.ndarray, np.ndarray]], result: np.ndarray, inside: np.ndarray
) -> np.ndarray:
    """1000 x the mean squared difference, on the 0..1 scale, of each frame and the one before, moved.

    Over pixels seen in both and `inside` bool [T, H, W] one of them; not a number where there are none.
    """
    import cv2

    errors = []
    for i, (place, seen) in enumerate(maps):
        moved = cv2.remap(result[i], place[..., 0], place[..., 1], cv2.INTER_LINEAR)
        counted = seen & (inside[i] | inside[i + 1])
        gap = (result[i + 1][counted].astype(np.float64) - moved[counted]) / 255
        errors.append(1000 * float((gap**2).mean()) if counted.any() else np.nan)
    return np.array(errors)


def _peak(video: Path, count: int) -> Figure:
    """Peak resident memory of `model edit`, the only child of a process of its own."""
    command = [sys.executable, "-m", "model", "edit", "--checkpoint", "nano", "--text", TEXTS[0]]
    command += ["--video1", str(video), "--out", str(video.with_suffix(".out.mp4")), "--steps", "1"]
    code = (
        "import subprocess, sys, resource; subprocess.run(sys.argv[1:], check=True, stdout=2);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    return Figure(
        f"peak memory of an edit of {count} frames", None, None, "", f"{int(done.stdout) / 1024:.0f} MiB"
    )
