"""The weights that come with this repository: they load by name, and edit scenes that nobody trained on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from curation.cg import words
from curation.cg.camera import orbit_pose, trajectory
from curation.cg.render import Renderer
from curation.cg.scene import SceneSettings, scene_of
from model import Editor
from model.inference.bundled import BUNDLED
from model.inference.pretrained import find_checkpoint
from shards.media import write_video

SCENES = range(2_000_000, 2_000_012)  # no recipe has these seeds


@pytest.fixture(scope="module")
def nano() -> Editor:
    return Editor.from_pretrained("nano")


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.mean((a[where].astype(float) - b[where]) ** 2))


def rendered(seed: int, frames: int) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """An object's name, a scene with it and without, uint8 [T, H, W, 3], and where it is, bool [T, H, W]."""
    size = SceneSettings(96, 128, frames, objects=(2, 4), distance=(2.6, 3.2), shadow=256, samples=0)
    scene = scene_of(seed, size)
    pose = orbit_pose(scene.azimuth, scene.elevation, scene.distance)
    poses = trajectory(pose, None, frames)
    with Renderer(scene) as renderer:
        masks = renderer.masks(poses)
        number = int(masks.mean((1, 2, 3)).argmax())
        where = renderer.motion.positions[0]
        name = words.names(scene, number, where, pose, relations=False, shapes_alone=False)[0]
        whole, without = renderer.frames(poses), renderer.frames(poses, (scene.things[number].name,))
    return name, whole, without, masks[number]


def test_the_card_is_there() -> None:
    folder = find_checkpoint("nano")
    assert folder == BUNDLED / "nano"
    card = (folder / "README.md").read_text()
    for part in ("Data", "Recipe", "Scores", "Limits", "seed", "commit"):
        assert part in card
    assert sum(p.stat().st_size for p in folder.iterdir()) < 60 * 2**20


def test_it_removes_what_the_words_name(nano: Editor) -> None:
    """On pictures: better than the source inside the object, and the rest stays."""
    inside, outside = [], []
    for seed in SCENES:
        name, whole, without, mask = rendered(seed, 1)
        edit = nano(f"<image1> Remove the {name}. <image2>", image1=whole[0])
        inside.append(psnr(edit.frames, without, mask) - psnr(whole, without, mask))
        outside.append(psnr(edit.frames, without, ~mask))
    assert np.mean(inside) > 6, inside
    assert np.mean(outside) > 26, outside


def test_it_edits_a_clip(nano: Editor, tmp_path: Path) -> None:
    """As long and as large as it was, by the paper's number of steps."""
    name, whole, without, mask = rendered(SCENES[0], 9)
    write_video(tmp_path / "in.mp4", whole, 10.0)
    edit = nano(f"<video1> Remove the {name}.", video1=str(tmp_path / "in.mp4"), steps=50)
    assert edit.frames.shape == whole.shape
    assert psnr(edit.frames, without, mask) > psnr(whole, without, mask)
