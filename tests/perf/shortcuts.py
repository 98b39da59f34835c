"""Each shortcut's seconds and memory at real sizes, beside diffusers' class in the same run: for a GPU.

Random weights of the paper's size at the lengths of its Table 11, and of Wan 2.1 1.3B at 65,520 tokens, where
diffusers' transformer makes as many guided steps of as many tokens. What shortcuts lose takes trained
weights, see `tests/perf/editing.py`.
`python -m tests.perf.shortcuts --device cpu --size tiny` is a dry run of all of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import nn

from model.acceleration.config import NO_SHORTCUTS, Shortcuts
from model.acceleration.network import accelerated, weight_bytes
from model.acceleration.step_cache import Recorder
from model.config import InferenceConfig
from model.flow.flow_matching import FlowConfig
from model.inference.sampler import Job, sample_many
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.net.transformer import Transformer
from model.sequence.interleave import (
    SequenceConfig,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
)
from model.sequence.rope import RopeConfig
from shards.serialization import from_dict
from tests.perf import wan
from tests.perf.measure import Figure

Size = Literal["tiny", "real"]
# Latent frames, rows and columns of a source and of a target, by the tokens of Table 11 that they are near
TABLE_11 = {17_652: (17, 44, 48), 34_342: (17, 64, 64), 63_662: (31, 64, 64), 110_822: (54, 64, 64)}
TINY = DiTConfig(text_dim=8, vision_dim=64, width=32, depth=1, heads=2, rope=RopeConfig(dims=(4, 4, 4, 4)))
STEPS, WORDS, SHARE = 8, 20, 0.5
FLOW = FlowConfig(shift=3.0)
GUIDED = InferenceConfig(steps=STEPS, guidance=5.0)
HALF = dataclasses.replace(GUIDED, interval=(0.0, 0.5))


def measure(scratch: Path, device: str, quick: bool, size: Size | None = None) -> list[Figure]:
    """The paper's size at each length, then the 1.3B; on a CPU tiny ones of both."""
    size = size or ("real" if device == "cuda" else "tiny")
    figures = []
    preset = yaml.safe_load(Path("configs/model/2b.yaml").read_text())["dit"]
    config = from_dict(DiTConfig, preset, "configs/model/2b.yaml") if size == "real" else TINY
    clips = TABLE_11 if size == "real" else {24: (2, 4, 6)}
    for clip in list(clips.values())[: 1 if quick else None]:
        jobs = job_of(clip, config.text_dim, config.vision_dim, SequenceConfig(patch=2))
        figures += rows("2b", [network_of(config, c, device) for c in ("full", "cached")], jobs, device)
        _clear()
    case = wan.CASES["1.3b" if size == "real" else "tiny"]
    jobs = job_of(case.clip, case.config.text_dim, case.config.vision_dim, wan.LAYOUT)
    theirs = wan.timed_job(wan.guided_diffusers, case, [jobs.with_text], device, 2)
    seconds = theirs.median / wan.GUIDED.steps
    figures.append(figure(f"1.3b, {jobs.tokens:,} tokens: diffusers", seconds, theirs.peak, 0, seconds))
    _clear()
    ours = wan.random_wan(case, device).to(torch.bfloat16).eval()
    return figures + rows("1.3b", [ours], jobs, device, seconds)


def network_of(config: DiTConfig, context: Any, device: str) -> DiT:
    """Random weights in bfloat16; the output is not zero."""
    with torch.device(device):
        network = DiT(dataclasses.replace(config, context=context))
        nn.init.normal_(network.out.weight, std=0.02)
    return network.to(torch.bfloat16).eval()


def job_of(clip: tuple[int, int, int], text: int, vision: int, layout: SequenceConfig) -> Job:
    """A source and a target of a size, and a text of twenty words; the other branch has one or none."""
    source, target = (torch.randn(*clip, vision // 4) for _ in range(2))

    def built(words: int) -> TokenSequence:
        elements = [VisionElement("video1", source), VisionElement("video2", target, target=True)]
        if words:
            elements.insert(1, TextElement(torch.randn(words, text)))  # type: ignore[arg-type]
        return build_sequence(elements, layout, 8)

    frames, height, width = clip
    noise = torch.randn(frames * (height // 2) * (width // 2), vision)
    return Job(built(WORDS), built(1 if layout.has_prompt else 0), noise)


def variants(threshold: float) -> Iterator[tuple[str, InferenceConfig, Shortcuts]]:
    """Names, sampling and shortcuts; those that round the weights come last."""
    cache = Shortcuts(step_cache=threshold)
    yield "full", GUIDED, NO_SHORTCUTS
    yield f"step cache of {SHARE:.0%}", GUIDED, cache
    yield "guidance to 0.5", HALF, NO_SHORTCUTS
    yield "compiled", GUIDED, Shortcuts(compile=True)
    yield "step cache, guidance to 0.5, compiled", HALF, dataclasses.replace(cache, compile=True)
    yield "int8", GUIDED, Shortcuts(weights="int8")
    yield "fp8", GUIDED, Shortcuts(weights="fp8")


@torch.inference_mode()
def rows(
    name: str, networks: list[Transformer] | list[DiT], job: Job, device: str, theirs: float | None = None
) -> list[Figure]:
    """Seconds of a step with every shortcut, and its peak memory.

    Args:
        networks: one, or one that keeps its context beside one that does not.
        theirs: seconds of a step of diffusers'.
    """
    figures: list[Figure] = []
    network = networks[0]
    with Recorder(network) as recorder:
        sample_many(network, [job], FLOW, GUIDED)
    whole = 0.0
    label = f"{name}, {job.tokens:,} tokens"
    for what, config, shortcuts in variants(recorder.threshold(SHARE)):
        if what == "fp8":  # rounded to int8 by then
            network = type(network)(network.config).to(device, torch.bfloat16).eval()
        seconds, peak = step(network, job, config, shortcuts, device)
        whole = whole or seconds
        figures.append(figure(f"{label}: {what}", seconds, peak, weight_bytes(network), whole, theirs))
    for cached in networks[1:]:
        seconds, peak = step(cached, job, GUIDED, NO_SHORTCUTS, device)
        figures.append(figure(f"{label}: context cached", seconds, peak, weight_bytes(cached), whole, theirs))
    return figures


def step(
    network: Transformer, job: Job, config: InferenceConfig, shortcuts: Shortcuts, device: str
) -> tuple[float, float | None]:
    """Seconds of a step, of a sampling run after one that is not counted, and the peak in GiB."""

    def build(*_: Any) -> wan.Job:
        def run() -> None:
            with accelerated(network, shortcuts):
                sample_many(network, [job], FLOW, config, shortcuts=shortcuts)

        return run

    timed = wan.timed_job(build, wan.CASES["tiny"], [], device, 2)
    return timed.median / config.steps, timed.peak


def figure(
    what: str, seconds: float, peak: float | None, held: int, whole: float, theirs: float | None = None
) -> Figure:
    """A row: gain over full sampling, over diffusers, and memory."""
    note = f"{whole / seconds:.2f}x" + (f", {theirs / seconds:.2f}x diffusers' speed" if theirs else "")
    note += f", weights {held / 2**30:.2f} GiB" if held else ""
    note += f", peak {peak:.1f} GiB" if peak is not None else ""
    return Figure(what, seconds, seconds, "s/step", note)


def _clear() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf.shortcuts", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", default=None, choices=("tiny", "real"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    for row in measure(Path(), options.device, options.quick, options.size):
        print(f"{row.what}: {row.median:.4g} {row.unit}; {row.rate}")


if __name__ == "__main__":
    main()
