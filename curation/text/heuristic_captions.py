"""Captions without a language model: what can be measured of a clip, in plain words."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np

from curation.text.templates import colour_name
from curation.vlm.interface import Backend


def describe(frames: np.ndarray, people: int | None = None) -> str:
    """Brightness, main colours and movement of frames uint8 [T, H, W, 3], and whether there are people."""
    small = np.stack([cv2.resize(f, (32, 24), interpolation=cv2.INTER_AREA) for f in frames])
    tone, colours = _tone_and_colours(small)
    moving = float(np.abs(np.diff(small.astype(np.float32), axis=0)).mean()) if len(small) > 1 else 0.0
    pace = "hardly anything moves" if moving < 0.6 else "some things move" if moving < 3 else "much moves"
    if people is None:
        return f"A {tone} scene, mostly {colours}; {pace}."
    # The detector misses some: a number would often be false.
    who = ("nobody", "a person", "people")[people] if people < 3 else "several people"
    return f"A {tone} scene with {who}, mostly {colours}; {pace}."


def setting(frames: np.ndarray) -> str:
    """Brightness and main colours of frames uint8 [T, H, W, 3], as the beginning of a sentence."""
    small = np.stack([cv2.resize(f, (32, 24), interpolation=cv2.INTER_AREA) for f in frames[::4]])
    tone, colours = _tone_and_colours(small)
    return f"A {tone} scene, mostly {colours}"


def _tone_and_colours(small: np.ndarray) -> tuple[str, str]:
    light = float(small.mean())
    tone = "dark" if light < 70 else "bright" if light > 170 else "well-lit"
    named = Counter(colour_name(block.reshape(-1, 3)) for block in small[len(small) // 2].reshape(-1, 8, 3))
    shades = {"dark": "dark grey", "light": "light grey"}
    return tone, " and ".join(shades.get(name, name) for name, _ in named.most_common(2))


class HeuristicCaptioner:
    """The captioner without a model."""

    license = "this project"

    def describe(self) -> Backend:
        """Nothing to choose."""
        return Backend("measured", "caption", "2")

    def caption(self, frames: np.ndarray, people: int | None) -> str:
        """A caption of frames [T, H, W, 3]."""
        return describe(frames, people)
