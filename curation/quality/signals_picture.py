"""Signals of the pictures of a pair: what changed, what should have stayed, how sharp it is.

All go by at most 16 frames, evenly spread. A signal is None where it cannot be measured.
"""

from __future__ import annotations

import re

import cv2
import numpy as np

from curation.ops.masks import dilate
from curation.quality import pairs
from curation.quality.pairs import DIFFERS, Pair
from curation.quality.signals import Signal, Values
from curation.vlm.interface import Backend

BEST_PSNR = 60.0  # dB; what is the same to the bit
SAME = 4.0  # CIELAB distance of pixels that nobody would call changed
CELL = 16  # pixels of the side of a cell
DETAIL = 25.0  # mean squared Laplacian of a cell that has any detail to lose
RIM = 0.08  # of the height: what is so near the edit is close around it
FEW = 40  # pixels: fewer say nothing
BLACK = 20  # levels; a row or column that nowhere is lighter is black
# What colour words mean in sRGB: the middle of what people call so (xkcd's survey, rounded).
NAMED_COLOURS = {
    "red": (200, 30, 30),
    "green": (40, 150, 50),
    "blue": (40, 70, 190),
    "yellow": (235, 215, 50),
    "orange": (240, 140, 40),
    "purple": (120, 40, 150),
    "pink": (250, 150, 190),
    "white": (225, 225, 225),
    "black": (25, 25, 25),
    "grey": (128, 128, 128),
    "gray": (128, 128, 128),
    "brown": (110, 70, 35),
    "turquoise": (50, 190, 180),
    "dark": (35, 35, 40),
}
PAIR, EDIT = "source and target of one size and length", "an edit of a part of the picture"
ESTIMATED = "the mask, or where there is none what differs visibly"
SIGNALS = (
    Signal("psnr_outside", "higher", "dB", f"PSNR outside the edit ({ESTIMATED}), 60 at most", EDIT),
    Signal(
        "colour_shift_outside",
        "lower",
        "CIELAB",
        "distance by which the median colour moves outside the edit",
        EDIT,
        "shifts of less than half of the picture",
    ),
    Signal("changed_outside", "lower", "share", "pixels that differ visibly outside the edit", EDIT),
    Signal("changed_share", "neither", "share", "pixels that differ visibly, of all", PAIR),
    Signal("change_inside", "higher", "CIELAB", "mean distance of source and target inside the edit", PAIR),
    Signal("unchanged_inside", "lower", "share", "pixels inside the mask that hardly differ", "a mask"),
    Signal("sharpness_outside", "higher", "ratio", "squared Laplacian outside, target over source", PAIR),
    Signal(
        "sharpness_inside", "neither", "ratio", "squared Laplacian inside the edit, target over source", EDIT
    ),
    Signal("sharpness_rim", "higher", "ratio", "the same close around the edit", EDIT),
    Signal(
        "sharpness_weakest", "higher", "ratio", "the same of the 16-pixel cells outside that lost most", PAIR
    ),
    Signal(
        "edge_width",
        "lower",
        "pixels",
        "how gradually the edit sets in, from the gradient of the difference and its Laplacian",
        EDIT,
        "a removal whose object had sharp outlines: they are the source's",
    ),
    Signal(
        "leftover",
        "lower",
        "share",
        "outlines of what is removed that the target keeps (of an addition: that were there before)",
        "a removal or an addition",
        "objects whose outlines the background hides or repeats",
    ),
    Signal(
        "direction",
        "higher",
        "log2",
        "contrast at the rim of what differs, in the video that should hold the object over the other",
        "a removal or an addition",
        "other edits; backgrounds busier than the object",
    ),
    Signal(
        "colour_words",
        "higher",
        "CIELAB",
        "how much nearer the edit is to the colour that the instruction names than in the other video",
        "an object task and a colour in the words",
        "instructions in other languages or without a colour; other words",
    ),
    Signal("bars", "lower", "share", "black bars of the target, less those of the source"),
)


class PictureSignals:
    """Grader of the pictures; no model."""

    name = "pictures"
    signals = SIGNALS
    code = (pairs,)

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        return Backend("opencv")

    def measure(self, pair: Pair) -> Values:
        """See `curation.quality.signals.Grader`."""
        return picture_signals(pair)


