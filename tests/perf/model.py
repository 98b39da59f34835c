"""The nano preset on shards made for the purpose: making a step's data, forward and backward, one edit.

Weights are random; times do not depend on them.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from pathlib import Path

import torch
import yaml

from model.config import InferenceConfig, ModelConfig
from model.data.batch import DataConfig
from model.encoders import build
from model.inference.editor import Editor
from model.inference.sampler import sample
from model.net.dit import DiT
from model.planner.flops import edit_flops
from model.planner.work import shape_of
from model.sequence.interleave import TextElement, VisionElement, build_sequence
from model.training.config import FitConfig
from model.training.dataloader import PlannedSteps
from model.training.module import EditModule, micro_loss, token_shares
from model.training.setup import build_datasets
from shards.serialization import from_dict
from shards.writer import write_shards
from tests.perf.measure import Figure, per, timed
from tests.perf.shards import make_items

PRESET, RUN = Path("configs/model/nano.yaml"), Path("configs/train/nano.yaml")


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Time the training step at the preset's batch size, and an edit at its steps and guidance."""
    config: ModelConfig = from_dict(ModelConfig, yaml.safe_load(PRESET.read_text()), str(PRESET))
    settings = yaml.safe_load(RUN.read_text())["data"]
    wanted = {k: v for k, v in settings.items() if k in ("batch_size", "token_budget")}
    write_shards(scratch / "shards", make_items(scratch / "media", 16, heldout=1))
    data = dataclasses.replace(DataConfig(shards=(str(scratch / "shards"),)), **wanted)
    fit = FitConfig(data=data, model=config)
    train, _, model = build_datasets(fit, scratch / "run")
    steps = PlannedSteps(train, data, 0, 0, 100)
    figures = [per("a step's data, media in memory", timed(lambda: steps[3], quick), 1, "step")]
    batch = steps[3].to(device)
    torch.manual_seed(0)
    module = EditModule(model, fit.optim, 100).to(device)
    tokens = sum(len(m.batch.segment) for m in batch.micro)

    def forward_backward() -> None:
        for micro, share in zip(batch.micro, token_shares(batch, fit.optim.loss_reduction), strict=True):
            loss = (share * micro_loss(module.dit, micro, model)).sum()
            loss.backward()
        module.dit.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    def mixed() -> None:
        with torch.autocast(device, torch.bfloat16):
            forward_backward()

    label = f"{data.batch_size} samples, {tokens} tokens"
    rate = f"{{}} steps/s, {tokens} tokens each"
    figures.append(
        per(f"forward + backward, fp32, {label}", timed(forward_backward, quick, 6.0), 1, "step", rate)
    )
    figures.append(per(f"forward + backward, bf16-mixed, {label}", timed(mixed, quick, 6.0), 1, "step", rate))
    editor = Editor(module.dit.eval(), model, train.vae, train.text_encoder)
    sample = train.record(0)
    video = sample.bytes("video1")
    seconds = timed(lambda: editor(sample.sample.text, video1=video), quick, 6.0)
    frames = sample.sample.media["video1"].frames
    steps_used = model.inference.steps
    figures.append(per(f"edit of {frames} frames, {steps_used} solver steps", seconds, frames, "frame"))
    return figures + context_reuse(model, device, quick)


def context_reuse(model: ModelConfig, device: str, quick: bool) -> list[Figure]:
    """The same weights under `context: full` and `cached`, half of the tokens being context, 50 steps."""
    generator = torch.Generator().manual_seed(0)
    codec = build(model.vae)
    size = codec.latent_size(model.media.frames, 96, 128)
    words = torch.randn(8, model.dit.text_dim, generator=generator)
    clips = (torch.randn(*size, codec.channels, generator=generator) for _ in range(2))
    source, target = (VisionElement(name, c) for name, c in zip(("video1", "video2"), clips, strict=True))
    target = dataclasses.replace(target, target=True)
    with_text, without_text = (
        build_sequence([source, *words_, target], model.sequence, codec.spatial)
        for words_ in ([TextElement(words)], [])
    )
    noise = torch.randn(torch.Size(with_text.target.size).numel(), model.dit.vision_dim, generator=generator)
    inference = InferenceConfig(steps=2 if quick else 50, guidance=1.0)
    networks: dict[str, DiT] = {}
    for context in ("full", "cached"):
        networks[context] = DiT(dataclasses.replace(model.dit, context=context)).to(device).eval()  # type: ignore[arg-type]
        networks[context].load_state_dict(networks["full"].state_dict())

    def run(context: str) -> float:
        begin = time.perf_counter()
        with torch.inference_mode():
            sample(networks[context], with_text, without_text, noise, model.flow, inference)
            if device == "cuda":
                torch.cuda.synchronize()
        return time.perf_counter() - begin

    # in turn, so that a machine whose speed drifts slows both
    pairs = [(run("full"), run("cached")) for _ in range(2 if quick else 8)][1:]
    seconds = dict(zip(networks, map(list, zip(*pairs, strict=True)), strict=True))
    shape = shape_of(with_text)
    work = {c: edit_flops(n.config, [shape], inference.steps, guidance=False) for c, n in networks.items()}
    steps = inference.steps
    label = f"step of {steps}, {len(with_text)} tokens, half of them context, fp32, context"
    saving = statistics.median(full / cached for full, cached in pairs)
    notes = {
        "full": f"{work['full'] / steps / 1e9:.3g} GFLOP per step",
        "cached": f"{work['cached'] / steps / 1e9:.3g} GFLOP per step: {work['full'] / work['cached']:.2f}x "
        f"less work, {saving:.2f}x less time",
    }
    return [per(f"{label} {name}", s, steps, "step", notes[name]) for name, s in seconds.items()]
