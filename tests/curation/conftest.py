"""Fixtures of the curation tests: real clips and models, fetched once into data/, and one finished run.

Files that a test needs are cut from the fetched clips while it runs; nothing is committed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from curation.sources.assets import CLIPS, MODELS, fetch
from shards.media import read_video, write_image, write_video
from tests import forked

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def clips_dir() -> Path:
    """data/clips with vtest.avi and bikes.mp4."""
    fetch(CLIPS, ROOT / "data" / "clips")
    return ROOT / "data" / "clips"


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """data/models with the offline models."""
    fetch(MODELS, ROOT / "data" / "models")
    return ROOT / "data" / "models"


@pytest.fixture(scope="session")
def street(clips_dir: Path) -> np.ndarray:
    """90 frames of people crossing, standing camera, uint8 [90, 360, 480, 3]."""
    return read_video(clips_dir / "vtest.avi", 690, 780, (360, 480))[0]


@pytest.fixture(scope="session")
def good_clips(street: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two short clips that give accepted pairs."""
    folder = tmp_path_factory.mktemp("good")
    write_video(folder / "a.mp4", street[:40], 10.0)
    write_video(folder / "b.mp4", street[45:85], 10.0)
    return folder


@pytest.fixture(scope="session")
def bad_files(street: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that are no usable clip, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad")
    write_video(folder / "whole.mp4", street[:40], 10.0)
    data = (folder / "whole.mp4").read_bytes()
    (folder / "whole.mp4").unlink()
    made = {
        n: folder / f"{n}.mp4"
        for n in ("empty", "truncated", "corrupted", "audio_only", "one_frame", "text", "png")
    }
    made["empty"].write_bytes(b"")
    made["truncated"].write_bytes(data[: len(data) // 2])
    spoilt = bytearray(data)
    middle = len(spoilt) // 2
    spoilt[middle : middle + 20000] = np.random.default_rng(0).bytes(20000)
    made["corrupted"].write_bytes(bytes(spoilt))
    with av.open(str(made["audio_only"]), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    write_video(made["one_frame"], street[:1], 10.0)
    made["text"].write_text("this is no video\n" * 50)
    write_image(folder / "still.png", street[0])
    (folder / "still.png").rename(made["png"])
    return made


@pytest.fixture(scope="session")
def cli(models_dir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m curation ...` from the repository root, as a person does."""

    def call(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return forked.run("curation", *arguments, env=environment(), timeout=900, **options)

    return call


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "curation", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def start(models_dir: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts `python -m curation ...` and returns at once."""

    def call(*arguments: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(*arguments),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    return call


@pytest.fixture(scope="session")
def mixed_clips(
    good_clips: Path, bad_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two good clips among seven bad files."""
    folder = tmp_path_factory.mktemp("mixed")
    for path in [*good_clips.iterdir(), *bad_files.values()]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="session")
def finished(
    cli: Callable[..., subprocess.CompletedProcess[str]],
    mixed_clips: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """(out, workspace, process) of one uninterrupted run over `mixed_clips`, by a pool of two processes."""
    base = tmp_path_factory.mktemp("finished")
    out, workspace = base / "out", base / "workspace"
    done = cli(
        *("run", "object_removal", "--clips", mixed_clips, "--out", out, "--workspace", workspace),
        *("--workers", 2, "--engine", "local"),
    )
    return out, workspace, done