def picture_signals(pair: Pair) -> dict[str, float | None]:
    """All of `SIGNALS` by name."""
    found: dict[str, float | None] = dict.fromkeys(signal.name for signal in SIGNALS)
    found["bars"] = bars(pair)
    if not pair.is_aligned:
        return found
    found |= preserved(pair) | changed(pair) | sharpness(pair) | edges(pair)
    found["edge_width"] = edge_width(pair)
    found["colour_words"] = colour_words(pair)
    return found


def preserved(pair: Pair) -> dict[str, float | None]:
    """What should have stayed: PSNR, how far all of it has moved in CIELAB, and the share that differs."""
    if pair.outside is None:
        return {"psnr_outside": None, "colour_shift_outside": None, "changed_outside": None}
    outside = pair.outside[pair.times]
    source, target = (video[pair.times].astype(np.float32) for video in pair.both)
    error = float(np.mean((source - target)[outside] ** 2))
    before, after = pair.lab
    shift = np.median((after - before)[outside], axis=0)  # which a shadow that went along hardly moves
    return {
        "psnr_outside": min(BEST_PSNR, 10 * np.log10(255**2 / error)) if error > 0 else BEST_PSNR,
        "colour_shift_outside": float(np.linalg.norm(shift)),
        "changed_outside": float((pair.apart[outside] > DIFFERS).sum() / pair.apart.size),
    }


def changed(pair: Pair) -> dict[str, float | None]:
    """The edit: how far it is from the source inside, what is untouched there, and how large it is."""
    found: dict[str, float | None] = {"changed_share": float((pair.apart > DIFFERS).mean())}
    edit = None if pair.edit is None else pair.edit[pair.times]
    inside = pair.apart if edit is None else pair.apart[edit]
    found["change_inside"] = float(inside.mean()) if inside.size >= FEW else None
    known = pair.mask is not None and inside.size >= FEW
    found["unchanged_inside"] = float((inside < SAME).mean()) if known else None
    return found


def sharpness(pair: Pair) -> dict[str, float | None]:
    """The target's squared Laplacian over the source's: outside, inside, around, and where it lost most."""
    energies = [np.stack([_detail(video[t]) for t in pair.times]) for video in pair.both]
    outside = np.ones(energies[0].shape, bool) if pair.outside is None else pair.outside[pair.times]
    inside = None if pair.edit is None else pair.edit[pair.times]
    found = {
        "sharpness_outside": _ratio(*(energy[outside] for energy in energies)),
        "sharpness_inside": None if inside is None else _ratio(*(energy[inside] for energy in energies)),
        "sharpness_rim": None,
    }
    if inside is not None:
        near = np.stack([dilate(one, round(RIM * one.shape[0])) for one in inside]) & outside
        found["sharpness_rim"] = _ratio(*(energy[near] for energy in energies)) if near.any() else None
    share, before, after = (
        np.stack([_cells(one) for one in maps])
        for maps in (
            outside.astype(np.float32),
            np.where(outside, energies[0], 0),
            np.where(outside, energies[1], 0),
        )
    )
    detailed = (share > 0.5) & (before > DETAIL * share)
    ratios = after[detailed] / before[detailed]
    found["sharpness_weakest"] = float(np.percentile(ratios, 3)) if len(ratios) >= 8 else None
    return found


