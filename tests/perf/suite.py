"""A synthetic EditVerseBench scored with its six metrics on tiny networks, beside a plain loop over frames.

The loop is what the published code does: a network per metric, a frame at a time, calls of the judge one
after the other. Both compute the same numbers (`official`). The judge is a local stub that answers after
`LATENCY`; peak memory is of a process of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.evaluation.results import RunConfig
from benchmark.evaluation.runner import execute
from benchmark.features.viclip import ViClip
from shards.media import read_video
from tests.benchmark import synthetic
from tests.benchmark.stub import Reply, Stub, said
from tests.perf.measure import Figure

FRAMES, SIDE = 24, 144
LATENCY = 0.1  # seconds; a real judge takes some
NAMES = ("clip_temporal", "dino_temporal", "frame_text", "video_text", "pick", "judge")


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Time both on the same clips; raises AssertionError when they disagree."""
    edits = 10 if quick else 200
    data = synthetic.write_benchmark(scratch / "bench", edits, FRAMES, SIDE)
    results = synthetic.write_results(scratch / "ours", edits, 1.0, FRAMES, SIDE)
    made = synthetic.write_networks(scratch / "networks")
    stub = Stub()
    stub.reply = judged
    prompt = scratch / "prompt.txt"
    prompt.write_text("Review this edit: {instruction}")
    metrics = synthetic.write_metrics(scratch / "metrics.yaml", made, stub.url, prompt=str(prompt))
    figures, found = [], {}
    given = json.dumps({name: str(path) for name, path in made.items()} | {"judge": stub.url})
    jobs = {
        "plain loop": ["tests.perf.suite", "plain", str(data), str(results), given],
        "benchmark run": ["tests.perf.suite", "ours", str(data), str(results), str(metrics), "1"],
        "benchmark run, 2 processes": [
            "tests.perf.suite",
            "ours",
            str(data),
            str(results),
            str(metrics),
            "2",
        ],
    }
    for name, arguments in jobs.items():
        told = json.loads(alone(arguments, scratch / name.replace(" ", "-").replace(",", "")))
        found[name] = told
        note = f"{told['seconds']:.1f} s for {edits} edits, peak {told['peak_mb']:.0f} MB"
        milliseconds = told["seconds"] / edits * 1000
        figures.append(Figure(name, milliseconds, milliseconds, "ms/edit", note))
    stub.server.shutdown()
    for name in list(jobs)[1:]:
        np.testing.assert_allclose(found[name]["means"], found["plain loop"]["means"], rtol=2e-5)
        times = found["plain loop"]["seconds"] / found[name]["seconds"]
        figures.append(Figure(f"{name}, times faster", None, None, "", f"{times:.2f}"))
    return figures


def judged(n: int, request: dict[str, Any]) -> Reply:
    """A review of pictures, and then its total."""
    time.sleep(LATENCY)
    pictures = any(part.get("type") == "image_url" for part in request["messages"][0]["content"])
    return said("It is well done. Total: 7" if pictures else "7")


def alone(arguments: list[str], out: Path) -> str:
    """A process of its own, which prints one line of JSON."""
    command = [sys.executable, "-m", *arguments, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout.strip().splitlines()[-1]


def peak_mb() -> float:
    """Of this process or its largest child, in MB."""
    import resource

    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in whose) / 1e3


def ours(data: str, results: str, metrics: str, workers: str, out: str) -> dict[str, Any]:
    """Scored by the benchmark."""
    from rich.console import Console

    config = RunConfig(
        "editversebench", data, None, results={"ours": results}, metrics=metrics, mode="official"
    )
    begin = time.perf_counter()
    run = execute(config, Path(out), Console(quiet=True), gallery=0, workers=int(workers))
    means = run.summary()["table"]["all"]["ours"]
    return {
        "seconds": time.perf_counter() - begin,
        "means": [means[m]["value"] for m in NAMES],
    }


