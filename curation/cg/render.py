"""Renders of a scene by MuJoCo: pictures, depth and masks, exact and repeatable, any object left out.

Needs an off-screen OpenGL: EGL (Debian: libegl1 libgl1-mesa-dri) unless MUJOCO_GL says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from curation.cg.camera import Pose
from curation.cg.scene import Scene, mjcf
from curation.cg.screen import OffscreenRenderer, RenderError

__all__ = ["Motion", "RenderError", "Renderer"]

HIDDEN = 5  # geom group of objects that are left out


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
        self._screen = OffscreenRenderer(self.model, self.settings.height, self.settings.width)
        self.motion = self._simulate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.close()

    def _simulate(self) -> Motion:
        import mujoco

        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        for number, thing in enumerate(self.scene.things):
            data.qvel[6 * number : 6 * number + 6] = [*thing.velocity, *thing.spin]
        per_frame = round(1 / (self.settings.fps * model.opt.timestep))
        states, positions, touched = [], [], np.zeros(len(self.names), bool)
        place = np.full(model.ngeom, -1)
        place[self.geoms] = range(len(self.geoms))
        for _ in range(self.settings.frames):
            mujoco.mj_forward(model, data)
            states.append(data.qpos.copy())
            positions.append(data.geom_xpos[self.geoms].copy())
            for _ in range(per_frame):
                mujoco.mj_step(model, data)
                pairs = place[data.contact.geom]
                touched[pairs[(pairs >= 0).all(1)]] = True
        return Motion(np.stack(states), np.stack(positions), tuple(touched.tolist()))

    def frames(self, poses: list[Pose], hidden: tuple[str, ...] = ()) -> np.ndarray:
        """Pictures along a path, uint8 RGB [T, H, W, 3], without the objects `hidden`."""
        return np.stack([self._screen.picture(*self._at(t, p, hidden)) for t, p in enumerate(poses)])

    def depth(self, poses: list[Pose]) -> np.ndarray:
        """Distances along the viewing axis in metres, float32 [T, H, W]."""
        return np.stack([self._screen.distances(*self._at(t, p, ())) for t, p in enumerate(poses)])

    def masks(self, poses: list[Pose]) -> np.ndarray:
        """Where each object is seen, bool [objects, T, H, W]."""
        seen = np.stack([self._screen.objects(*self._at(t, p, ())) for t, p in enumerate(poses)])
        return np.stack([seen == geom for geom in self.geoms])

    def _at(self, t: int, pose: Pose, hidden: tuple[str, ...]) -> tuple[Any, Any]:
        """The scene as it is in frame `t`, and what is shown of it."""
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
        return data, option
