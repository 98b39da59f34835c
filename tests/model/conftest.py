"""Shared parts of the model's tests: small random sequences, tiny configurations, real shards.

Everything runs on the CPU with random weights.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from model import Editor
from model.config import InferenceConfig, MediaConfig, ModelConfig
from model.data.batch import DataConfig
from model.encoders import part
from model.extras.config import ExtrasConfig
from model.flow.flow_matching import FlowConfig
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.interleave import (
    SequenceConfig,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
)
from model.sequence.rope import RopeConfig
from model.training.config import FitConfig, OptimConfig, TrainConfig
from model.training.trainer import fit
from shards.media import write_mask, write_video
from shards.sample import Sample
from shards.writer import write_shards
from tests.model.page_server import PageServer, running

CHANNELS = 3


@pytest.fixture
def dit_config() -> DiTConfig:
    """Two blocks, two heads of 16, grouped-query attention."""
    return DiTConfig(
        text_dim=8,
        vision_dim=4 * CHANNELS,
        width=32,
        depth=2,
        heads=2,
        kv_heads=1,
        rope=RopeConfig(dims=(4, 4, 4, 4)),
    )


@pytest.fixture
def trained_like(dit_config: DiTConfig) -> DiT:
    """A DiT whose zero-initialised parts are filled, so that every input reaches the output."""
    torch.manual_seed(0)
    dit = DiT(dit_config)
    with torch.no_grad():
        for parameter in dit.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return dit.eval()


@pytest.fixture
def make_sequence() -> Callable[..., TokenSequence]:
    """Random sequences: text, a source, more text, a target."""

    def make(
        seed: int = 0, frames: int = 2, height: int = 4, width: int = 6, words: int = 5
    ) -> TokenSequence:
        generator = torch.Generator().manual_seed(seed)

        def latents(t: int) -> torch.Tensor:
            return torch.randn(t, height, width, CHANNELS, generator=generator)

        return build_sequence(
            [
                VisionElement("video1", latents(frames)),
                TextElement(torch.randn(words, 8, generator=generator)),
                VisionElement("image1", latents(1)),
                TextElement(torch.randn(2, 8, generator=generator)),
                VisionElement("video2", latents(frames), target=True),
            ],
            SequenceConfig(patch=2),
            spatial=8,
        )

    return make


@pytest.fixture(scope="session")
def editor() -> Editor:
    """Random weights; 48x64 pixels, windows of five frames, two steps without guidance."""
    config = ModelConfig(
        vae=part("model.encoders.transform.TransformCodec", keep=[[3, 1], [1, 0]]),
        dit=DiTConfig(
            text_dim=384, vision_dim=24, width=32, depth=1, heads=2, rope=RopeConfig(dims=(4, 4, 4, 4))
        ),
        media=MediaConfig(min_area=48 * 64, max_area=48 * 64, frames=5),
        inference=InferenceConfig(steps=2, guidance=1.0),
    )
    torch.manual_seed(0)
    dit = DiT(config.dit)
    with torch.no_grad():
        dit.out.weight.normal_(std=0.2)
    return Editor(dit.eval(), config)


@pytest.fixture
def power_cut() -> Callable[[FitConfig, Path, int], None]:
    """`power_cut(config, folder, step)` trains until the step is done and breaks off in the next one."""

    def run(config: FitConfig, folder: Path, step: int) -> None:
        steps = itertools.count(1)

        def interrupt(*_: Any) -> None:
            if next(steps) > step:
                raise RuntimeError("power cut")

        hook = register_optimizer_step_pre_hook(interrupt)
        try:
            with pytest.raises(RuntimeError, match="power cut"):
                fit(config, folder)
        finally:
            hook.remove()

    return run


@pytest.fixture(scope="session")
def shard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real shards: four pairs of a disc on a gradient, three for training, each with and without mask."""
    root = tmp_path_factory.mktemp("pairs")
    y, x = np.mgrid[:48, :64]
    plain = np.stack([x * 3, y * 4, 255 - x * 2], -1).astype(np.uint8)
    items = []
    for number in range(4):
        masks = np.stack([(x - 10 - 12 * number - t) ** 2 + (y - 20) ** 2 < 60 for t in range(9)])
        source = np.where(masks[..., None], np.uint8(230), plain[None])
        files = {n: root / f"{number}-{n}" for n in ("video1.mp4", "video2.mp4", "mask.mkv")}
        write_video(files["video1.mp4"], source, 10.0)
        write_video(files["video2.mp4"], np.repeat(plain[None], 9, 0), 10.0)
        write_mask(files["mask.mkv"], masks, 10.0)
        media = {
            path.name.split("-")[1].split(".")[0]: {
                "file": path.name.split("-")[1],
                "kind": "mask" if "mask" in path.name else "video",
                "frames": 9,
                "fps": 10.0,
                "height": 48,
                "width": 64,
            }
            for path in files.values()
        }
        for kind, text in (
            ("plain", "<video1> Remove the disc on the left. <video2>"),
            ("marked", "<video1> Remove the disc marked in <mask>. <video2>"),
        ):
            sample = {
                "schema": 1,
                "key": f"disc-{number}-{kind}",
                "split": "heldout" if number == 3 else "train",
                "task": "object_removal",
                "text": text,
                "targets": ["video2"],
                "media": media,
                "provenance": {"clip": {"sha256": "0" * 64, "name": "disc", "span": [0.0, 0.9]}},
            }
            items.append(
                (
                    Sample.model_validate_json(json.dumps(sample)),
                    {name.split(".")[0]: path for name, path in files.items()},
                )
            )
    write_shards(root / "shards", items)
    return root / "shards"


@pytest.fixture(scope="session")
def fit_config(shard_folder: Path) -> FitConfig:
    """A run of seconds: 48x64 pixels, nine frames, one block."""
    return FitConfig(
        data=DataConfig(
            shards=(str(shard_folder),), batch_size=3, token_budget=400, edit_weight=1.0, flip_prob=0.5
        ),
        model=ModelConfig(
            vae=part("model.encoders.transform.TransformCodec", keep=[[3, 1], [1, 0]]),
            sequence=SequenceConfig(patch=2),
            dit=DiTConfig(width=32, depth=1, heads=2, rope=RopeConfig(dims=(4, 4, 4, 4))),
            flow=FlowConfig(prediction="x1"),
            media=MediaConfig(min_area=48 * 64, max_area=48 * 64, frames=9),
            inference=InferenceConfig(steps=2, guidance=1.0),
            extras=ExtrasConfig(detail_transfer=True),
        ),
        optim=OptimConfig(lr=1e-3, final_lr=1e-4, warmup=2, ema=0.9),
        train=TrainConfig(steps=6, accelerator="cpu", save_every=2, validate_every=4, num_val_samples=1),
    )


@pytest.fixture
def with_train() -> Callable[..., FitConfig]:
    """Change training settings of a configuration."""

    def change(config: FitConfig, **changes: object) -> FitConfig:
        return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))

    return change


@pytest.fixture(scope="session")
def page_server(editor: Editor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """The page of `editor`, served; it takes videos of 30 frames, files of 5 MB and 20 MB in all."""
    folder = tmp_path_factory.mktemp("page")
    checkpoint = editor.save_pretrained(folder / "checkpoint")
    limits = ("--max_frames", "30", "--max_upload_mb", "5", "--max_stored_mb", "20")
    with running(checkpoint, folder, *limits) as server:
        yield server
