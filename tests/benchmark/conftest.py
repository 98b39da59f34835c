"""Fixtures of the benchmark's tests: shards with removal and addition, a tiny random editor, a finished run.

The session-wide ones are read only; a test that changes files copies them first.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.item import Geometry, Loaded, Reference
from model.config import InferenceConfig, MediaConfig, ModelConfig
from model.encoders.transform import TransformCodec
from model.extras.config import ExtrasConfig
from model.inference.editor import Editor
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.rope import RopeConfig
from shards.media import write_mask, write_video
from shards.sample import ClipRef, Media, Provenance, Sample
from shards.writer import Item, write_shards
from tests import forked

FRAMES, HEIGHT, WIDTH, FPS = 9, 64, 96, 10.0


@pytest.fixture(scope="session")
def pair_items(
    square: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> Callable[..., list[Item]]:
    """`pair_items(folder, pairs, heldout, clips)`: per pair removal and addition, each in both wordings."""

    def make(folder: Path, pairs: int = 4, heldout: int = 3, clips: int = 2) -> list[Item]:
        folder.mkdir(parents=True, exist_ok=True)
        items: list[Item] = []
        size = {"frames": FRAMES, "fps": FPS, "height": HEIGHT, "width": WIDTH}
        media = {
            "video1": Media(file="video1.mp4", kind="video", **size),
            "video2": Media(file="video2.mp4", kind="video", **size),
            "mask": Media(file="mask.mkv", kind="mask", **size),
        }
        for number in range(pairs):
            with_object, without, mask = square(FRAMES, HEIGHT, WIDTH, seed=number)
            files = {name: folder / f"{number}.{name}" for name in ("a.mp4", "b.mp4", "mask.mkv")}
            write_video(files["a.mp4"], with_object, FPS)
            write_video(files["b.mp4"], without, FPS)
            write_mask(files["mask.mkv"], mask, FPS)
            span = (number * FRAMES / FPS, (number + 1) * FRAMES / FPS)
            clip = ClipRef(sha256=f"{number % clips:064x}", name=f"clip{number % clips}.mp4", span=span)
            for task, words, ends in (
                ("object_removal", "Remove the square", ("a.mp4", "b.mp4")),
                ("object_addition", "Add a square", ("b.mp4", "a.mp4")),
            ):
                for wording, tail in enumerate((".", " marked in <mask>.")):
                    sample = Sample(
                        key=f"{task}-{number:08x}-{wording:04d}",
                        split="heldout" if number >= pairs - heldout else "train",
                        task=task,
                        text=f"<video1> {words}{tail} <video2>",
                        targets=["video2"],
                        media=media,
                        provenance=Provenance(clip=clip),
                    )
                    given = {"video1": files[ends[0]], "video2": files[ends[1]], "mask": files["mask.mkv"]}
                    items.append((sample, given))
        return items

    return make


@pytest.fixture(scope="session")
def pairs_dir(tmp_path_factory: pytest.TempPathFactory, pair_items: Callable[..., list[Item]]) -> Path:
    """A shard folder: one pair to train on, three held out, two source clips."""
    root = tmp_path_factory.mktemp("pairs")
    write_shards(root / "shards", pair_items(root / "media"))
    return root / "shards"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny editor with random weights, laid out as a run lays it: `checkpoint` and `curve.csv`."""
    import torch

    torch.manual_seed(0)
    codec = {"class_path": "model.encoders.transform.TransformCodec", "init_args": {"keep": [[6, 1], [2, 0]]}}
    dit = DiTConfig(
        text_dim=384,
        vision_dim=TransformCodec(keep=[[6, 1], [2, 0]]).channels * 4,
        width=48,
        depth=1,
        heads=2,
        rope=RopeConfig(dims=(4, 4, 8, 8)),
    )
    config = ModelConfig(
        vae=codec,
        dit=dit,
        media=MediaConfig(min_area=32 * 48, max_area=32 * 48, frames=FRAMES),
        inference=InferenceConfig(steps=1, guidance=1.0),
        extras=ExtrasConfig(detail_transfer=True),
    )
    folder = tmp_path_factory.mktemp("run")
    Editor(DiT(dit), config).save_pretrained(folder / "checkpoint")
    lines = ["step,samples,train_loss,val_loss"]
    lines += [f"{i},{8 * i},{1 / (i + 1) + 0.1},{'' if i % 10 else 0.5 + 1 / (i + 1)}" for i in range(100)]
    (folder / "curve.csv").write_text("\n".join(lines) + "\n")
    return folder / "checkpoint"


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`command("run", "--out", ...)`: the benchmark as a person starts it."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return forked.run("benchmark", *arguments, timeout=240)

    return call


@pytest.fixture(scope="session")
def scored(
    pairs_dir: Path,
    checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> Path:
    """The output folder of a finished run with a model."""
    out = tmp_path_factory.mktemp("bench") / "out"
    done = command("run", "--data", pairs_dir, "--checkpoint", checkpoint, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def reference(square: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Reference:
    """Source with a moving square, target without, at 48x64."""
    source, target, mask = square(6, 48, 64, seed=3)
    return Reference(Loaded(source, target, mask, FPS, {}), Geometry(6, 48, 64, FPS))
