"""Clips out of long videos: seconds and the most memory of each step, in a process of its own.

Videos of 160x120 at 10 frames a second, of 1, 10 and 100 minutes, and of two hours in one scene with clips as
long as they may get. `cut` writes the clips, `load` reads their frames, `screen` measures them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from curation.sources.clip_filter import measure as measure_clip
from curation.sources.clips import Clip, Cut, cut, load_frames
from shards.processes import peak_memory
from shards.video_writer import write_video
from tests.perf.measure import Figure

HEIGHT, WIDTH, FPS = 120, 160, 10
MINUTE = 60 * FPS
STEPS = ("cut", "load", "screen")


def write_source(path: Path, minutes: int, scene: int) -> Path:
    """A video of noise that drifts, with another picture every `scene` frames."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 15, 40, 3), np.uint8)
    plates = [cv2.resize(n, (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for n in noise]
    frames = range(MINUTE * minutes)
    drawn = (np.roll(plates[i // scene % 4], i // 2, axis=1)[:, :WIDTH] for i in frames)
    write_video(path, drawn, FPS, crf=23, preset="ultrafast")
    return path


def run_step(step: str, source: Path, folder: Path, settings: Cut) -> dict[str, float]:
    """What a step took: seconds of the processor, the process's most memory in MiB, frames, clips."""
    notes = folder / "clips.json"
    begin = time.process_time()
    if step == "cut":
        folder.mkdir(exist_ok=True)
        clips = cut(source, settings, folder)
    else:
        clips = [Clip(**values) for values in json.loads(notes.read_text())]
        for clip in clips:
            frames = load_frames(replace(clip, path=str(folder / clip.file)))
            if step == "screen":
                measure_clip(frames, clip.fps)
            del frames
    seconds = time.process_time() - begin
    if step == "cut":
        notes.write_text(json.dumps([vars(clip) for clip in clips]))
    peak = peak_memory() / 2**20
    return {"seconds": seconds, "peak": peak, "frames": sum(c.frames for c in clips), "clips": len(clips)}


def measure_step(step: str, source: Path, folder: Path, max_seconds: float) -> dict[str, float]:
    """`run_step` in a process of its own."""
    command = [sys.executable, "-m", "tests.perf.clips", step, str(source), str(folder), str(max_seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Every step on every length."""
    figures = []
    for minutes in (1,) if quick else (1, 10, 100, 120):
        longest, scene = (7200.0, 120 * MINUTE) if minutes == 120 else (Cut.max_seconds, MINUTE)
        source = write_source(scratch / f"{minutes}.mp4", minutes, scene)
        for step in STEPS:
            done = measure_step(step, source, scratch / f"clips{minutes}", longest)
            each = 1000 * done["seconds"] / done["frames"]
            words = f"{done['seconds']:.1f} s, {done['clips']:.0f} clips, peak {done['peak']:.0f} MiB"
            what = f"{step}, {minutes} min, clips of {longest:g} s"
            figures.append(Figure(what, each, each, "ms/frame", words))
    return figures


if __name__ == "__main__":
    name, video, place, seconds = sys.argv[1:]
    cut_as = Cut(max_seconds=float(seconds))
    print(json.dumps(run_step(name, Path(video), Path(place), cut_as)))
