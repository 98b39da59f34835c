"""Camera movements cut out of a larger frame: a still view, and one that pans, tilts or zooms.

Exact for these six, since a camera that only turns or zooms sees the same picture cut otherwise (to the
accuracy of small angles). Movements with parallax need a scene (`cg_camera`) or a generator (ReCamMaster).
"""

from __future__ import annotations

import cv2
import numpy as np

from curation.vlm.interface import Backend

# movement -> (right, down) of the view's middle at the end, as parts of the room there is, and its size
MOVEMENTS = {
    "Pan Left": (-1.0, 0.0, 1.0),
    "Pan Right": (1.0, 0.0, 1.0),
    "Tilt Up": (0.0, -1.0, 1.0),
    "Tilt Down": (0.0, 1.0, 1.0),
    "Zoom In": (0.0, 0.0, 0.65),
    "Zoom Out": (0.0, 0.0, 1.4),
}


class VirtualCamera:
    """The camera mover; `view` is the part of the frame's sides that the still view takes."""

    license = "Apache-2.0 (OpenCV)"

    def __init__(self, view: float = 0.66) -> None:
        self.view = view

    def describe(self) -> Backend:
        """The view's size."""
        return Backend("opencv", "virtual-camera", cv2.__version__, {"view": self.view})

    def movements(self) -> tuple[str, ...]:
        """Those without parallax."""
        return tuple(MOVEMENTS)

    def move(
        self, frames: np.ndarray, movement: str, fps: float, caption: str, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the still camera and the moving one see of frames [T, H, W, 3]."""
        return self.views(frames, None), self.views(frames, movement)

    def views(self, frames: np.ndarray, movement: str | None) -> np.ndarray:
        """What the still camera (None) or the moving one sees of frames [T, H, W, 3]; even sides."""
        height, width = frames.shape[1:3]
        size = [2 * round(side * self.view / 2) for side in (width, height)]
        right, down, grown = MOVEMENTS[movement] if movement else (0.0, 0.0, 1.0)
        room = (width - size[0]) / 2, (height - size[1]) / 2
        seen = []
        for t, frame in enumerate(frames):
            part = t / max(1, len(frames) - 1)
            scale = grown**part
            middle = width / 2 + part * right * room[0], height / 2 + part * down * room[1]
            # from a pixel of the view to the frame's; centres of pixels at whole numbers
            into = np.array(
                [
                    [scale, 0, middle[0] - 0.5 - scale * (size[0] - 1) / 2],
                    [0, scale, middle[1] - 0.5 - scale * (size[1] - 1) / 2],
                ]
            )
            how = (cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP
            seen.append(cv2.warpAffine(frame, into, size, flags=how, borderMode=cv2.BORDER_REPLICATE))
        return np.stack(seen)
