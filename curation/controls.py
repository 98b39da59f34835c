"""Control signals as videos: depth, edges and poses, and the samples that go to and from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from curation.clips import Clip
from curation.recipe import Draft, Shelf
from curation.sources import DerivedRecipe
from curation.workspace import Workspace


def depth_video(depth: np.ndarray) -> np.ndarray:
    """Depth as grey frames uint8 [T, H, W, 3]: inverse depth, near is bright, one scale for the whole clip.

    Args:
        depth: float [T, H, W], distances above 0. The nearest and farthest percent are clipped.
    """
    inverse = 1 / np.maximum(depth, 1e-6)
    low, high = np.percentile(inverse, (1, 99))
    grey = np.clip((inverse - low) / max(high - low, 1e-9), 0, 1)
    return np.repeat((grey * 255).round().astype(np.uint8)[..., None], 3, axis=-1)


# pairs of COCO's 17 points that are joined, and their colours (left blue, right orange, middle green)
LIMBS = (
    *(((a, b), (80, 160, 255)) for a, b in ((5, 7), (7, 9), (11, 13), (13, 15), (5, 11), (0, 1), (1, 3))),
    *(((a, b), (255, 150, 60)) for a, b in ((6, 8), (8, 10), (12, 14), (14, 16), (6, 12), (0, 2), (2, 4))),
    *(((a, b), (90, 220, 110)) for a, b in ((5, 6), (11, 12))),
)


def draw_poses(people: np.ndarray, size: tuple[int, ...], least: float = 0.3) -> np.ndarray:
    """Skeletons on black, uint8 [H, W, 3].

    Args:
        people: float [people, 17, 3] (x, y in pixels, visibility 0 to 1).
        size: (height, width).
        least: points less visible than this are left out.
    """
    drawn = np.zeros((*size, 3), np.uint8)
    for points in people:
        scale = float(np.ptp(points[:, 1]))
        thick = max(1, round(scale / 40))
        at = [(round(float(x)), round(float(y))) for x, y, _ in points]
        for (a, b), colour in LIMBS:
            if min(points[a, 2], points[b, 2]) >= least:
                cv2.line(drawn, at[a], at[b], colour, thick, cv2.LINE_AA)
        for place, (_, _, seen) in zip(at, points, strict=True):
            if seen >= least:
                cv2.circle(drawn, place, thick, (255, 255, 255), -1, cv2.LINE_AA)
    return drawn


def to_video(control: str, caption: str) -> Draft:
    """From the control ("control" on the shelf) to the video ("video") by its caption."""
    return Draft(
        "",
        f"{control}_to_video",
        f"<video1> {caption} <video2>",
        ("video2",),
        {"video1": "control", "video2": "video"},
        {"target": caption},
    )


def from_video(control: str, caption: str) -> Draft:
    """From the video to the control."""
    return Draft(
        "",
        f"video_to_{control}",
        f"<video1> Detect the {control}. <video2>",
        ("video2",),
        {"video1": "video", "video2": "control"},
        {"source": caption},
    )


class ToVideo(DerivedRecipe):
    """A task from a control to the video, of samples that another task made."""

    control: ClassVar[str]

    def __init__(self, parents: tuple[str, ...]) -> None:
        super().__init__(parents, (f"{self.control}_to_video",))

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per sample."""
        return {"candidates": [self.once(space, "take", clip, self._take)]}

    def _take(self, clip: Clip, folder: Path) -> dict[str, Any]:
        record = self.record(clip)
        media = record.sample.media
        shelf = Shelf(folder, media["video1"].fps or 1.0)
        shelf.copy("control", record.bytes("video1"), media["video1"])
        shelf.copy("video", record.bytes("video2"), media["video2"])
        return shelf.done(caption=record.sample.captions["target"])

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[Draft]:
        """One sample."""
        return [to_video(self.control, result["caption"])]


class BackToControl(ToVideo):
    """A task from the video to the control."""

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[Draft]:
        """One sample."""
        return [from_video(self.control, result["caption"])]