def edges(pair: Pair) -> dict[str, float | None]:
    """What is left of the outlines of what should be gone, and in which video the object stands.

    Both are known of removals and additions only, which are removals backwards.
    """
    if pair.task not in ("object_removal", "object_addition") or pair.edit is None:
        return {"leftover": None, "direction": None}
    removes = pair.task == "object_removal"
    with_it, without = pair.both if removes else pair.both[::-1]
    kept = total = 0.0
    contrast, pixels = np.zeros(2), 0
    for n, t in enumerate(pair.times):
        near = dilate(pair.edit[t], 2)
        own, other = (_gradient(video[t]) for video in (with_it, without))
        kept += float((own[near] * other[near]).sum())
        total += float((own[near] ** 2).sum())
        shape = ((pair.apart[n] > DIFFERS) & dilate(pair.edit[t], 6)).astype(np.uint8)
        shape = cv2.morphologyEx(shape, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        rim = cv2.morphologyEx(shape, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        contrast += [np.linalg.norm(one[rim], axis=-1).sum() for one in (own, other)]
        pixels += int(rim.sum())
    sides = np.log2((contrast + pixels) / (contrast[::-1] + pixels)) if pixels >= FEW else None
    return {
        "leftover": kept / total if total > FEW * DETAIL else None,
        "direction": None if sides is None else float(sides[0]),
    }


def edge_width(pair: Pair) -> float | None:
    """How gradually the difference of source and target sets in at the edge of the edit, in pixels.

    The root of the ratio of its squared gradient to its squared Laplacian: of a step blurred by a Gaussian it
    grows with the Gaussian's sigma. None without an edit of a part of the picture.
    """
    if pair.edit is None:
        return None
    source, target = pair.lab
    slope = bend = 0.0
    for n, t in enumerate(pair.times):
        near = dilate(pair.edit[t], 4)
        apart = cv2.GaussianBlur(np.linalg.norm(source[n] - target[n], axis=-1), (3, 3), 0)
        dx, dy = (cv2.Sobel(apart, cv2.CV_32F, d, 1 - d) / 8 for d in (1, 0))
        slope += float((dx**2 + dy**2)[near].sum())
        bend += float((cv2.Laplacian(apart, cv2.CV_32F) ** 2)[near].sum())
    return float(np.sqrt(slope / bend)) if bend > FEW else None


def colour_words(pair: Pair) -> float | None:
    """How much nearer the edited region is to the colour that the instruction names than in the other video.

    Of a removal the object is looked for in the source, of an addition or a replacement (the last colour that
    is named) in the target. CIELAB distance of medians; None where no colour is named or nothing changed.
    """
    words = [w for w in re.findall(r"[a-z]+", pair.instruction.lower()) if w in NAMED_COLOURS]
    places = {"object_removal": 0, "object_addition": 1, "object_replacement": 1}
    if not words or pair.task not in places or pair.edit is None:
        return None
    word = words[0] if pair.task == "object_removal" else words[-1]
    differs = pair.edit[pair.times] & (pair.apart > DIFFERS)
    if differs.sum() < FEW:
        return None
    patch = np.full((1, 1, 3), NAMED_COLOURS[word], np.float32) / 255
    named = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB)[0, 0]
    scale = np.array(
        [0.5, 1.0, 1.0], np.float32
    )  # light and shade change what is seen of a colour's lightness
    far = [float(np.median(np.linalg.norm((lab[differs] - named) * scale, axis=-1))) for lab in pair.lab]
    there = places[pair.task]
    return far[1 - there] - far[there]


def bars(pair: Pair) -> float:
    """Share of the target's picture that is black bars at its edges throughout, less the source's share."""
    own = _bars(pair.target[pair.times])
    there = [t for t in pair.times if pair.source is not None and t < len(pair.source)]
    return own - (_bars(pair.source[there]) if pair.source is not None and there else 0.0)


def _bars(frames: np.ndarray) -> float:
    lightest = frames.max((0, 3))
    rows, columns = lightest.max(1) < BLACK, lightest.max(0) < BLACK
    if rows.all():
        return 1.0
    top, bottom, left, right = (int(np.argmin(one)) for one in (rows, rows[::-1], columns, columns[::-1]))
    height, width = lightest.shape
    return 1 - (height - top - bottom) * (width - left - right) / (height * width)


def _detail(frame: np.ndarray) -> np.ndarray:
    """Squared Laplacian of the grey picture, float32 [H, W]."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.Laplacian(grey, cv2.CV_32F) ** 2, np.float32)


def _gradient(frame: np.ndarray) -> np.ndarray:
    """Sobel gradient of the three colours, float32 [H, W, 6]."""
    pixels = cv2.GaussianBlur(frame, (3, 3), 0)
    along = [cv2.Sobel(pixels, cv2.CV_32F, dx, 1 - dx) / 4 for dx in (0, 1)]
    return np.concatenate(along, axis=-1)


def _ratio(before: np.ndarray, after: np.ndarray) -> float | None:
    """Ratio of means; None where the source has no detail."""
    if before.size < FEW or before.mean() < 1:
        return None
    return float(after.mean() / before.mean())


def _cells(values: np.ndarray) -> np.ndarray:
    """Means of cells of `CELL` pixels, float32 [h, w]."""
    height, width = (max(1, side // CELL) for side in values.shape)
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA), np.float32)
