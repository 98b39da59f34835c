"""EditVerseBench as it is laid out, with small clips that were drawn, and results of a made-up method.

Half as many videos as edits, both orientations, categories of the paper's figure 4; metrics on tiny networks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from shards.media import write_video
from tests.benchmark import networks

CATEGORIES = ("add object", "remove object", "change object", "stylization", "change camera")
FPS = 8.0


def drawn(seed: int, frames: int, height: int, width: int, tint: float = 0.0) -> np.ndarray:
    """Smooth colours that move, uint8 RGB [T, H, W, 3]."""
    random = np.random.default_rng(seed)
    speed, scale = random.uniform(0.1, 0.5, 3), random.uniform(4, 9, (3, 2))
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    waves = [
        np.sin(x / scale[c, 0] + t * speed[c]) * np.cos(y / scale[c, 1] - t * speed[c]) for c in range(3)
    ]
    return np.uint8(np.clip(127.5 + 110 * np.stack(waves, -1) + tint * np.array([40, 0, -40]), 0, 255))


def size_of(video: int, frames: int, side: int) -> tuple[int, int, int]:
    """(frames, height, width): every second video is upright, lengths differ a little."""
    short, long = side, side * 16 // 9 // 2 * 2
    return (frames + video % 3, *((short, long) if video % 2 == 0 else (long, short)))


def write_benchmark(root: Path, edits: int, frames: int = 9, side: int = 48) -> Path:
    """The benchmark's folder with `test.json` and its videos."""
    entries: dict[str, dict[str, Any]] = {}
    for number in range(edits):
        video = number // 2
        path = f"videos/{1000 + video}-{7 * video}.mp4"
        if not (root / path).exists():
            write_video(root / path, drawn(video, *size_of(video, frames, side)), FPS)
        entries[str(number)] = {
            "<text>": f"<video1> Make the waves of video {video} redder, way {number % 2}.",
            "<video1>": path,
            "<video1> link": f"https://example.org/videos/waves-{1000 + video}/",
            "direction": "horizontal" if video % 2 == 0 else "vertical",
            "target_prompt": f"Red waves roll over picture {number}, seen from above.",
            "source_prompt": f"Waves roll over picture {video}, seen from above.",
            "type": CATEGORIES[number % len(CATEGORIES)],
        }
    (root / "test.json").write_text(json.dumps(entries, indent=1))
    return root


def write_results(folder: Path, edits: int, tint: float = 1.0, frames: int = 9, side: int = 48) -> Path:
    """Results of a method that tints its source."""
    for number in range(edits):
        video = number // 2
        made = drawn(video, *size_of(video, frames, side), tint=tint * (1 + number % 2))
        write_video(folder / str(number) / "generate.mp4", made, FPS)
    return folder


def write_networks(root: Path) -> dict[str, Path]:
    """Folders and files of all networks that the six metrics need."""
    for name in ("tokenizer", "clip", "pick", "dino"):
        (root / name).mkdir(parents=True, exist_ok=True)
    tokenizer = networks.tokenizer(root / "tokenizer")
    made = {
        "tokenizer": tokenizer,
        "clip": networks.clip(root / "clip", tokenizer),
        "pick": networks.clip(root / "pick", tokenizer, seed=5),
        "dino": networks.dino(root / "dino"),
        "viclip": root / "viclip.pth",
    }
    torch.save({"model": networks.viclip_state()}, made["viclip"])
    return made


def write_metrics(path: Path, made: dict[str, Path], judge: str | None = None, **options: Any) -> Path:
    """A metrics file of all that have a network here; `judge` is an endpoint's URL, `options` the judge's."""
    features, metrics = "benchmark.features", "benchmark.metrics"

    def entry(kind: str, **args: Any) -> dict[str, Any]:
        return {"class_path": kind, "init_args": args}

    models = {
        "clip": entry(f"{features}.clip.Clip", path=str(made["clip"])),
        "pick": entry(f"{features}.clip.Clip", path=str(made["pick"])),
        "dino": entry(f"{features}.clip.Dino", path=str(made["dino"])),
        "viclip": entry(
            f"{features}.viclip.ViClip", path=str(made["viclip"]), tokenizer=str(made["tokenizer"])
        ),
    }
    text, temporal = f"{metrics}.text", f"{metrics}.temporal.TemporalConsistency"
    listed = [
        entry(f"{text}.FrameAlignment", model="pick", name="pick", label="Pick", shrink=True),
        entry(f"{text}.FrameAlignment", model="clip", name="frame_text", label="Frame-text"),
        entry(f"{text}.VideoAlignment", model="viclip"),
        entry(temporal, model="clip", name="clip_temporal", label="CLIP temporal"),
        entry(temporal, model="dino", name="dino_temporal", label="DINO temporal"),
    ]
    if judge is not None:
        models["judge"] = entry("curation.vlm.endpoint.Endpoint", url=judge, model="m", timeout=5, retries=2)
        listed.insert(0, entry("benchmark.judges.judge.Judge", model="judge", **options))
    path.write_text(yaml.safe_dump({"models": models, "metrics": listed}))
    return path
