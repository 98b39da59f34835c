"""What is seen of people in a window of frames: where each one is, and the colours of top and legs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Lab = tuple[float, float, float]  # CIELAB, lightness 0 to 100
TRUNK, LEGS = (0.18, 0.48), (0.62, 0.8)  # of the height of one who walks; below a coat, above a shadow
FEW = 12  # pixels: fewer say nothing of a colour


@dataclass(frozen=True)
class Person:
    """One person in a window.

    Attributes:
        frames: int [N], frames of the window in which the person is known to be; `boxes` float [N, 4] there.
        upper, lower: median colours of trunk and legs; None where they were not seen.
    """

    frames: np.ndarray
    boxes: np.ndarray
    upper: Lab | None = None
    lower: Lab | None = None

    @property
    def x(self) -> np.ndarray:
        """Middle of the boxes, pixels, float [N]."""
        middle: np.ndarray = (self.boxes[:, 0] + self.boxes[:, 2]) / 2
        return middle

    @property
    def feet(self) -> np.ndarray:
        """Lower edge of the boxes, pixels, float [N]: the larger, the nearer to a camera above the ground."""
        lowest: np.ndarray = self.boxes[:, 3]
        return lowest

    @property
    def height(self) -> float:
        """Mean height of the boxes, pixels."""
        return float((self.boxes[:, 3] - self.boxes[:, 1]).mean())

    @property
    def width(self) -> float:
        """Mean width of the boxes, pixels."""
        return float((self.boxes[:, 2] - self.boxes[:, 0]).mean())


def trunk_and_legs(frame: np.ndarray, body: np.ndarray) -> tuple[Lab | None, Lab | None]:
    """Median colours of the trunk and the legs of a body bool [h, w] in uint8 RGB [h, w, 3]."""
    rows = np.flatnonzero(body.any(1))
    if not len(rows):
        return None, None
    top, height = rows[0], rows[-1] + 1 - rows[0]
    inner = cv2.erode(body.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    colours: list[Lab | None] = []
    for a, b in (TRUNK, LEGS):
        band = slice(top + round(a * height), top + max(round(a * height) + 1, round(b * height)))
        pixels = frame[band][inner[band]]
        colours.append(median_lab(pixels) if len(pixels) >= FEW else None)
    return colours[0], colours[1]


def median_lab(pixels: np.ndarray) -> Lab:
    """Median in CIELAB of uint8 RGB pixels [N, 3], N at least 1."""
    lab = cv2.cvtColor(pixels.reshape(-1, 1, 3), cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    light, a, b = np.median(lab, axis=0).tolist()
    return light * 100 / 255, a - 128, b - 128


def middle_of(colours: list[Lab]) -> Lab | None:
    """Median of several colours, None of none."""
    if not colours:
        return None
    light, a, b = np.median(np.array(colours), axis=0).tolist()
    return light, a, b
