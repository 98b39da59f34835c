"""Off-screen OpenGL for MuJoCo: one context per process, into which every scene draws.

`mujoco.Renderer` opens a context per scene, and what the driver compiled is lost with it: for small pictures
that is most of the time.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from typing import Any

import numpy as np

from shards.errors import EditVerseError


class RenderError(EditVerseError, RuntimeError):
    """Why a scene cannot be rendered here, and what to install."""


@functools.cache
def _opengl() -> Any:
    """The process's context; RenderError without OpenGL."""
    if importlib.util.find_spec("triton"):
        # Mesa and triton each bring an LLVM: importing triton (which torchvision and transformers do) after
        # Mesa is loaded is a segmentation fault, the other way round works.
        importlib.import_module("triton")
    from mujoco import gl_context

    try:
        opened = gl_context.GLContext(64, 64)  # scenes have their own buffers
        opened.make_current()
    except Exception as error:  # an ImportError, AttributeError or GLError, by platform
        raise RenderError(
            f"MuJoCo cannot open OpenGL ({os.environ['MUJOCO_GL']}: {error}); install libegl1 and "
            "libgl1-mesa-dri, or libosmesa6 with MUJOCO_GL=osmesa"
        ) from error
    return opened


class OffscreenRenderer:
    """Where the states of one model are drawn, seen by its camera "view".

    Raises:
        RenderError: there is no OpenGL to render with.
    """

    def __init__(self, model: Any, height: int, width: int) -> None:
        import mujoco

        _opengl().make_current()
        self.model, self.size = model, (height, width)
        self.scene = mujoco.MjvScene(model, maxgeom=1000)
        self.camera: Any = mujoco.MjvCamera()
        self.camera.type, self.camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera("view").id
        self._context: Any = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR

    def close(self) -> None:
        """Free what lies in the graphics memory."""
        _opengl().make_current()
        self._context.free()

    def picture(self, data: Any, option: Any) -> np.ndarray:
        """uint8 RGB [H, W, 3]."""
        return self._draw(data, option)[0]

    def objects(self, data: Any, option: Any) -> np.ndarray:
        """Number of the geom that is seen, int [H, W], -1 where there is none; without shadows."""
        import mujoco

        colours, _ = self._draw(data, option, numbered=True)
        found = colours.astype(np.int64) @ (1, 1 << 8, 1 << 16)
        geoms = [g for g in self.scene.geoms[: self.scene.ngeom] if g.objtype == mujoco.mjtObj.mjOBJ_GEOM]
        table = np.full(int(found.max()) + 1, -1)
        for geom in geoms:
            if geom.segid + 1 < len(table):
                table[geom.segid + 1] = geom.objid
        table[0] = -1
        return table[found]

    def distances(self, data: Any, option: Any) -> np.ndarray:
        """Metres along the viewing axis, float32 [H, W]."""
        _, depth = self._draw(data, option, numbered=True)  # no shading, exact far away too
        extent, planes = self.model.stat.extent, self.model.vis.map
        near, far = planes.znear * extent, planes.zfar * extent
        # 0 is the far plane, 1 the near one, and between them it is linear in 1 / distance
        return (near * far / (near + depth.astype(np.float64) * (far - near))).astype(np.float32)

    def _draw(self, data: Any, option: Any, numbered: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Colours uint8 [H, W, 3], or the numbers of what is seen as colours, and depth float32 [H, W]."""
        import mujoco

        _opengl().make_current()
        height, width = self.size
        place = mujoco.MjrRect(0, 0, width, height)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self.model, data, option, None, self.camera, everything, self.scene)
        flags = mujoco.mjtRndFlag
        self.scene.flags[flags.mjRND_SEGMENT] = self.scene.flags[flags.mjRND_IDCOLOR] = numbered
        self.scene.flags[flags.mjRND_SHADOW] = not numbered
        # another scene of this process may have drawn since
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        mujoco.mjr_render(place, self.scene, self._context)
        colours, depth = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.float32)
        mujoco.mjr_readPixels(colours, depth, place, self._context)
        return np.ascontiguousarray(colours[::-1]), np.ascontiguousarray(depth[::-1])
