"""Instruction texts: colours and places measured from the mask, several wordings drawn by key.

Nothing is said that was not measured: no garment, sex or age; "top" and "lower" are where the mask is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

REMOVE = (
    "Remove {what}.",
    "Erase {what} from the video.",
    "Take {what} out of the scene.",
    "Delete {what} and keep everything else as it is.",
    "Make {what} disappear.",
)
ADD = (
    "Add {what}.",
    "Insert {what} into the video.",
    "Put {what} into the scene.",
    "Let {what} appear and keep everything else as it is.",
)
REMOVE_MASKED = (
    "Remove the object marked in <mask>.",
    "Erase what <mask> marks.",
    "Use <mask> to remove {what}.",
    "Take {what}, marked in <mask>, out of the scene.",
)
ADD_MASKED = (
    "Add {what} where <mask> marks.",
    "Use <mask> to insert {what}.",
    "Put {what} into the region marked in <mask>.",
)


@dataclass(frozen=True)
class Appearance:
    """What was measured of one person: colours of the upper and lower part, place, direction of walking."""

    upper: str
    lower: str
    place: str
    motion: str

    def phrases(self) -> list[str]:
        """Descriptions without article, from short to long."""
        if self.upper == self.lower:
            short = long = f"person in {self.upper} clothes"
        else:
            short = f"person in a {self.upper} top"
            long = f"person in a {self.upper} top and {self.lower} bottoms"
        walk = f" walking to the {self.motion}" if self.motion else ""
        return [f"{short} {self.place}", f"{long}{walk} {self.place}"]


def colour_name(pixels: np.ndarray) -> str:
    """One everyday colour name for uint8 RGB pixels [N, 3]: the median in CIELAB decides."""
    lab = cv2.cvtColor(pixels.reshape(-1, 1, 3), cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    light, a, b = np.median(lab, axis=0) - np.array([0, 128, 128], np.float32)
    light *= 100 / 255
    chroma, hue = float(np.hypot(a, b)), float(np.degrees(np.arctan2(b, a)) % 360)
    if chroma < 11 or light < 14:
        return "dark" if light < 36 else "grey" if light < 66 else "light"
    shade = "dark " if light < 26 else ""
    for limit, name in (
        (42, "red"),
        (75, "orange"),
        (110, "yellow"),
        (190, "green"),
        (310, "blue"),
        (345, "purple"),
    ):
        if hue < limit:
            if name == "orange" and light < 52:
                return "brown"
            return shade + name
    return shade + ("pink" if light > 62 else "red")


def measure(frames: np.ndarray, masks: np.ndarray, boxes: np.ndarray) -> Appearance:
    """Measure a person from frames uint8 [T, H, W, 3], body masks bool [T, H, W] and boxes [T, 4]."""
    upper: list[np.ndarray] = []
    lower: list[np.ndarray] = []
    for t in range(0, len(frames), 4):
        rows = np.flatnonzero(masks[t].any(1))
        if not len(rows):
            continue
        top, height = rows[0], rows[-1] + 1 - rows[0]
        # 18-48 % of the height is the trunk, 55-88 % the legs, for somebody who stands or walks.
        for into, a, b in ((upper, 0.18, 0.48), (lower, 0.55, 0.88)):
            band = slice(top + round(a * height), top + max(round(a * height) + 1, round(b * height)))
            inner = cv2.erode(masks[t].astype(np.uint8), np.ones((3, 3), np.uint8))[band] > 0
            into.append(frames[t][band][inner])
    width = frames.shape[2]
    names = [colour_name(np.concatenate(p)) if sum(map(len, p)) else "dark" for p in (upper, lower)]
    middle = (boxes[:, 0] + boxes[:, 2]) / 2
    x = float(middle.mean()) / width
    place = "on the left" if x < 0.38 else "on the right" if x > 0.62 else "in the middle"
    walked = float(middle[-1] - middle[0]) / max(1.0, float((boxes[:, 3] - boxes[:, 1]).mean()))
    motion = "left" if walked < -0.4 else "right" if walked > 0.4 else ""
    return Appearance(names[0], names[1], place, motion)


def draw(options: tuple[str, ...] | list[str], key: str, salt: str) -> str:
    """One of the options, always the same for the same key."""
    number = int.from_bytes(hashlib.sha256(f"{salt}:{key}".encode()).digest()[:8], "big")
    return options[number % len(options)]


def instruction(key: str, appearance: Appearance, direction: str, masked: bool) -> str:
    """The instruction, without media tags other than <mask>. `direction` is "removal" or "addition"."""
    forms = {
        ("removal", False): REMOVE,
        ("removal", True): REMOVE_MASKED,
        ("addition", False): ADD,
        ("addition", True): ADD_MASKED,
    }[direction, masked]
    article = "the" if direction == "removal" else "a"
    what = f"{article} {draw(appearance.phrases(), key, 'phrase')}"
    return draw(forms, key, "form").format(what=what)


def captions(appearance: Appearance) -> tuple[str, str]:
    """Captions of the video with the person and of the one without."""
    what = appearance.phrases()[-1]
    return f"A scene with a {what}.", f"The same scene without the {what}."
