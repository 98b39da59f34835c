"""Camera change on real clips: a still view cut out of the frame, and one that pans, tilts or zooms in it.

Exact for these six movements, since a camera that only turns or zooms sees the same picture cut otherwise (to
the accuracy of small angles). Movements with parallax come from `cg_camera`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation import describing
from curation.clips import Clip, Cut, load_frames
from curation.describing import describe
from curation.naming import draw
from curation.recipe import Draft, Recipe, Shelf, key_of
from curation.workspace import Workspace

# movement -> (right, down) of the view's middle at the end, as parts of the room there is, and its size
MOVEMENTS = {
    "Pan Left": (-1.0, 0.0, 1.0),
    "Pan Right": (1.0, 0.0, 1.0),
    "Tilt Up": (0.0, -1.0, 1.0),
    "Tilt Down": (0.0, 1.0, 1.0),
    "Zoom In": (0.0, 0.0, 0.65),
    "Zoom Out": (0.0, 0.0, 1.4),
}
WORDINGS = ("Change the camera to {movement}.", "Move the camera: {lower}.", "Make it a {lower} shot.")


class CameraChange(Recipe):
    """The task; `view` is the part of the frame's sides that the still view takes."""

    name = "camera_change"
    code = (describing,)

    def __init__(self, cut: Cut | None = None, length: int = 33, most: int = 3, view: float = 0.66) -> None:
        super().__init__(cut)
        self.length, self.most, self.view = length, most, view

    def settings(self) -> dict[str, Any]:
        """The view's size."""
        return {"view": self.view}

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per window; the movements take turns."""
        names, candidates = list(MOVEMENTS), []
        for number, span in enumerate(self.windows(clip, self.length, self.most)):
            movement = names[(int(clip.key[:8], 16) + number) % len(names)]
            candidates.append(self.once(space, "move", clip, self._move, span=span, movement=movement))
        return {"candidates": candidates}

    def _move(self, clip: Clip, folder: Path, span: tuple[int, int], movement: str) -> dict[str, Any]:
        frames = load_frames(clip)[slice(*span)]
        shelf = Shelf(folder, clip.fps)
        shelf.video("source", self.views(frames, None))
        shelf.video("target", self.views(frames, movement))
        caption = describe(frames)
        return shelf.done(first=span[0], stop=span[1], movement=movement, caption=caption)

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

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[Draft]:
        """One sample."""
        key, movement = key_of(clip, self.name, number, ""), result["movement"]
        text = draw(WORDINGS, key, "form").format(movement=movement, lower=movement.lower())
        told = {"source": result["caption"], "target": f"{result['caption']} The camera: {movement.lower()}."}
        media = {"video1": "source", "video2": "target"}
        return [Draft("", self.name, f"<video1> {text} <video2>", ("video2",), media, told)]
