"""The clothes of one person in a window of frames, told from head, hands, feet, belongings and background.

Every pixel of the person goes to the class that explains it best: how near it is to the class's bones, and
how often the class has this colour in its core over the whole window. So a coat may end below the hips and a
bag over the shoulder is no part of it, and the same rule holds in every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from curation.ops.masks import components, dilate, fill_holes, touching

TOP, TROUSERS, HEAD, HANDS, FEET = range(5)  # classes; whatever none of them explains is a belonging
# BlazePose's joints: shoulders 11, 12; elbows 13, 14; wrists 15, 16; hips 23, 24; knees 25, 26; ankles 27, 28
TRUNK = (11, 12, 24, 23)
SEEN = ((11, 12), (23, 24), (25, 26))  # without one of each pair nothing can be said of clothes
# class -> bones (two joints, radius in trunk lengths)
BONES: dict[int, tuple[tuple[int, int, float], ...]] = {
    TOP: (
        *((11, 12, 0.22), (11, 13, 0.16), (13, 15, 0.14), (12, 14, 0.16), (14, 16, 0.14)),
        *((11, 23, 0.16), (12, 24, 0.16)),
    ),
    TROUSERS: ((23, 25, 0.2), (25, 27, 0.16), (24, 26, 0.2), (26, 28, 0.16)),
    HANDS: ((15, 19, 0.1), (16, 20, 0.1), (15, 17, 0.1), (16, 18, 0.1)),
    FEET: ((27, 31, 0.13), (28, 32, 0.13), (27, 29, 0.13), (28, 30, 0.13)),
}
HEAD_RADIUS = 0.36  # trunk lengths around the middle of the ears
NECK = -0.2  # trunk lengths along the trunk's axis, from the shoulders: a head ends there, a collar begins
BINS = 16  # of a colour histogram, along each axis of CIELAB
RARE = 2e-3  # likelihood of a colour that no class has
DISTANCE = 1.2  # nats that a pixel loses for each radius by which it is off a bone


class Garment(NamedTuple):
    """One garment in a window.

    Attributes:
        weight: float32 [T, H, W], 0 to 1, how much of each pixel it is; 0 outside of it.
        lab: median colour in CIELAB (lightness 0 to 100).
        area: pixels of it, in each frame.
        missing: largest piece of where it should be that is not of it, as a share, in each frame.
        beyond: share of it that lies on head, hands or feet, in the worst frame.
        length: where it ends, from the shoulders (0) past the hips (1), in trunk lengths; median.
        plain: share of its pixels that are near its median colour.
        black: share of its pixels that are so dark that they show nothing.
    """

    weight: np.ndarray
    lab: tuple[float, float, float]
    area: list[int]
    missing: list[float]
    beyond: float
    length: float
    plain: float
    black: float


@dataclass(frozen=True)
class Clothes:
    """The garments of one person.

    Attributes:
        top, trousers: each alone; `all` both together.
        likeness: Bhattacharyya coefficient (0 to 1) of the colours of top and trousers: above about 0.5
            nothing but the hips says where one ends.
    """

    top: Garment
    trousers: Garment
    all: Garment
    likeness: float


class _View(NamedTuple):
    """A frame's crop: its corner, CIELAB [h, w, 3], the person bool [h, w], and classes by their bones."""

    corner: tuple[int, int]
    lab: np.ndarray
    person: np.ndarray
    off: np.ndarray  # float32 [classes, h, w], radii from the bones of each class
    along: np.ndarray  # float32 [h, w], 0 at the shoulders, 1 at the hips
    trunk: np.ndarray  # bool [h, w], between and close around shoulders and hips


def smooth_joints(joints: np.ndarray) -> np.ndarray:
    """Joints [T, J, 3] with places that are the median of three frames: one that jumps for a frame stays."""
    padded = np.pad(joints[..., :2], ((1, 1), (0, 0), (0, 0)), mode="edge")
    places = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return np.concatenate([places, joints[..., 2:]], axis=-1).astype(np.float32)


def trunk_length(joints: np.ndarray) -> np.ndarray:
    """Pixels from the middle of the shoulders to that of the hips, [T], of joints [T, J, 3]."""
    shoulders, hips = joints[:, [11, 12], :2].mean(1), joints[:, [23, 24], :2].mean(1)
    return np.linalg.norm(hips - shoulders, axis=-1)


