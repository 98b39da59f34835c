"""Whether an edit looks like the target where it should and leaves the rest alone: 1 or 0, its mean is the
share of hits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.core.item import Reference, Unscored
from benchmark.metrics.base import region


@dataclass(frozen=True)
class EditHit:
    """1 when the result is near the target inside the mask, has its texture there, and spills little outside.

    Source, target and result are blurred first (Gaussian, `blur` pixels), so that compression does not count;
    colours are compared in CIE Lab, by Euclidean distance (CIE76: 2 is just seen, 20 is another colour).
    Near: the distances of result and target inside the mask sum to at most `error` of those of source and
    target (0 is the target, 1 the copied source, half-way 0.5). Texture: the contrast-structure term of SSIM
    over the mask of a frame, (2 cov + c) / (var + var + c) on RGB of 0 to 255 with c = `texture` squared, is
    at least `structure` on average over the mask's pixels; a fill of one colour has 0 against a target whose
    contrast is far above `texture`, and 1 against a plain target. Spill: by how much more than the target's
    each colour outside the mask (`Reference.outside`, so not at its edge) moves from the source, less
    `tolerance`, sums to under `spill` of the distances of source and target inside. A removal from among
    several objects hits when the named one went. Unscored where the target changes no pixel of the mask by
    `levels` in a channel.
    """

    error: float = 0.3
    structure: float = 0.7
    texture: float = 15.0
    spill: float = 0.25
    tolerance: float = 10.0
    blur: float = 1.0
    levels: int = 24
    name: str = "edit_hit"
    label: str = "Edit hit"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    version: int = 3

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        inside, outside = region(reference, "inside"), region(reference, "outside")
        for chosen in (inside, outside):
            if isinstance(chosen, Unscored):
                return chosen
        assert not isinstance(inside, Unscored)
        assert not isinstance(outside, Unscored)
        levels = np.abs(reference.target.astype(np.int16) - reference.source).max(-1)
        if not (levels[inside] >= self.levels).any():
            return Unscored("hardly anything is to change")
        asked = left = spilt = alike = 0.0  # sums over the clip: each frame counts by its pixels
        frames = zip(reference.source, reference.target, result, inside, outside, strict=True)
        for source, target, edit, within, beyond in frames:
            source, target, edit = (self._blurred(frame) for frame in (source, target, edit))
            of_target = distance(source, target)
            of_edit = distance(source, edit)
            asked += float(of_target[within].sum())
            left += float(distance(edit, target)[within].sum())
            spilt += float(np.maximum(of_edit - of_target - self.tolerance, 0)[beyond].sum())
            if within.any():
                alike += within.sum() * likeness(target[within], edit[within], self.texture**2)
        near = left <= self.error * asked and alike >= self.structure * inside.sum()
        return float(near and spilt < self.spill * asked)

    def _blurred(self, frame: np.ndarray) -> np.ndarray:
        """float32 RGB [H, W, 3] of 0 to 255."""
        import cv2

        soft: np.ndarray = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), self.blur)
        return soft


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CIE76 colour difference of every pixel, [H, W], of float32 sRGB [H, W, 3] of 0 to 255."""
    import cv2

    first, second = (cv2.cvtColor(frame / 255.0, cv2.COLOR_RGB2Lab) for frame in (a, b))
    apart: np.ndarray = np.linalg.norm(first - second, axis=-1)
    return apart


def likeness(a: np.ndarray, b: np.ndarray, floor: float) -> float:
    """SSIM's contrast-structure term over all pixels of a region, float [N, 3]; `floor` is its constant."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float((2 * (a * b).mean() + floor) / ((a * a).mean() + (b * b).mean() + floor))
