"""Names of colours, and wordings of removal and addition, drawn by key."""

from __future__ import annotations

import hashlib

import numpy as np

from curation.ops.appearance import Lab, median_lab

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


def colour_name(pixels: np.ndarray) -> str:
    """One everyday colour name for uint8 RGB pixels [N, 3]: the median in CIELAB decides."""
    return name_of_lab(median_lab(pixels))


def name_of_lab(lab: Lab) -> str:
    """The everyday name of a colour in CIELAB."""
    light, a, b = lab
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


def draw(options: tuple[str, ...] | list[str], key: str, salt: str) -> str:
    """One of the options, always the same for the same key."""
    number = int.from_bytes(hashlib.sha256(f"{salt}:{key}".encode()).digest()[:8], "big")
    return options[number % len(options)]
