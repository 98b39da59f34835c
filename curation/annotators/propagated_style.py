"""Style transfer as in the paper: the first frame is edited, and depth carries its style through the clip."""

from __future__ import annotations

import numpy as np

from curation.core.interfaces import DepthEstimator, ImageEditor, VideoGenerator
from curation.ops.control_signals import grey_video
from curation.vlm.interface import Annotator, Backend

STYLES = {
    "watercolor": "a watercolor painting with soft bleeding edges",
    "oil": "an oil painting with thick brush strokes",
    "pencil": "a pencil drawing",
    "anime": "an anime film",
    "pixel": "pixel art of an old video game",
    "clay": "a clay stop-motion film",
    "cyberpunk": "a cyberpunk scene in neon light",
    "ukiyo-e": "a Japanese woodblock print",
    "lego": "a scene built of plastic bricks",
    "noir": "a black-and-white film noir",
}


class PropagatedStyle:
    """The stylizer.

    Args:
        editor: of the first frame.
        generator: of the others, from the first frame and the depth of all.
        depth: of the source, on one scale for the clip.
        looks: name -> words that follow "turn it into"; `STYLES` when left out.
    """

    def __init__(
        self,
        editor: ImageEditor,
        generator: VideoGenerator,
        depth: DepthEstimator,
        looks: dict[str, str] | None = None,
    ) -> None:
        self.editor, self.generator, self.depth = editor, generator, depth
        self.looks = looks or STYLES

    @property
    def parts(self) -> dict[str, Annotator]:
        """The annotators that it is made of."""
        return {"editor": self.editor, "generator": self.generator, "depth": self.depth}

    def describe(self) -> Backend:
        """The three models."""
        return Backend.of_parts("first-frame-and-depth", self.parts)

    def styles(self) -> dict[str, str]:
        """Names, and each in words."""
        return self.looks

    def stylize(self, frames: np.ndarray, style: str) -> np.ndarray:
        """uint8 [T, H, W, 3] of frames [T, H, W, 3] in one of `styles`."""
        words = self.looks[style]
        control = grey_video(self.depth.inverse_depth(frames))
        control[0] = self.editor.edit(frames[0], f"Turn it into {words}. Keep the composition.")
        mask = np.ones(frames.shape[:3], bool)
        mask[0] = False
        return self.generator.generate(control, mask, f"The scene as {words}.")
