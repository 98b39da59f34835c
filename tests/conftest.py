"""Fixtures that every package's tests share: small moving pictures, real mp4s, real shards.

Processes share the cores in a test run, so torch and OpenCV get one thread and do not spin. MKL multiplies
in one order wherever matrices lie in memory. On processors without AVX-512 it does not otherwise, so that
weights read from a file, where they begin at any byte, would give other last bits than those made in memory.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdist.scheduler import LoadFileScheduling

from shards.media import write_mask, write_video
from shards.sample import ClipRef, Media, Provenance, Sample
from shards.writer import Item, write_shards


def moving_square(
    frames: int, height: int, width: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright square that crosses a smooth background: (with it, without it, its mask)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    phase, tilt = rng.uniform(0, 6, 3), rng.uniform(-1, 1, 3)
    plate = np.stack(
        [110 + 60 * np.sin(x / 9 + p) * np.cos(y / 7 + t) for p, t in zip(phase, tilt, strict=True)], -1
    )
    plate = np.repeat(plate.astype(np.uint8)[None], frames, axis=0)
    mask = np.zeros((frames, height, width), bool)
    side = max(4, height // 4)
    for t in range(frames):
        left = int((width - side) * t / max(1, frames - 1))
        top = int((height - side) * (0.5 + 0.4 * np.sin(t / 3 + phase[0])))
        mask[t, top : top + side, left : left + side] = True
    source = plate.copy()
    source[mask] = rng.integers(150, 256, 3)
    return source, plate, mask


@pytest.fixture(scope="session")
def square() -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return moving_square


@pytest.fixture(scope="session")
def make_items() -> Callable[..., list[Item]]:
    """`make_items(folder, pairs, frames, height, width, heldout)` -> removal samples of real mp4s."""

    def make(
        folder: Path, pairs: int = 4, frames: int = 9, height: int = 64, width: int = 96, heldout: int = 1
    ) -> list[Item]:
        items: list[Item] = []
        for number in range(pairs):
            files = {n: folder / f"{number}.{n}" for n in ("video1.mp4", "video2.mp4", "mask.mkv")}
            source, target, mask = moving_square(frames, height, width, seed=number)
            write_video(files["video1.mp4"], source, 10)
            write_video(files["video2.mp4"], target, 10)
            write_mask(files["mask.mkv"], mask, 10)
            size = {"frames": frames, "fps": 10.0, "height": height, "width": width}
            media = {
                "video1": Media(file="video1.mp4", kind="video", **size),
                "video2": Media(file="video2.mp4", kind="video", **size),
                "mask": Media(file="mask.mkv", kind="mask", **size),
            }
            with_mask = number % 2
            sample = Sample(
                key=f"object_removal-{number:08x}-0000",
                split="heldout" if number >= pairs - heldout else "train",
                task="object_removal",
                text="<video1> Remove the square"
                + (" marked in <mask>." if with_mask else ".")
                + " <video2>",
                targets=["video2"],
                media=media,
                provenance=Provenance(
                    clip=ClipRef(sha256=f"{number:064x}", name=f"square{number}.mp4", span=(0.0, frames / 10))
                ),
            )
            items.append((sample, {n.split(".")[0]: p for n, p in files.items()}))
        return items

    return make


@pytest.fixture
def shard_dir(tmp_path: Path, make_items: Callable[..., list[Item]]) -> Path:
    """A small shard folder: 4 removal samples of moving squares, 3 to train on and 1 held out."""
    (tmp_path / "media").mkdir()
    write_shards(tmp_path / "shards", make_items(tmp_path / "media"), max_samples=2)
    return tmp_path / "shards"


# Files whose tests share a fixture that takes long: one worker runs them all.
TOGETHER = {
    "tests/curation/test_run.py": "a run of Ray",
    "tests/curation/test_tasks.py": "a run of Ray",
    "tests/model/test_app.py": "a served page",
    "tests/model/test_page_security.py": "a served page",
}


# Files of minutes, which are begun first: what is begun last leaves the other workers idle at the end.
LONGEST = (
    "tests/curation/test_run.py",
    "tests/curation/test_tasks.py",
    "tests/model/test_parallel.py",
    "tests/test_terminal.py",
    "tests/model/test_training.py",
    "tests/benchmark/test_suites.py",
    "tests/model/test_encode.py",
    "tests/curation/test_annotators.py",
    "tests/model/test_editor.py",
    "tests/benchmark/test_run.py",
    "tests/test_untrusted.py",
    "tests/shards/test_malformed_media.py",
    "tests/model/test_app.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=rank)


class ByFile(LoadFileScheduling):
    """`--dist loadfile`, with the files of `TOGETHER` as one, in the order of collection."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False  # not by the number of tests, which says little about the time
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return TOGETHER.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """Not `--dist loadgroup`, which marks nothing under this version of pytest."""
    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None