def plain(data: str, results: str, networks: str, out: str) -> dict[str, Any]:
    """Scored by a plain loop over metrics, items and frames."""
    import base64

    import cv2
    import openai
    import torch
    from PIL import Image
    from transformers import (
        BitImageProcessorPil,
        CLIPImageProcessorPil,
        CLIPModel,
        CLIPTokenizer,
        CLIPVisionModel,
        Dinov2Model,
    )

    held = json.loads(networks)
    client = openai.OpenAI(base_url=held["judge"], api_key="none")
    begin = time.perf_counter()
    clip_vision = CLIPVisionModel.from_pretrained(held["clip"]).eval()
    clip, pick = (CLIPModel.from_pretrained(held[n]).eval() for n in ("clip", "pick"))
    dino = Dinov2Model.from_pretrained(held["dino"]).eval()
    viclip = ViClip(held["viclip"], held["tokenizer"])
    tokenizer = CLIPTokenizer.from_pretrained(held["tokenizer"])
    for_clip = CLIPImageProcessorPil.from_pretrained(held["clip"])
    for_dino = BitImageProcessorPil.from_pretrained(held["dino"])

    def temporal(model: Any, processor: Any, frames: list[Any]) -> float:
        with torch.no_grad():
            states = [model(**processor(images=f, return_tensors="pt")).pooler_output[0] for f in frames]
        pairs = itertools.pairwise(states)
        return float(np.mean([max(0.0, float(torch.cosine_similarity(a, b, dim=0))) for a, b in pairs]))

    def alignment(model: Any, frames: list[Any], prompt: str) -> float:
        tokens = tokenizer(prompt, truncation=True, max_length=77, return_tensors="pt")
        scores = []
        with torch.no_grad():
            words = model.text_projection(model.text_model(**tokens).pooler_output)[0]
            for frame in frames:
                states = model.vision_model(**for_clip(images=frame, return_tensors="pt")).pooler_output
                picture = model.visual_projection(states)[0]
                scores.append(float(model.logit_scale.exp() * torch.cosine_similarity(words, picture, dim=0)))
        return float(np.mean(scores))

    def ask(content: list[Any]) -> str:
        message: Any = [{"role": "user", "content": content}]
        told = client.chat.completions.create(model="m", messages=message, temperature=0)
        return str(told.choices[0].message.content)

    def judge(source: np.ndarray, result: list[Any], instruction: str) -> float:
        totals = []
        for n in range(0, len(result), len(result) // 3):
            pictures: list[Any] = []
            for frame in (source[n], np.asarray(result[n])):
                data = base64.b64encode(cv2.imencode(".jpg", frame)[1].tobytes()).decode()
                url = f"data:image/jpeg;base64,{data}"
                pictures.append({"type": "image_url", "image_url": {"url": url}})
            review = ask([*pictures, {"type": "text", "text": f"Review this edit: {instruction}"}])
            totals.append(int(ask([{"type": "text", "text": f"Extract the total: {review}"}])))
        return float(np.mean(totals))

    def video(frames: list[Any], prompt: str) -> float:
        chosen = [np.asarray(frames[int(i * len(frames) / 8)]) for i in range(8)]
        return 100 * float(viclip.video(chosen) @ viclip.text(prompt))

    entries = json.loads((Path(data) / "test.json").read_text())
    rows = []
    for number, entry in entries.items():
        frames = [Image.fromarray(f) for f in read_video(Path(results) / number / "generate.mp4")[0]]
        source = read_video(Path(data) / entry["<video1>"])[0]
        prompt = entry["target_prompt"]
        rows.append(
            [
                temporal(clip_vision, for_clip, frames),
                temporal(dino, for_dino, frames),
                alignment(clip, frames, prompt),
                video(frames, prompt),
                alignment(pick, frames, prompt),
                judge(source, frames, entry["<text>"]),
            ]
        )
    return {"seconds": time.perf_counter() - begin, "means": np.mean(rows, 0).tolist()}


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    made = {"ours": ours, "plain": plain}[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(made | {"peak_mb": peak_mb()}))
