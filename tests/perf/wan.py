"""Wan's transformer at the size of published weights, beside diffusers' class in the same run.

Random weights; a source and a target of 480p and 81 frames with a prompt of twenty words, 65,520 tokens in
all, as one sequence. Diffusers' class gets as many tokens as one long video and the prompt filled up to 512.
`python -m tests.perf.wan --device cpu --size tiny` is a dry run of all of it; on a GPU the group `wan` of
`make gpu` has the full size. Weights, and how often each is repeated, are the same for both.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import InferenceConfig
from model.flow.flow_matching import FlowConfig
from model.inference.sampler import sample
from model.net.activation_checkpointing import prepare_blocks
from model.net.wan import WanTransformer
from model.net.wan_config import WanConfig
from model.planner.flops import forward_flops
from model.planner.work import shape_of
from model.sequence.interleave import (
    SequenceConfig,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
)
from model.sequence.packing import pack
from model.sequence.rope import RopeConfig
from tests.perf.measure import Figure

Size = Literal["tiny", "1.3b"]
Job = Callable[[], Any]
Build = Callable[["Case", list[TokenSequence], str], Job]

SPEEDUP, TFLOPS, SECONDS = 1.3, 400, 4.3  # goals: over diffusers, in training, of a guided step
WORDS, TEXT_TOKENS = 20, 512
LAYOUT = SequenceConfig(pixel_positions=False, text="cross_attention", first_axis="source")
# as Bernini-R is sampled
GUIDED = InferenceConfig(steps=2, guidance=4.0, solver="unipc_wan", eta=0.5, norm=50.0)


@dataclass(frozen=True)
class Case:
    """Sizes of the transformer, and of the latents of a clip: frames, rows, columns."""

    config: WanConfig
    clip: tuple[int, int, int]


PHASES: dict[str, Any] = {"rope": RopeConfig(source=True), "source_time": "target"}  # Bernini's
CASES: dict[Size, Case] = {
    "1.3b": Case(WanConfig(**PHASES), (21, 60, 104)),
    "tiny": Case(
        WanConfig(text_dim=32, vision_dim=16, width=48, depth=2, heads=2, hidden=96, **PHASES), (3, 4, 6)
    ),
}


@dataclass
class Timed:
    """Seconds of each repetition, and the device's peak memory in GiB, None where it is not counted."""

    seconds: list[float]
    peak: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure(scratch: Path, device: str, quick: bool, size: Size | None = None) -> list[Figure]:
    """Forward passes, guided steps and training steps of both, in turn; on a CPU tiny ones."""
    case = CASES[size or ("1.3b" if device == "cuda" else "tiny")]
    torch.manual_seed(0)
    sequences = [sequence(case, words) for words in (WORDS, 1)]
    flops = forward_flops(case.config, [shape_of(sequences[0])])
    tokens, turns = len(sequences[0]), 2 if quick or device == "cpu" else 4
    figures = []
    for kind in KINDS:
        ours, theirs = (timed_job(b, case, sequences, device, turns) for b in (kind.ours, kind.diffusers))
        for owner, timed in (("ours", ours), ("diffusers", theirs)):
            seconds = timed.median / kind.steps
            note = f"{kind.passes * flops / seconds / 1e12:.3g} TFLOP/s"
            if kind.repeats:
                note += f", {(kind.passes + 1) * flops / seconds / 1e12:.3g} with what is computed again"
            if timed.peak is not None:
                note += f", peak {timed.peak:.1f} GiB"
            if owner == "ours":
                note += f"; {theirs.median / timed.median:.2f}x diffusers' speed (goal {SPEEDUP}x){kind.goal}"
            what = f"{kind.label}, {tokens:,} tokens: {owner}"
            figures.append(Figure(what, seconds, min(timed.seconds) / kind.steps, "s", note))
    return figures


def sequence(case: Case, words: int) -> TokenSequence:
    """A source, a prompt and a target."""
    channels = case.config.vision_dim // 4
    source, target = (torch.randn(*case.clip, channels) for _ in range(2))
    return build_sequence(
        [
            VisionElement("video1", source),
            TextElement(torch.randn(words, case.config.text_dim)),
            VisionElement("video2", target, target=True),
        ],
        LAYOUT,
    )


def _forward(case: Case, sequences: list[TokenSequence], device: str) -> Job:
    """A forward pass of ours, weights in bfloat16."""
    network = random_wan(case, device).to(torch.bfloat16).eval()
    batch = pack(sequences[:1]).to(device)
    timestep = torch.full((batch.segments,), 0.5, device=device)
    return torch.inference_mode()(lambda: network(batch, batch.vision, timestep))


def _forward_diffusers(case: Case, sequences: list[TokenSequence], device: str) -> Job:
    network = _theirs(case, device).to(torch.bfloat16).eval()
    inputs = _their_inputs(case, device, torch.bfloat16)
    return torch.inference_mode()(lambda: network(**inputs))


