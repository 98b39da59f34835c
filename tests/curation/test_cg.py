"""Rendered scenes against their own truth: absent renders, masks, cameras, depth, names."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.cg import words
from curation.cg.camera import MOVEMENTS, moved, orbit_pose, trajectory
from curation.cg.render import Renderer
from curation.cg.scene import Scene, SceneObject, SceneSettings, scene_of
from curation.core.cache import Workspace
from curation.core.task import MediaWriter
from curation.ops.control_signals import depth_video
from curation.tasks.cg_camera import CgCamera
from curation.tasks.cg_removal import CgRemoval
from curation.tasks.cg_replacement import CgReplacement, recoloured

ROOT = Path(__file__).parents[2]
SMALL = SceneSettings(height=96, width=128, frames=9)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_seed_is_a_scene_and_names_fit_one_object(seed: int) -> None:
    scene = scene_of(seed, SMALL)
    assert scene == scene_of(seed, SMALL)
    pose = orbit_pose(scene.azimuth, scene.elevation, scene.distance)
    positions = np.array([thing.position for thing in scene.things])
    seen: dict[str, int] = {}
    for number in range(len(scene.things)):
        for name in words.names(scene, number, positions, pose):
            assert seen.setdefault(name, number) == number
            plain = name.split(" to the ")[0].split(" in front")[0].split(" behind")[0]
            assert plain.split()[-1] == scene.things[number].shape
        coloured = words.names(scene, number, positions, pose, shapes_alone=False)
        assert all(scene.things[number].colour in name.split() for name in coloured)
        assert words.names(scene, number, positions, pose, relations=False, shapes_alone=False)
    assert words.caption(scene).count(" a ") >= len(scene.things) - 1


@pytest.mark.parametrize("azimuth", [90.0, 80.0])
@pytest.mark.parametrize(
    ("sides", "places"),
    [
        (("to the left of", "to the right of"), ((-1.0, 0.0), (1.0, 0.0))),
        (("in front of", "behind"), ((0.0, -0.9), (0.0, 0.9))),
    ],
)
def test_a_relation_is_that_of_the_picture(
    sides: tuple[str, str], places: tuple[tuple[float, float], tuple[float, float]], azimuth: float
) -> None:
    """Two balls on either side of a cube: what is left is left in the picture, what is in front is lower."""
    cube = SceneObject("cube", "cube", "large", "blue", "matte", "rests", (0, 0, 0.3), (0, 0, 0), (0, 0, 0))
    balls = [
        SceneObject(
            f"ball{n}", "ball", "small", "red", "matte", "rests", (*place, 0.16), (0, 0, 0), (0, 0, 0)
        )
        for n, place in enumerate(places)
    ]
    scene = Scene(0, SMALL, (cube, *balls), "grey", "pale", ((0.5, -1.0, 3.0),), 0.8, azimuth, -20.0, 4.0)
    pose, positions = orbit_pose(azimuth, -20.0, 4.0), np.array([thing.position for thing in scene.things])
    pixels = pose.project(positions, SMALL.height, SMALL.width)  # x, y from the upper left corner
    axis, sign = (0, 1) if "left" in sides[0] else (1, -1)
    assert sign * pixels[1, axis] < sign * pixels[0, axis] < sign * pixels[2, axis]
    for number, side in enumerate(sides, 1):
        assert words.names(scene, number, positions, pose) == [
            f"ball {side} the cube",
            f"red ball {side} the cube",
        ]


def test_the_last_scenes_are_held_out(tmp_path: Path) -> None:
    task = CgRemoval(SMALL, scenes=5, first=10, heldout_fraction=0.4)
    splits = [task.units(source, Workspace(tmp_path))[0].split for source in task.find("").files]
    assert splits == ["train"] * 3 + ["heldout"] * 2


def test_removal_is_the_render_without_the_object(tmp_path: Path) -> None:
    task = CgRemoval(SMALL, scenes=2)
    accepted = 0
    for source in task.find("").files:
        clip = task.units(source, Workspace(tmp_path))[0]
        scene = task.scene_of(source)
        poses = trajectory(orbit_pose(scene.azimuth, scene.elevation, scene.distance), None, clip.frames)
        for candidate in task.process(clip, Workspace(tmp_path)):
            if candidate.reason:
                continue
            accepted += 1
            number, again = candidate.about["object"], tmp_path / f"again-{accepted}"
            again.mkdir()
            with Renderer(scene) as renderer:
                source_frames = renderer.frames(poses)
                target = renderer.frames(poses, (scene.things[number].name,))
                masks = renderer.masks(poses)
            writer = MediaWriter(again, clip.fps)
            writer.video("target", target)
            writer.mask("mask", masks[number])
            for name in ("target.mp4", "mask.mkv"):
                assert (again / name).read_bytes() == (candidate.folder / name).read_bytes()
            changed = (source_frames != target).any(-1)
            assert changed[masks[number]].mean() > 0.95
            assert (changed & ~masks[number]).any()  # its shadow went as well
            texts = [spec.text for spec in task.samples(clip, candidate, 0)]
            assert len(texts) == 4
            assert any(f"the {name}" in texts[0] for name in candidate.about["names"])
    assert accepted >= 2
    space = Workspace(tmp_path)
    task.process(clip, space)
    assert all(work.computed == 0 for work in space.work.values())


AFTERWARDS = """
from curation.cg.render import Renderer
from curation.cg.scene import SceneSettings, scene_of
from curation.cg.camera import trajectory, orbit_pose
scene = scene_of(0, SceneSettings(height=48, width=64, frames=1))
with Renderer(scene) as renderer:
    renderer.frames(trajectory(orbit_pose(scene.azimuth, scene.elevation, scene.distance), None, 1))
