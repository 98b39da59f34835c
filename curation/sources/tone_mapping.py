"""From high dynamic range and wide colours to what the samples are: BT.709 colours for a BT.1886 display.

PQ and HLG signals become light as ITU-R BT.2100-2 has it, its range is mapped by the curve of BT.2390-10
(section 5.4.1) on the largest of red, green and blue, so that hues stay, with diffuse white at 203 cd/m2
(BT.2408-7). Colours outside of BT.709 are clipped. All of it on frames of their final, small size.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

Transfer = Literal["sdr", "pq", "hlg"]

WHITE = 203.0  # cd/m2 of diffuse white (BT.2408), white of the result
DEFAULT_PEAK = 1000.0  # cd/m2 of the display a picture was made for, where the file does not say
HLG_PEAK = 1000.0  # cd/m2; the system gamma of BT.2100 is 1.2 there
GAMMA = 2.4  # of BT.1886 for a black of no light

# Linear light of BT.2020 (BT.2087-0), and of P3 with a white of D65 (SMPTE EG 432-1), to BT.709.
TO_BT709 = {
    "BT.2020": np.array(
        [
            [1.66049, -0.58764, -0.07285],
            [-0.12455, 1.13290, -0.00835],
            [-0.01815, -0.10058, 1.11873],
        ],
        np.float32,
    ),
    "P3": np.array(
        [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]], np.float32
    ),
}
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020's red, green and blue

_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128  # of PQ
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073  # of HLG


def pq_to_light(signal: np.ndarray) -> np.ndarray:
    """Light in cd/m2 of PQ signals from 0 to 1 (BT.2100, table 4)."""
    power = np.power(np.clip(signal, 0, 1), 1 / _M2)
    return 10_000 * np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), 1 / _M1)


def light_to_pq(light: np.ndarray) -> np.ndarray:
    """Inverse of `pq_to_light`."""
    power = np.power(np.clip(light, 0, 10_000) / 10_000, _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


def hlg_to_scene(signal: np.ndarray) -> np.ndarray:
    """Light of the scene, from 0 to 1, of HLG signals from 0 to 1 (BT.2100, table 5)."""
    return np.where(signal <= 0.5, signal * signal / 3, (np.exp((signal - _C) / _A) + _B) / 12)


def compress(light: np.ndarray, peak: float) -> np.ndarray:
    """Light from 0 to `peak` cd/m2 brought to 0 to `WHITE`: BT.2390's curve, black left where it is."""
    if peak <= WHITE:
        return np.minimum(light, WHITE)
    top, white = light_to_pq(np.array([peak, WHITE])).tolist()
    most = white / top
    knee = 1.5 * most - 0.5
    signal = np.clip(light_to_pq(light) / top, 0, 1)
    part = np.clip((signal - knee) / (1 - knee), 0, 1)
    spline = (
        (2 * part**3 - 3 * part**2 + 1) * knee
        + (part**3 - 2 * part**2 + part) * (1 - knee)
        + (-2 * part**3 + 3 * part**2) * most
    )
    return pq_to_light(np.where(signal < knee, signal, spline) * top)


@functools.lru_cache(maxsize=8)
def _linear(transfer: Transfer) -> np.ndarray:
    """Light of every 16-bit signal: in cd/m2 for PQ, from 0 to 1 of the scene for HLG, of white for SDR."""
    signal = np.arange(1 << 16) / 65535
    curves = {"pq": pq_to_light, "hlg": hlg_to_scene, "sdr": lambda s: s**GAMMA}
    return curves[transfer](signal).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _gains(peak: float) -> tuple[np.ndarray, np.ndarray]:
    """Light on a scale that is even in PQ, and what the curve multiplies it with."""
    light = pq_to_light(np.linspace(0, 1, 4096))
    gains = np.ones_like(light)
    gains[1:] = compress(light[1:], peak) / light[1:]
    return light, gains


def to_sdr(signal: np.ndarray, transfer: Transfer, primaries: str, peak: float = DEFAULT_PEAK) -> np.ndarray:
    """uint16 RGB [H, W, 3] of any transfer and primaries as uint8 RGB of BT.709.

    `primaries` is a key of `TO_BT709`, or "" for those of BT.709; `peak` of PQ is that of the display for
    which the picture was made, in cd/m2.
    """
    light = _linear(transfer)[signal]
    if transfer != "sdr":
        if transfer == "hlg":  # the display's light for the scene's, by the system gamma on the luminance
            luminance = light @ LUMINANCE
            light *= (HLG_PEAK * np.power(luminance, 0.2))[..., None]
            peak = HLG_PEAK
        scale, gains = _gains(peak)
        light *= np.interp(light.max(-1), scale, gains).astype(np.float32)[..., None]
        light /= np.float32(WHITE)
    if primaries:
        light = light @ TO_BT709[primaries].T
    return np.rint(255 * np.power(np.clip(light, 0, 1), np.float32(1 / GAMMA))).astype(np.uint8)
