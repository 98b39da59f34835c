"""The order of the metrics' cost: a run, whose metrics share networks, beside a plain loop on the same clips.

Networks are random, of CLIP ViT-L/14's and DINOv2-B's sizes. The plain loop is like the published programs:
one clip after another, each metric decodes it and shows its network one frame at a time. Both load their
networks, decode the same files, and must come to the same scores. `python -m tests.perf.cost --items 200`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import auto_cli
from PIL import Image
from rich.console import Console

from benchmark.core.media import read_frames
from benchmark.evaluation.results import RunConfig
from benchmark.evaluation.runner import execute
from tests.benchmark import networks, synthetic
from tests.perf.measure import Figure

ITEMS, FRAMES, SIDE = 200, 3, 96  # of the synthetic clips: their number, frames at least, shorter side
TOWER = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}


def measure(
    scratch: Path, device: str, quick: bool, items: int = ITEMS, frames: int = FRAMES
) -> list[Figure]:
    """Time both, by the clock and by the processor."""
    items = 2 if quick else items
    made = write_networks(scratch, quick)
    data = synthetic.write_benchmark(scratch / "bench", items, frames, SIDE)
    results = synthetic.write_results(scratch / "ours", items, 1.0, frames, SIDE)
    metrics = metrics_file(scratch / "metrics.yaml", made)
    config = RunConfig(
        "editversebench",
        str(data),
        None,
        results={"ours": str(results)},
        metrics=str(metrics),
        mode="official",
        device=device,
    )
    runs: list[Any] = []

    def shared() -> None:
        runs.append(execute(config, scratch / "out", Console(quiet=True), gallery=0))

    both = {"a run, networks and features shared": spent(shared)}
    found: dict[str, list[float]] = {}
    both["the plain loop"] = spent(lambda: found.update(plain(runs[0], results, made, device)))
    for name, scores in found.items():  # the same numbers, or the comparison says nothing
        ours = [float(o.scores["ours"][name]) for o in runs[0].outcomes]
        np.testing.assert_allclose(ours, scores, rtol=1e-4, atol=1e-4)
    count = sum(o.geometry.frames for o in runs[0].outcomes if o.geometry)
    return [
        Figure(f"{what}: {items} items, {count} frames", clock, clock, "s", f"{processor:.0f} s of processor")
        for what, (clock, processor) in both.items()
    ]


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of this process's processor time."""
    begin = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def write_networks(scratch: Path, quick: bool) -> dict[str, Path]:
    """Folders of a CLIP and a DINOv2 in transformers' layout; tiny ones where it is to be quick."""
    from transformers import (
        BitImageProcessorPil,
        CLIPConfig,
        CLIPImageProcessorPil,
        CLIPModel,
        CLIPTokenizer,
        Dinov2Config,
        Dinov2Model,
    )

    words = networks.tokenizer(scratch / "words")
    clip, dino = scratch / "clip", scratch / "dino"
    if quick:
        return {"clip": networks.clip(clip, words), "dino": networks.dino(dino)}
    torch.manual_seed(0)
    ends = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    CLIPModel(
        CLIPConfig(
            text_config={**TEXT, **ends, "vocab_size": 514, "max_position_embeddings": 77},
            vision_config={**TOWER, "image_size": 224, "patch_size": 14},
            projection_dim=768,
        )
    ).save_pretrained(clip)
    CLIPImageProcessorPil().save_pretrained(clip)
    CLIPTokenizer.from_pretrained(words).save_pretrained(clip)
    Dinov2Model(Dinov2Config(image_size=518, patch_size=14)).save_pretrained(dino)
    BitImageProcessorPil(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}
    ).save_pretrained(dino)
    return {"clip": clip, "dino": dino}


def metrics_file(path: Path, made: dict[str, Path]) -> Path:
    """Frame-text and CLIP temporal, which share a network, and DINO temporal."""
    temporal = "benchmark.metrics.temporal.TemporalConsistency"

    def entry(kind: str, **args: Any) -> dict[str, Any]:
        return {"class_path": kind, "init_args": args}

    models = {
        name: entry(f"benchmark.features.clip.{kind}", path=str(made[name]), backend="pil")
        for name, kind in (("clip", "Clip"), ("dino", "Dino"))
    }
    metrics = [
        entry("benchmark.metrics.text.FrameAlignment", model="clip", name="frame_text", label="Frame-text"),
        entry(temporal, model="clip", name="clip_temporal", label="CLIP temporal"),
        entry(temporal, model="dino", name="dino_temporal", label="DINO temporal"),
    ]
    path.write_text(yaml.safe_dump({"models": models, "metrics": metrics}))
    return path


@torch.no_grad()
def plain(run: Any, results: Path, made: dict[str, Path], device: str) -> dict[str, list[float]]:
    """Scores by metric: each metric goes over all clips by itself, a frame at a time."""
    from transformers import (
        BitImageProcessorPil,
        CLIPImageProcessorPil,
        CLIPModel,
        CLIPTokenizer,
        CLIPVisionModel,
        Dinov2Model,
    )

    items = [o.item for o in run.outcomes]

    def shown(item: Any, processor: Any) -> list[Any]:
        frames = read_frames(results / item.result, "official")
        pictures = [processor(images=Image.fromarray(f), return_tensors="pt") for f in frames]
        return [p["pixel_values"].to(device) for p in pictures]

    def temporal(model: Any, processor: Any) -> list[float]:
        scores = []
        for item in items:
            seen = [model(pixel_values=p).pooler_output for p in shown(item, processor)]
            alike = [torch.cosine_similarity(a, b) for a, b in zip(seen[1:], seen[:-1], strict=True)]
            scores.append(float(torch.stack(alike).clamp(min=0).mean()))
        return scores

    found: dict[str, list[float]] = {"frame_text": []}
    model = CLIPModel.from_pretrained(made["clip"]).to(device).eval()
    processor = CLIPImageProcessorPil.from_pretrained(made["clip"])
    tokenizer = CLIPTokenizer.from_pretrained(made["clip"])
    for item in items:
        tokens = tokenizer(item.prompts["target"], truncation=True, max_length=77, return_tensors="pt")
        scores = []
        for pixels in shown(item, processor):
            logits = model(pixel_values=pixels, **tokens.to(device)).logits_per_image
            scores.append(float(logits))
        found["frame_text"].append(float(np.mean(scores)))
    del model
    vision = CLIPVisionModel.from_pretrained(made["clip"]).to(device).eval()
    found["clip_temporal"] = temporal(vision, processor)
    del vision
    dino = Dinov2Model.from_pretrained(made["dino"]).to(device).eval()
    found["dino_temporal"] = temporal(dino, BitImageProcessorPil.from_pretrained(made["dino"]))
    return found


def main(items: int = ITEMS, frames: int = FRAMES, device: str = "cpu", quick: bool = False) -> None:
    """Measure and print.

    Args:
        items: clips
        frames: of the shortest clip; others have one or two more
        device: of the networks
        quick: two items and tiny networks, to see that it runs
    """
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        for figure in measure(Path(scratch), device, quick, items, frames):
            print(f"{figure.what}: {figure.median:.1f} s by the clock, {figure.rate}")


if __name__ == "__main__":
    auto_cli(main, prog="python -m tests.perf.cost")
