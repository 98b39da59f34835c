"""Renders of a scene by MuJoCo: pictures, depth and masks, exact and repeatable, any object left out.

Needs an off-screen OpenGL: EGL (Debian: libegl1 libgl1-mesa-dri) unless MUJOCO_GL says otherwise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from curation.cg.camera import Pose
from curation.cg.scene import Scene, mjcf

HIDDEN = 5  # geom group of objects that are left out


class RenderError(RuntimeError):
    """Why a scene cannot be rendered here, and what to install."""


@dataclass(frozen=True)
class Motion:
    """What the physics made of a scene.

    Attributes:
        states: float64 [frames, coordinates], of all objects.
        positions: float64 [frames, objects, 3], their centres.
        touched: per object whether it touched another one.
    """

    states: np.ndarray
    positions: np.ndarray
    touched: tuple[bool, ...]


class Renderer:
    """A scene that is simulated once and rendered from any camera. A context manager.

    Raises:
        RenderError: there is no OpenGL to render with.
    """

    def __init__(self, scene: Scene) -> None:
        import mujoco

        self.scene, self.settings = scene, scene.settings
        self.model = mujoco.MjModel.from_xml_string(mjcf(scene))
        self.data = mujoco.MjData(self.model)
        self.names = [thing.name for thing in scene.things]
        self.geoms = [self.model.geom(name).id for name in self.names]
        try:
            self._renderer = mujoco.Renderer(self.model, self.settings.height, self.settings.width)
        except Exception as error:  # an ImportError, AttributeError or GLError, by platform
            raise RenderError(
                f"MuJoCo cannot open OpenGL ({os.environ['MUJOCO_GL']}: {error}); install libegl1 and "
                "libgl1-mesa-dri, or libosmesa6 with MUJOCO_GL=osmesa"
            ) from error
        self.motion = self._simulate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._renderer.close()

    def _simulate(self) -> Motion:
        import mujoco

        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        for number, thing in enumerate(self.scene.things):
            data.qvel[6 * number : 6 * number + 6] = [*thing.velocity, *thing.spin]
        per_frame = round(1 / (self.settings.fps * model.opt.timestep))
        states, positions, touched = [], [], [False] * len(self.names)
        place = {geom: number for number, geom in enumerate(self.geoms)}
        for _ in range(self.settings.frames):
            mujoco.mj_forward(model, data)
            states.append(data.qpos.copy())
            positions.append(data.geom_xpos[self.geoms].copy())
            for _ in range(per_frame):
                mujoco.mj_step(model, data)
                for contact in data.contact[: data.ncon]:
                    pair = [place[int(geom)] for geom in contact.geom if int(geom) in place]
                    if len(pair) == 2:
                        touched[pair[0]] = touched[pair[1]] = True
        return Motion(np.stack(states), np.stack(positions), tuple(touched))

    def frames(self, poses: list[Pose], hidden: tuple[str, ...] = ()) -> np.ndarray:
        """Pictures along a path, uint8 RGB [T, H, W, 3], without the objects `hidden`."""
        return np.stack([self._render(t, pose, hidden) for t, pose in enumerate(poses)])

    def depth(self, poses: list[Pose]) -> np.ndarray:
        """Distances along the viewing axis in metres, float32 [T, H, W]."""
        self._renderer.enable_depth_rendering()
        try:
            return np.stack([self._render(t, pose, ()) for t, pose in enumerate(poses)]).astype(np.float32)
        finally:
            self._renderer.disable_depth_rendering()

    def masks(self, poses: list[Pose]) -> np.ndarray:
        """Where each object is seen, bool [objects, T, H, W]."""
        import mujoco

        flags = self._renderer.scene.flags
        lit = flags[mujoco.mjtRndFlag.mjRND_SHADOW]
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._renderer.enable_segmentation_rendering()
        try:
            seen = np.stack([self._render(t, pose, ()) for t, pose in enumerate(poses)])
        finally:
            self._renderer.disable_segmentation_rendering()
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = lit
        is_geom = seen[..., 1] == mujoco.mjtObj.mjOBJ_GEOM
        return np.stack([is_geom & (seen[..., 0] == geom) for geom in self.geoms])

    def _render(self, t: int, pose: Pose, hidden: tuple[str, ...]) -> np.ndarray:
        import mujoco

        model, data = self.model, self.data
        data.qpos[:] = self.motion.states[t]
        model.cam_pos[0], model.cam_fovy[0] = pose.position, pose.fovy
        mujoco.mju_mat2Quat(model.cam_quat[0], pose.rotation.flatten())
        mujoco.mj_forward(model, data)
        option: Any = mujoco.MjvOption()
        option.geomgroup[HIDDEN] = 0
        for name, geom in zip(self.names, self.geoms, strict=True):
            model.geom_group[geom] = HIDDEN if name in hidden else 0
        self._renderer.update_scene(data, camera="view", scene_option=option)
        return np.asarray(self._renderer.render()).copy()