def _guided(case: Case, sequences: list[TokenSequence], device: str) -> Job:
    """The sampler's own loop, with the prompt and with that of the empty text."""
    network = random_wan(case, device).to(torch.bfloat16).eval()
    with_text, without_text = sequences
    noise = torch.randn(shape_of(with_text).target, case.config.vision_dim)
    flow = FlowConfig(shift=3.0)
    return torch.inference_mode()(lambda: sample(network, with_text, without_text, noise, flow, GUIDED))


def guided_diffusers(case: Case, sequences: list[TokenSequence], device: str) -> Job:
    """Two passes a step and their combination, as `WanPipeline` does; the solver is left out."""
    forward = _forward_diffusers(case, sequences, device)

    def run() -> None:
        for _ in range(GUIDED.steps):
            (with_text,), (without_text,) = forward(), forward()
            without_text + 4.0 * (with_text - without_text)

    return run


def _train(case: Case, sequences: list[TokenSequence], device: str) -> Job:
    """A training step of ours: every block computed again."""
    network = random_wan(case, device)
    prepare_blocks(network, "full", compiled=False)
    batch = pack(sequences[:1]).to(device)
    timestep = torch.full((batch.segments,), 0.5, device=device)
    wanted = torch.randn(len(batch.target), case.config.vision_dim, device=device)
    return _step(
        network, lambda: F.mse_loss(network(batch, batch.vision, timestep)[0].float(), wanted), device
    )


def _train_diffusers(case: Case, sequences: list[TokenSequence], device: str) -> Job:
    network = _theirs(case, device).train()
    network.enable_gradient_checkpointing()
    inputs = _their_inputs(case, device, torch.float32)
    # the target is the second half of the long video
    return _step(network, lambda: network(**inputs)[0][:, :, case.clip[0] :].float().square().mean(), device)


def _step(network: nn.Module, loss: Callable[[], Tensor], device: str) -> Job:
    """Forward, backward and AdamW; weights and moments in float32, under autocast."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)

    def run() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def random_wan(case: Case, device: str) -> WanTransformer:
    with torch.device(device):
        network = WanTransformer(case.config)
        nn.init.normal_(network.proj_out.weight, std=0.02)  # zero at the start, as would be all gradients
    return network


def _theirs(case: Case, device: str) -> Any:
    from diffusers import WanTransformer3DModel

    config = case.config
    with torch.device(device):
        return WanTransformer3DModel(
            num_attention_heads=config.heads,
            attention_head_dim=config.width // config.heads,
            in_channels=config.vision_dim // 4,
            out_channels=config.vision_dim // 4,
            text_dim=config.text_dim,
            ffn_dim=config.hidden,
            num_layers=config.depth,
        )


def _their_inputs(case: Case, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Source and target behind one another, and the prompt among zeros."""
    frames, rows, columns = case.clip
    video = torch.randn(1, case.config.vision_dim // 4, 2 * frames, rows, columns)
    text = torch.zeros(1, TEXT_TOKENS, case.config.text_dim)
    text[:, :WORDS].normal_()
    return {
        "hidden_states": video.to(device, dtype),
        "timestep": torch.full((1,), 500, device=device),
        "encoder_hidden_states": text.to(device, dtype),
        "return_dict": False,
    }


def timed_job(build: Build, case: Case, sequences: list[TokenSequence], device: str, turns: int) -> Timed:
    """Run a job alone on the device, so that its peak is its own; the first turn is not counted."""
    job = build(case, sequences, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # building a network takes more than it keeps
    seconds = []
    for _ in range(turns):
        wait_for(device)
        begin = time.perf_counter()
        job()
        wait_for(device)
        seconds.append(time.perf_counter() - begin)
    del job
    gc.collect()
    peak = None
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.empty_cache()
    return Timed(seconds[1:], peak)


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Kind:
    """Something that both do.

    Attributes:
        passes: its work in forward passes; repeats: with one more for what is computed again.
        steps: that a job runs.
    """

    label: str
    ours: Build
    diffusers: Build
    passes: int
    goal: str = ""
    steps: int = 1
    repeats: bool = False


KINDS = (
    Kind("forward pass, bf16", _forward, _forward_diffusers, 1),
    Kind("guided step, bf16", _guided, guided_diffusers, 2, f", goal {SECONDS} s", GUIDED.steps),
    # forward and, twice that, backward
    Kind(
        "training step, bf16-mixed, full checkpointing, AdamW",
        *(_train, _train_diffusers, 3),
        goal=f", goal {TFLOPS} TFLOP/s",
        repeats=True,
    ),
)


def main(arguments: list[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf.wan", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", default=None, choices=tuple(CASES))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    for figure in measure(Path(), options.device, options.quick, options.size):
        print(f"{figure.what}: {figure.median:.4g} {figure.unit}; {figure.rate}")


if __name__ == "__main__":
    main()
