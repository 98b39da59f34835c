"""The nano preset on shards made for the purpose: making a step's data, forward and backward, one edit.

Weights are random; times do not depend on them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
import yaml

from model.config import ModelConfig, from_dict
from model.data import DataConfig, Steps
from model.editor import Editor
from model.lit import EditModule, micro_loss, token_shares
from model.settings import FitConfig
from model.train import open_data
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
    train, _, model = open_data(fit, scratch / "run")
    steps = Steps(train, data, 0, 0, 100)
    figures = [per("a step's data, media in memory", timed(lambda: steps[3], quick), 1, "step")]
    batch = steps[3].to(device)
    torch.manual_seed(0)
    module = EditModule(model, fit.optim, 100).to(device)
    tokens = sum(len(m.batch.segment) for m in batch.micro)

    def forward_backward() -> None:
        for micro, share in zip(batch.micro, token_shares(batch, fit.optim.average), strict=True):
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
    editor = Editor(module.dit.eval(), model, train.codec, train.text)
    sample = train.record(0)
    video = sample.bytes("video1")
    seconds = timed(lambda: editor(sample.sample.text, video1=video), quick, 6.0)
    frames = sample.sample.media["video1"].frames
    steps_used = model.inference.steps
    figures.append(per(f"edit of {frames} frames, {steps_used} solver steps", seconds, frames, "frame"))
    return figures
