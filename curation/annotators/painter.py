"""Styles by OpenCV's filters, held steady in time: frames are blended with the last one, carried by flow."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from curation.vlm.interface import Backend

STYLES = {
    "watercolor": "a watercolor painting",
    "pencil": "a pencil drawing",
    "cartoon": "a cartoon with dark outlines",
    "poster": "a poster of a few flat colours",
    "sepia": "an old sepia film",
    "night": "a night scene under blue light",
}


class FilterStylizer:
    """Args: keep: share of the carried last frame where the flow is sure."""

    license = "Apache-2.0 (OpenCV)"

    def __init__(self, keep: float = 0.65) -> None:
        self.keep = keep

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        return Backend("filters-opencv", revision=cv2.__version__, settings={"keep": self.keep})

    def styles(self) -> dict[str, str]:
        """Names of the styles, and each in words that follow "turn it into"."""
        return STYLES

    def stylize(self, frames: np.ndarray, style: str) -> np.ndarray:
        """uint8 [T, H, W, 3] of frames [T, H, W, 3] in one of `styles`."""
        paint = _FILTERS[style]
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        greys = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
        y, x = np.mgrid[: frames.shape[1], : frames.shape[2]].astype(np.float32)
        out = [paint(frames[0]).astype(np.float32)]
        for t in range(1, len(frames)):
            back = flow.calc(greys[t], greys[t - 1], None)  # type: ignore[call-overload]  # None is its default
            places = x + back[..., 0], y + back[..., 1]
            seen = cv2.remap(frames[t - 1], *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            carried = cv2.remap(out[-1], *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            # sure where the carried source looks like the source
            apart = np.abs(seen.astype(np.float32) - frames[t]).max(-1, keepdims=True)
            weight = self.keep * np.clip(1 - apart / 24, 0, 1)
            out.append(weight * carried + (1 - weight) * paint(frames[t]))
        return np.stack(out).round().clip(0, 255).astype(np.uint8)


def _watercolor(frame: np.ndarray) -> np.ndarray:
    """Flat washes on white paper, darker where they end."""
    soft = cv2.edgePreservingFilter(frame, flags=cv2.RECURS_FILTER, sigma_s=40, sigma_r=0.35)
    hls = cv2.cvtColor(soft, cv2.COLOR_RGB2HLS).astype(np.float32)
    rim = cv2.absdiff(soft, cv2.GaussianBlur(soft, (0, 0), 2)).max(-1)
    hls[..., 1] = np.clip(255 - (255 - hls[..., 1]) * 0.72 - 1.2 * rim, 0, 255)
    hls[..., 2] = np.clip(hls[..., 2] * 1.15, 0, 255)
    return cv2.cvtColor(hls.astype(np.uint8), cv2.COLOR_HLS2RGB)


def _pencil(frame: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(255 - grey, (0, 0), 6)
    sketch = cv2.divide(grey, 255 - blurred, scale=250)
    return np.repeat(sketch[..., None], 3, axis=-1)


def _cartoon(frame: np.ndarray) -> np.ndarray:
    flat = cv2.bilateralFilter(frame, 9, 60, 7)
    grey = cv2.medianBlur(cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY), 5)
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 9, 6)
    lines = cv2.GaussianBlur(lines, (0, 0), 0.7).astype(np.float32)[..., None] / 255
    hls = cv2.cvtColor(flat, cv2.COLOR_RGB2HLS).astype(np.float32)
    hls[..., 1], hls[..., 2] = np.clip(hls[..., 1] * 1.1 + 8, 0, 255), np.clip(hls[..., 2] * 1.5, 0, 255)
    bright = cv2.cvtColor(hls.astype(np.uint8), cv2.COLOR_HLS2RGB)
    return (bright * (0.25 + 0.75 * lines)).astype(np.uint8)


def _poster(frame: np.ndarray) -> np.ndarray:
    """Four steps of light with soft edges, so that noise does not flicker across them, in strong colours."""
    flat = cv2.bilateralFilter(cv2.bilateralFilter(frame, 9, 50, 7), 9, 50, 7)
    hls = cv2.cvtColor(flat, cv2.COLOR_RGB2HLS).astype(np.float32)
    level = hls[..., 1] / 64
    whole = np.floor(level)
    hls[..., 1] = 22 + 62 * (whole + 1 / (1 + np.exp(-10 * (level - whole - 0.5))))
    hls[..., 2] = np.clip(hls[..., 2] * 1.6, 0, 255)
    return cv2.cvtColor(np.clip(hls, 0, 255).astype(np.uint8), cv2.COLOR_HLS2RGB)


def _sepia(frame: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    height, width = grey.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    grey = grey * (1 - 0.35 * np.clip(x * x + y * y, 0, 1.4))
    return np.clip(grey[..., None] * np.array([1.07, 0.9, 0.68]), 0, 255).astype(np.uint8)


def _night(frame: np.ndarray) -> np.ndarray:
    """Blue light; what is dark by day is dimmed less, so that something is seen."""
    light = (frame.astype(np.float32) / 255) ** (1.1 + 0.4 * min(1.0, float(frame.mean()) / 100))
    return np.clip(light * np.array([0.4, 0.5, 0.85]) * 255, 0, 255).astype(np.uint8)


_FILTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "watercolor": _watercolor,
    "pencil": _pencil,
    "cartoon": _cartoon,
    "poster": _poster,
    "sepia": _sepia,
    "night": _night,
}
