"""The offline plates and masks against exact ground truth: rendered scenes, still and under a moving view.

A ball rolls through a scene; the same scene is rendered without it. Masks come from the difference to the
plate, as in the removal recipe; pixels behind the ball and its shadow come from the plate.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from curation.annotators.clean_plate import MedianPlate
from curation.annotators.homography import HomographyPlates
from curation.annotators.virtual_camera import VirtualCamera
from curation.cg.camera import orbit_pose, trajectory
from curation.cg.render import Renderer
from curation.cg.scene import SceneObject, SceneSettings, scene_of
from curation.core.interfaces import Plate
from curation.ops.masks import bounds, dilate
from curation.removal import background_subtraction
from curation.removal.background_subtraction import ForegroundSettings
from curation.removal.filters import GateSettings

SETTINGS = SceneSettings(height=240, width=320, frames=49)
SEEDS = (1, 2, 5)
VIEWS = (None, "Pan Right", "Zoom In")  # None: the camera stands still


@dataclass(frozen=True)
class Scores:
    """Mean IoU of the masks; PSNR in dB where the ball or its shadow was, of ours and of OpenCV's Telea.

    `frames` that were scored, `refused` that the recipe's gate on the plate keeps out.
    """

    iou: float
    psnr: float
    telea: float
    frames: int
    refused: int


@functools.lru_cache(maxsize=1)
def rolling(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames with the ball, frames without it, and its mask; uint8 [T, H, W, 3] and bool [T, H, W]."""
    made = scene_of(seed, SETTINGS)
    rest = tuple(
        replace(thing, motion="rests", velocity=(0.0, 0.0, 0.0), spin=(0.0, 0.0, 0.0))
        for thing in made.things
        if thing.position[1] > 0.35 and thing.position[2] < 0.5
    )
    speed = 0.62
    ball = SceneObject(
        *("ball", "ball", "small", "red", "matte", "rolls"),
        position=(-1.3, -0.25, 0.16),
        velocity=(speed, 0.0, 0.0),
        spin=(0.0, speed / 0.16, 0.0),
    )
    scene = replace(made, things=(ball, *rest), azimuth=90.0, floor="chequered")  # corners to register by
    poses = trajectory(orbit_pose(scene.azimuth, scene.elevation, scene.distance), None, SETTINGS.frames)
    with Renderer(scene) as renderer:
        return renderer.frames(poses), renderer.frames(poses, ("ball",)), renderer.masks(poses)[0]


def score(seed: int, view: str | None) -> Scores:
    """The offline removal's parts on one scene, seen by a still camera or through a view that moves in it."""
    frames, absent, masks = rolling(seed)
    if view:
        camera = VirtualCamera(0.6)
        frames, absent = camera.views(frames, view), camera.views(absent, view)
        white = np.repeat(masks[..., None].astype(np.uint8) * 255, 3, -1)
        masks = camera.views(white, view)[..., 0] > 127
    plates: Callable[[int], Plate | None]
    if view:
        plates = HomographyPlates().plates(frames)
    else:
        still = MedianPlate().plate(frames)
        plates = lambda _: still  # noqa: E731
    settings, agreement = ForegroundSettings(), []
    ours, telea = [], []
    refused = 0
    for t in range(6, len(frames) - 6, 4):
        plate, box = plates(t), bounds(masks[t])
        if plate is None or box is None or _cut(box, masks.shape[1:]):
            continue
        light = background_subtraction.light_change(frames[t], plate)
        seen = background_subtraction.subtract_background(
            frames[t], plate, light, background_subtraction.window_of(box, masks.shape[1:], 0.8), settings
        )
        body, _ = background_subtraction.body_of(seen, box, None, settings)
        found = np.zeros(masks.shape[1:], bool)
        found[seen.window] = body
        agreement.append((found & masks[t]).sum() / max(1, (found | masks[t]).sum()))
        if np.percentile(plate.agreement[masks[t]], 5) < GateSettings().agreement:
            refused += 1  # as the recipe does: too few frames show what is behind
            continue
        hole = dilate(np.abs(frames[t].astype(int) - absent[t]).max(-1) > 8, 2)
        filled = cv2.inpaint(frames[t], hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        relit = plate.image.copy()
        relit[seen.window] = seen.backdrop
        for into, picture in ((ours, relit), (telea, filled)):
            into.append(np.square(picture[hole].astype(float) - absent[t][hole]).mean())
    decibels = [float(10 * np.log10(255**2 / max(1e-3, np.mean(e)))) for e in (ours, telea)]
    return Scores(float(np.mean(agreement)), *decibels, len(ours), refused)


def _cut(box: np.ndarray, shape: tuple[int, ...]) -> bool:
    return bool(box[0] < 2 or box[1] < 2 or box[2] > shape[1] - 2 or box[3] > shape[0] - 2)
