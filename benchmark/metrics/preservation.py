"""What an edit leaves alone, against the *source*: colours, pixels, the seam around the change, and faces.

The region of the change is the item's mask, else where its target differs from the source, else where the
result itself does; a metric says which by its words beside the score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from benchmark.core.item import Reference, Unscored, Worded, beyond
from benchmark.core.once import Once, content_key
from shards.frames import differing, evenly_spaced, psnr

Region = Literal["mask", "target", "measured"]
SMALLEST = 16  # pixels, side of a picture that a change can be measured in


@dataclass(frozen=True)
class Change:
    """Where a clip was to be changed.

    Attributes:
        inside: bool [T, H, W].
        by: what it is known from.
    """

    inside: np.ndarray
    by: Region

    @property
    def words(self) -> str:
        """How a score says it."""
        if self.by == "mask" and not self.inside.any():
            return "the given mask is empty, so that all is to be kept"
        told = {
            "mask": "the given mask",
            "target": "where the target differs from the source",
            "measured": "where the result differs from the source, so that what spills counts as the change",
        }
        return f"the change is {told[self.by]}"


CHANGES: Once[Change] = Once()  # looking for one takes longer than what the metrics do with it


def change_of(reference: Reference, result: np.ndarray) -> Change | Unscored:
    """The region of an item's change; unscored where none is found, such as of a copied source.

    A mask that is given and empty is no fault: nothing was to be changed.

    Args:
        result: uint8 RGB [T, H, W, 3] at the reference's geometry.
    """
    if reference.mask is not None:
        return Change(reference.mask, "mask")
    if (wanted := reference.wanted) is not None:  # every row's
        found = CHANGES.once(
            reference, "target", lambda: Change(differing(reference.source, wanted), "target")
        )
    else:
        found = CHANGES.once(
            reference,
            content_key(result),
            lambda: Change(differing(reference.source, result), "measured"),
        )
    return (
        found if found.inside.any() else Unscored(f"nothing was changed: {found.words}, and that is nowhere")
    )


def kept_of(reference: Reference, result: np.ndarray) -> tuple[Change, np.ndarray] | Unscored:
    """The change, and bool [T, H, W] of what lies beyond it and a band, as `Reference.outside` has it.

    With a mask that is empty, as of an edit about nothing, that is every pixel.
    """
    change = change_of(reference, result)
    if isinstance(change, Unscored):
        return change
    outside = beyond(change.inside)
    return (change, outside) if outside.any() else Unscored(f"nothing is to be kept: {change.words}")


def to_lab(frame: np.ndarray) -> np.ndarray:
    """float32 CIE Lab [H, W, 3] (L of 0 to 100) of a uint8 RGB frame."""
    import cv2

    return np.asarray(cv2.cvtColor(frame.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB))


@dataclass(frozen=True)
class ColourDrift:
    """How far the mean colour outside the change moves from the source's in CIE Lab, mean over frames.

    Signed shifts are averaged over the pixels before their length is taken (CIE76: 2 is just seen), so that
    noise does not count and a tint does. The source itself has 0.
    """

    name: str = "colour_drift"
    label: str = "Colour drift"
    unit: str = "Lab"
    higher_is_better: bool = False
    range: tuple[float, float] = (0.0, math.inf)
    version: int = 2

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        kept = kept_of(reference, result)
        if isinstance(kept, Unscored):
            return kept
        change, outside = kept
        shifts = []
        for source, edit, kept_here in zip(reference.source, result, outside, strict=True):
            if kept_here.any():
                shift = (to_lab(edit)[kept_here] - to_lab(source)[kept_here]).mean(axis=0, dtype=np.float64)
                shifts.append(float(np.linalg.norm(shift)))
        return Worded(float(np.mean(shifts)), change.words)


@dataclass(frozen=True)
class PsnrPreserved:
    """PSNR of the result to the source outside the change, in dB; infinite where no pixel differs."""

    name: str = "psnr_preserved"
    label: str = "PSNR preserved"
    unit: str = "dB"
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, math.inf)
    version: int = 2

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        kept = kept_of(reference, result)
        if isinstance(kept, Unscored):
            return kept
        change, outside = kept
        difference = result[outside].astype(np.int64) - reference.source[outside]
        return Worded(psnr(float(np.mean(difference * difference)), peak=255.0), change.words)


@dataclass(frozen=True)
class Seam:
    """How much more the grey levels step across the border of the change than the source's do there.

    Steps are the gradient's part at right angles to the border (Sobel on grey levels of 0 to 255, per pixel),
    averaged over a line of pixels along the border; the target's where an item has one, for an object that is
    added has an edge, else the source's, are taken away. 0 is a border that is no harder than wanted;
    negative ones count as 0. A pasted patch that is 20 levels brighter has some 10.
    """

    name: str = "seam"
    label: str = "Seam"
    unit: str = "/255"
    higher_is_better: bool = False
    range: tuple[float, float] = (0.0, 255.0)
    version: int = 1

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        if min(result.shape[1:3]) < SMALLEST:
            return Unscored(f"frames of {result.shape[2]}x{result.shape[1]} are too small for a border")
        change = change_of(reference, result)
        if isinstance(change, Unscored):
            return change
        wanted = reference.source if reference.wanted is None else reference.wanted
        total = count = 0.0
        for before, edit, inside in zip(wanted, result, change.inside, strict=True):
            line, across = border(inside)
            if line.any():
                total += float((steps(edit, across) - steps(before, across))[line].sum())
                count += float(line.sum())
        if not count:
            return Unscored(f"the change has no border inside the frame: {change.words}")
        return Worded(max(0.0, total / count), change.words)


def border(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bool [H, W], float32 [H, W, 2]): the pixels on both sides of a mask's border, and the way across it.

    The way is the unit gradient (x, y) of the mask, softened. Borders that are the frame's own do not count.
    """
    import cv2

    brush = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    mask = inside.astype(np.uint8)
    line = cv2.dilate(mask, brush) != cv2.erode(mask, brush)
    line[[0, -1]] = line[:, [0, -1]] = False
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2.0)
    across = np.stack([cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)], axis=-1)
    return line, across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-6)