def find_clothes(frames: np.ndarray, person: np.ndarray, joints: np.ndarray) -> Clothes:
    """The clothes of a person.

    Args:
        frames: uint8 RGB [T, H, W, 3]; `person` bool [T, H, W], where the person is.
        joints: float [T, 33, 3], BlazePose's, x and y in pixels.
    """
    joints = smooth_joints(joints)
    scale = float(np.median(trunk_length(joints)))
    views = [_view(*one, scale) for one in zip(frames, person, joints, strict=True)]
    models = [_histogram([v.lab[_core(v, k)] for v in views]) for k in range(5)]
    models[HANDS] = _SKIN
    models.append(_belongings(views, models))
    shares = [_shares(view, models) for view in views]
    likeness = float(np.sqrt(models[TOP] * models[TROUSERS]).sum())
    top, trousers, both = (
        _garment(frames, views, shares, kinds) for kinds in ((TOP,), (TROUSERS,), (TOP, TROUSERS))
    )
    return Clothes(top, trousers, both, likeness)


def _view(frame: np.ndarray, person: np.ndarray, joints: np.ndarray, scale: float) -> _View:
    height, width = person.shape
    places = joints[:, :2]
    rows, columns = np.nonzero(person)
    low = np.array([columns.min(initial=width - 1), rows.min(initial=height - 1)])
    high = np.array([columns.max(initial=0), rows.max(initial=0)])
    left, top = np.clip(low - 4, 0, None)
    right, bottom = np.clip(high + 5, None, (width, height))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    window = slice(top, bottom), slice(left, right)
    lab = cv2.cvtColor(frame[window].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    points = np.stack(np.meshgrid(np.arange(left, right), np.arange(top, bottom)), axis=-1).astype(np.float32)
    off = np.stack([_off_class(points, places, kind, scale) for kind in range(5)])
    shoulders, hips = places[[11, 12]].mean(0), places[[23, 24]].mean(0)
    axis = hips - shoulders
    along = ((points - shoulders) @ axis) / max(1e-3, float(axis @ axis))
    polygon = np.zeros(lab.shape[:2], np.uint8)
    corners = (places[list(TRUNK)] - np.array([left, top])).round().astype(np.int32)
    cv2.fillConvexPoly(polygon, corners, (1,))
    off[TOP][polygon > 0] = 0
    off[HEAD] = np.maximum(off[HEAD], 1 + (along - NECK) / 0.12)
    sides = [_off_bone(points, places[a], places[b]) for a, b in ((11, 12), (11, 23), (12, 24))]
    trunk = (polygon > 0) | (np.minimum.reduce(sides) < 0.12 * scale)
    return _View((int(top), int(left)), lab, person[window], off, along.astype(np.float32), trunk)


def _off_class(points: np.ndarray, places: np.ndarray, kind: int, scale: float) -> np.ndarray:
    """Radii from the nearest bone of a class, float32 [h, w] of pixels [h, w, 2]."""
    if kind == HEAD:
        middle = places[[7, 8]].mean(0)
        return np.linalg.norm(points - middle, axis=-1) / (HEAD_RADIUS * scale)
    off = [_off_bone(points, places[a], places[b]) / max(1.0, radius * scale) for a, b, radius in BONES[kind]]
    return np.minimum.reduce(off)


def _off_bone(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pixels from the line between two joints."""
    along = b - a
    t = np.clip(((points - a) @ along) / max(1e-3, float(along @ along)), 0, 1)
    return np.linalg.norm(points - a - t[..., None] * along, axis=-1)


def _core(view: _View, kind: int) -> np.ndarray:
    """Pixels that are surely of a class, for its colours."""
    sure = view.person & (view.off[kind] < 0.8)
    others = np.delete(view.off, kind, axis=0).min(0)
    if (
        kind == TOP
    ):  # the trunk from the shoulders, which the sky lights, to above a belt; a bag may be on an arm
        return sure & view.trunk & (view.along > NECK / 2) & (view.along < 0.85) & (others > 1)
    if kind == TROUSERS:  # below a coat
        return sure & (view.along > 1.5) & (others > 1)
    return sure & (others > 1)


def _belongings(views: Sequence[_View], models: Sequence[np.ndarray]) -> np.ndarray:
    """Colours of things off all bones, as far as no garment has them as often; any colour is possible."""
    inside = [cv2.erode(v.person.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0 for v in views]
    samples = [v.lab[i & (v.off.min(0) > 1.3)] for v, i in zip(views, inside, strict=True)]
    anything = np.full((BINS,) * 3, RARE * float(np.exp(-0.5 * DISTANCE)))
    if sum(map(len, samples)) < 0.02 * sum(int(v.person.sum()) for v in views):
        return anything
    own = _histogram(samples)
    clear = own > 3 * np.maximum.reduce(list(models))
    return np.where(clear, np.maximum(own / 2, anything), anything)


def _histogram(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Shares of colours, [BINS, BINS, BINS]; colours that a class has only now and then are left out."""
    lab = np.concatenate(samples)
    if len(lab) < 20:
        return np.full((BINS,) * 3, RARE / BINS)
    counts, _ = np.histogramdd(
        np.clip(lab, *_RANGE.T), bins=BINS, range=[tuple(limits) for limits in _RANGE.tolist()]
    )
    for axis in range(3):  # neighbouring colours are likely too
        padded = np.moveaxis(np.pad(counts, [(int(a == axis),) * 2 for a in range(3)]), axis, 0)
        counts = np.moveaxis(padded[:-2] / 4 + padded[1:-1] / 2 + padded[2:] / 4, 0, axis)
    shares: np.ndarray = counts / counts.sum()
    return shares


_RANGE = np.array([[0, 100], [-64, 64], [-64, 64]], np.float64)


def _skin() -> np.ndarray:
    """Colours of skin: hair may be as black as a coat, so hands are not told by the colours of the head."""
    light, a, b = np.meshgrid(*(np.linspace(low, high, BINS) for low, high in _RANGE.tolist()), indexing="ij")
    density = np.exp(-(((light - 62) / 18) ** 2 + ((a - 13) / 7) ** 2 + ((b - 16) / 9) ** 2) / 2)
    shares: np.ndarray = density / density.sum()
    return shares


_SKIN = _skin()


def _shares(view: _View, models: Sequence[np.ndarray]) -> np.ndarray:
    """How far each class explains each pixel, float32 [classes, h, w], adding up to at most 1."""
    low, high = _RANGE.T
    place = np.clip((view.lab - low) / (high - low) * BINS, 0, BINS - 1).astype(int)
    scores = []
    for kind, model in enumerate(models):
        likely = np.log(model[place[..., 0], place[..., 1], place[..., 2]] + RARE / 4)
        garment = kind < len(view.off)
        scores.append(likely - DISTANCE * np.clip(view.off[kind] - 0.8, 0, None) if garment else likely)
    stacked = np.stack(scores)
    stacked -= stacked.max(0)
    share = np.exp(stacked)
    share /= share.sum(0)
    return np.where(view.person, share[:-1], 0).astype(np.float32)


def _garment(
    frames: np.ndarray, views: Sequence[_View], shares: Sequence[np.ndarray], kinds: tuple[int, ...]
) -> Garment:
    weight = np.zeros(frames.shape[:3], np.float32)
    colours, area, missing, beyond, ends = [np.zeros((0, 3), np.float32)], [], [], 0.0, []
    for t, (view, share) in enumerate(zip(views, shares, strict=True)):
        place = _place(view, kinds)
        likely = cv2.GaussianBlur(share[list(kinds)].sum(0), (0, 0), 0.8)
        mask = (likely > 0.5) & view.person
        mask = fill_holes(touching(mask, place)) & view.person & (likely > 0.25)  # a hole may be a thing
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7) * dilate(mask, 1)
        (top, left), (h, w) = view.corner, mask.shape
        weight[t, top : top + h, left : left + w] = np.where(soft > 0.05, soft, 0)
        colours.append(view.lab[mask])
        area.append(int(mask.sum()))
        pieces = np.bincount(components(place & ~mask)[1].ravel())[1:]
        missing.append(float(pieces.max(initial=0) / max(1, place.sum())))
        skin = view.off[[HEAD, HANDS, FEET]].min(0) < 0.7
        beyond = max(beyond, float((mask & skin).sum() / max(1, mask.sum())))
        ends.append(float(np.percentile(view.along[mask], 97)) if mask.any() else 0.0)
    lab = np.concatenate(colours)
    median = np.median(lab, axis=0) if len(lab) else np.zeros(3)
    apart = np.linalg.norm((lab - median) * np.array([0.6, 1, 1]), axis=-1)
    return Garment(
        weight,
        (float(median[0]), float(median[1]), float(median[2])),
        area,
        missing,
        beyond,
        float(np.median(ends)),
        float((apart < 25).mean()) if len(lab) else 0.0,
        float((lab[:, 0] < 1.5).mean()) if len(lab) else 1.0,
    )


def _place(view: _View, kinds: tuple[int, ...]) -> np.ndarray:
    """Where a garment is looked for, bool [h, w]: well on its own bones and off hands, head and feet."""
    place = view.person & (view.off[list(kinds)].min(0) < 1)
    if TOP in kinds:
        return place & (view.along > NECK / 2) & ~((view.off[HANDS] < 1.3) | (view.off[HEAD] < 1))
    return place & (view.off[FEET] > 1) & (view.along > 1.15)


def recolour(
    frames: np.ndarray,
    background: np.ndarray,
    person: np.ndarray,
    weight: np.ndarray,
    lab: tuple[float, float, float],
    colour: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Frames with a garment in another colour, and where they changed, bool [T, H, W].

    Folds and shadows are kept. A pixel at the edge shows garment and background; of it the garment's part is
    changed, so that no seam of the old colour stays.

    Args:
        frames: uint8 RGB [T, H, W, 3]; `background` the same without the person.
        person, weight: bool and float32 [T, H, W], the person and the garment (0 to 1).
        lab, colour: the garment's median colour and the new one, CIELAB.
    """
    made, changed = frames.copy(), np.zeros(frames.shape[:3], bool)
    # Brighter pixels at the edge are of the background.
    brightest = _brightest(frames, weight)
    for t, (frame, w) in enumerate(zip(frames, weight, strict=True)):
        rows, columns = np.flatnonzero(w.any(1)), np.flatnonzero(w.any(0))
        if not len(rows):
            continue
        window = (
            slice(max(0, rows[0] - EDGE), rows[-1] + 1 + EDGE),
            slice(max(0, columns[0] - EDGE), columns[-1] + 1 + EDGE),
        )
        here, alpha = frame[window].astype(np.float32), w[window]
        new = _painted(here, lab, colour, brightest)
        change = alpha[..., None] * (new - here)
        whole, mine = alpha > 0.5, person[t][window]
        inner = whole & ~dilate(~mine, 1)
        near = cv2.blur(inner.astype(np.float32), (7, 7))
        known = near > 0.04  # two pixels of 49
        old_near, new_near = (_mean(picture, inner, near) for picture in (here, new))
        behind = background[t][window].astype(np.float32)
        step = old_near - behind
        size = (step**2).sum(-1)
        share = np.clip(((here - behind) * step).sum(-1) / np.maximum(size, 1), 0, 1)
        edge = dilate(whole, EDGE) & dilate(~mine, 1) & known & (size > 20**2) & (whole | ~mine)
        change = np.where(edge[..., None], share[..., None] * (new_near - old_near), change)
        change[(np.abs(change).max(-1) < 2) | ~(edge | (alpha > 0))] = 0
        made[t][window] = (here + change).round().clip(0, 255).astype(np.uint8)
        changed[t] = (made[t] != frame).any(-1)
    return made, changed


EDGE = 2  # pixels around a garment in which colour bleeds, as it does in 4:2:0 video


def _mean(picture: np.ndarray, inner: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The mean of a picture's pixels in `inner` around each pixel, float32 [h, w, 3]."""
    total = cv2.blur(np.where(inner[..., None], picture, 0).astype(np.float32), (7, 7))
    mean: np.ndarray = total / np.maximum(near, 1e-3)[..., None]
    return mean


def _brightest(frames: np.ndarray, weight: np.ndarray) -> float:
    pixels = frames[weight > 0.9].reshape(-1, 1, 3)
    if not len(pixels):
        return 100.0
    light = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0]
    return float(np.percentile(light, 97))


def _painted(
    here: np.ndarray, lab: tuple[float, float, float], colour: tuple[float, float, float], brightest: float
) -> np.ndarray:
    """Float32 RGB [h, w, 3] (0 to 255) in a colour, with the lights and darks of the old one."""
    light = cv2.cvtColor((here / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[..., 0]
    middle = lab[0] + float(np.clip(colour[0] - lab[0], -20, 34))
    gain = 1.5 if lab[0] < 25 else 1.15 if lab[0] < 60 else 1.0  # dark cloth shows little of its folds
    light = np.clip(middle + gain * (np.minimum(light, brightest) - lab[0]), 6, 94)
    strength = np.clip(light / middle, 0.45, 1.1) * min(1.0, (middle / colour[0]) ** 0.5)
    painted = np.stack([light, colour[1] * strength, colour[2] * strength], axis=-1).astype(np.float32)
    rgb: np.ndarray = np.clip(cv2.cvtColor(painted, cv2.COLOR_LAB2RGB), 0, 1) * 255
    return rgb