import triton
"""


def test_a_process_that_has_rendered_can_import_a_compiler() -> None:
    """As a stage with a network does; Mesa's LLVM and triton's end the process in the wrong order."""
    subprocess.run([sys.executable, "-c", AFTERWARDS], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize("movement", MOVEMENTS)
def test_pictures_follow_the_camera_s_path(movement: str, tmp_path: Path) -> None:
    ball = SceneObject(
        "thing0", "ball", "large", "red", "matte", "rests", (0.2, -0.1, 0.31), (0, 0, 0), (0, 0, 0)
    )
    scene = Scene(0, SMALL, (ball,), "grey", "pale", ((0.5, -1.0, 3.0),), 0.8, 90.0, -20.0, 4.0)
    poses = trajectory(orbit_pose(90.0, -20.0, 4.0), movement, SMALL.frames)
    with Renderer(scene) as renderer:
        masks = renderer.masks(poses)[0]
        still = renderer.frames(trajectory(poses[0], None, SMALL.frames))
        moving = renderer.frames(poses)
        centres = renderer.motion.positions[:, 0]
    assert np.array_equal(still[0], moving[0])
    assert not np.array_equal(still[-1], moving[-1])
    for t, pose in enumerate(poses):
        assert np.allclose(pose.rotation.T @ pose.rotation, np.eye(3), atol=1e-9)
        where = pose.project(centres[t : t + 1], SMALL.height, SMALL.width)[0]
        rows, columns = np.nonzero(masks[t])
        middle = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
        assert np.hypot(*(where - middle)) < 2
    kind, _, way = movement.partition(" ")
    x0, y0 = poses[0].project(centres[:1], SMALL.height, SMALL.width)[0]
    x1, y1 = poses[-1].project(centres[:1], SMALL.height, SMALL.width)[0]
    if kind == "Pan":  # what is seen goes the other way
        assert (x1 < x0) == (way == "Right")
    if kind == "Tilt":
        assert (y1 > y0) == (way == "Up")
    if kind == "Zoom":
        assert (masks[-1].sum() > masks[0].sum()) == (way == "In")
    if kind == "Arc":
        to_the_right = (poses[-1].position - poses[0].position) @ poses[0].rotation[:, 0]
        assert (to_the_right > 0) == (way == "Right")
    with pytest.raises(ValueError, match="Barrel Roll"):
        trajectory(poses[0], "Barrel Roll", 3)
    assert moved(poses[0], movement, 0.0).fovy == poses[0].fovy


def test_a_camera_pair_tells_its_poses(tmp_path: Path) -> None:
    task = CgCamera(SMALL, scenes=1, first=7)
    clip = task.units(task.find("").files[0], Workspace(tmp_path))[0]
    candidate = task.process(clip, Workspace(tmp_path))[0]
    scene = task.scene_of(clip.source)
    poses = trajectory(
        orbit_pose(scene.azimuth, scene.elevation, scene.distance), candidate.about["movement"], clip.frames
    )
    told = [position for position, _, _ in candidate.about["poses"]]
    assert np.allclose(told, [p.position for p in poses], atol=1e-4)
    assert candidate.about["movement"] == MOVEMENTS[7]


def test_depth_is_exact_and_has_one_scale() -> None:
    scene = scene_of(3, SMALL)
    poses = trajectory(orbit_pose(scene.azimuth, scene.elevation, scene.distance), None, SMALL.frames)
    with Renderer(scene) as renderer:
        depth, masks = renderer.depth(poses), renderer.masks(poses)
    still = ~masks.any((0, 1))  # floor in every frame
    assert np.ptp(depth[:, still], axis=0).max() < 1e-4
    drawn = depth_video(depth)
    assert np.ptp(drawn[:, still].astype(int), axis=0).max() == 0  # no frame has its own scale
    a, b = (
        np.unravel_index(depth[0].argmin(), depth[0].shape),
        np.unravel_index(depth[0].argmax(), depth[0].shape),
    )
    assert drawn[0][a].min() > drawn[0][b].max()  # near is bright
    # the floor under the middle of the picture, by hand
    rows = np.arange(SMALL.height // 2 + 20, SMALL.height)
    pose = poses[0]
    focal = 0.5 * SMALL.height / np.tan(np.radians(pose.fovy) / 2)
    for row in rows[still[rows, SMALL.width // 2]][:5]:
        ray = pose.rotation @ np.array([0.5 / focal, -(row + 0.5 - SMALL.height / 2) / focal, -1.0])
        assert depth[0, row, SMALL.width // 2] == pytest.approx(-pose.position[2] / ray[2], rel=0.01)


def test_a_replacement_changes_one_object_s_colour_alone(tmp_path: Path) -> None:
    task = CgReplacement(SMALL, scenes=3)
    accepted = 0
    for source in task.find("").files:
        clip = task.units(source, Workspace(tmp_path))[0]
        scene = task.scene_of(source)
        for number, thing in enumerate(scene.things):
            other = recoloured(scene, number)
            assert other.things[number] == replace(thing, colour=other.things[number].colour) != thing
            assert len({(t.colour, t.shape, t.size) for t in other.things}) == len(other.things)
        poses = trajectory(orbit_pose(scene.azimuth, scene.elevation, scene.distance), None, clip.frames)
        with Renderer(scene) as one:
            states, frames, masks = one.motion.states, one.frames(poses), one.masks(poses)
        for candidate in task.process(clip, Workspace(tmp_path)):
            if candidate.reason:
                continue
            accepted += 1
            with Renderer(recoloured(scene, candidate.about["object"])) as two:
                assert np.array_equal(states, two.motion.states)
                apart = (frames != two.frames(poses)).any(-1)
            mask, matte = masks[candidate.about["object"]], masks.any(0)
            # mirrored neighbours and floors reflect the colour; edges are blended
            assert apart[mask].mean() > 0.9
            assert apart[~matte].mean() < 0.05
            texts = [spec.text for spec in task.samples(clip, candidate, 0)]
            assert all(
                recoloured(scene, candidate.about["object"]).things[candidate.about["object"]].colour in text
                for text in texts
            )
    assert accepted


def test_reserved_looks_are_seen_in_held_out_scenes_alone(tmp_path: Path) -> None:
    reserved = tuple(f"{colour} {shape}" for colour in ("red", "green") for shape in ("ball", "cube", "egg"))
    task = CgRemoval(SMALL, scenes=40, heldout_fraction=0.5, reserved=reserved)
    seen: dict[str, set[str]] = {"train": set(), "heldout": set()}
    for source in task.find("").files:
        clip, scene = task.units(source, Workspace(tmp_path))[0], task.scene_of(source)
        seen[clip.split] |= {f"{t.colour} {t.shape}" for t in scene.things}
        if clip.split == "train":
            changed = [recoloured(scene, number).things[number] for number in range(len(scene.things))]
            seen["train"] |= {f"{t.colour} {t.shape}" for t in changed}
    assert not seen["train"] & set(reserved)
    assert seen["heldout"] & set(reserved)