def steps(frame: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Grey levels per pixel [H, W] along a direction [H, W, 2] in a uint8 RGB frame, without sign."""
    import cv2

    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    slope = [cv2.Sobel(grey, cv2.CV_32F, *axis) / 8.0 for axis in ((1, 0), (0, 1))]  # the kernel's weight
    return np.abs(slope[0] * across[..., 0] + slope[1] * across[..., 1])


class FaceEmbedder(Protocol):
    """A recogniser of faces, of any package; with `identity` or `describe`, see `metrics.config`."""

    def faces(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(boxes float [N, 4] of left, top, right, bottom in pixels, embeddings float [N, D]) of a frame."""
        ...


@dataclass(frozen=True)
class FaceIdentity:
    """Mean cosine of the embeddings of each face outside the change with its own in the result.

    Faces are looked for in `frames` frames, evenly spread, of source and result. A face of the source whose
    middle is in the change is no face to be kept; every other is compared with the face of the result whose
    middle is nearest, within half its own size, and one that finds none counts 0. Null without a model.

    Args:
        model: entry under `models:`, a `FaceEmbedder` by class_path.
    """

    model: FaceEmbedder | None = None
    frames: int = 8
    name: str = "face_identity"
    label: str = "Face identity"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (-1.0, 1.0)
    version: int = 2

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        if self.model is None:
            return Unscored("no model of faces is given: `model` of the metrics file names a class")
        kept = kept_of(reference, result)
        if isinstance(kept, Unscored):
            return kept
        change, outside = kept
        likeness: list[float] = []
        for number in evenly_spaced(len(result), min(self.frames, len(result))):
            before, after = self.model.faces(reference.source[number]), self.model.faces(result[number])
            likeness += alike(before, after, outside[number])
        if not likeness:
            return Unscored(f"no face is to be kept: {change.words}")
        return Worded(float(np.mean(likeness)), f"{len(likeness)} faces; {change.words}")


def alike(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], kept: np.ndarray
) -> list[float]:
    """The cosine of each face to be kept with its own, 0 where it finds none; see `FaceIdentity`.

    Args:
        before, after: boxes [N, 4] and embeddings [N, D] of the source's faces and the result's.
        kept: bool [H, W], where a face's middle is for it to count.
    """
    found = []
    middles = (after[0][:, :2] + after[0][:, 2:]) / 2
    for box, vector in zip(*before, strict=True):
        middle, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        x, y = np.clip(middle.astype(int), 0, np.array(kept.shape[::-1]) - 1)
        if not kept[y, x]:
            continue
        apart = np.linalg.norm(middles - middle, axis=1)
        if not len(apart) or apart.min() > size.max() / 2:
            found.append(0.0)
            continue
        other = after[1][apart.argmin()]
        found.append(float(vector @ other / max(np.linalg.norm(vector) * np.linalg.norm(other), 1e-12)))
    return found
