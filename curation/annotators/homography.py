"""Removal under a moving camera: neighbouring frames registered by homographies, masked median in the hole.

For every hole pixel the frames that saw the background there are warped onto it; what no frame saw is filled
by OpenCV's Telea method and reported as unseen.
"""

from __future__ import annotations

import cv2
import numpy as np

from curation.ports import Backdrop, Backend
from curation.regions import bounds, dilate, grow


class HomographyInpainter:
    """Uses at most `samples` registered frames per target frame, those that agree best around the hole."""

    def __init__(self, samples: int = 15, corners: int = 600, ring: int = 10, spread: int = 32) -> None:
        self.samples, self.corners, self.ring, self.spread = samples, corners, ring, spread

    def describe(self) -> Backend:
        """See `curation.ports.Annotator`."""
        settings = {"samples": self.samples, "corners": self.corners, "ring": self.ring, "spread": self.spread}
        return Backend("homography-median", "", cv2.__version__, settings)

    def fill(self, frames: np.ndarray, masks: np.ndarray, first: int, last: int) -> Backdrop:
        """See `curation.ports.Inpainter`. Frames that cannot be registered are left out.

        Frames uint8 [T, H, W, 3] and masks bool [T, H, W] may reach beyond `first` to `last`: they lend pixels.
        """
        to_anchor = self._register(frames, masks)
        out = frames[first:last].copy()
        seen = np.ones(out.shape[:3], bool)
        for t in range(first, last):
            if masks[t].any():
                out[t - first], seen[t - first] = self._one(frames, masks, to_anchor, t)
        return Backdrop(out, seen)

    def _register(self, frames: np.ndarray, masks: np.ndarray) -> list[np.ndarray | None]:
        """Homographies float64 [3, 3] from each frame to the middle one: chained, then refined against it."""
        greys = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
        free = [np.where(dilate(m, 4), np.uint8(0), np.uint8(255)) for m in masks]
        middle = len(frames) // 2
        found: list[np.ndarray | None] = [None] * len(frames)
        found[middle] = np.eye(3)
        for step, stop in ((1, len(frames)), (-1, -1)):
            for t in range(middle + step, stop, step):
                before = found[t - step]
                fit = None if before is None else self._match(greys[t], greys[t - step], free[t], free[t - step])
                if before is None or fit is None:
                    break  # nothing beyond this frame can be registered
                found[t] = self._refine(greys, free, t, middle, before @ fit)
        return found

    def _match(self, a: np.ndarray, b: np.ndarray, free_a: np.ndarray, free_b: np.ndarray) -> np.ndarray | None:
        """Homography from picture `a` to `b` by Lucas-Kanade corners and RANSAC, None when it does not hold."""
        points = cv2.goodFeaturesToTrack(a, self.corners, 0.005, 6, mask=free_a)
        if points is None or len(points) < 24:
            return None
        moved, ok, _ = cv2.calcOpticalFlowPyrLK(a, b, points, None, winSize=(15, 15), maxLevel=3)
        x, y = np.clip(moved.reshape(-1, 2).round().astype(int), 0, np.array(b.shape[::-1]) - 1).T
        good = (ok.ravel() == 1) & (free_b[y, x] > 0)
        if good.sum() < 24:
            return None
        cv2.setRNGSeed(0)  # RANSAC draws from OpenCV's own generator
        fit, inliers = cv2.findHomography(points[good], moved[good], cv2.RANSAC, 0.8)
        return fit if fit is not None and inliers.mean() > 0.35 else None

    def _refine(
        self, greys: list[np.ndarray], free: list[np.ndarray], t: int, middle: int, guess: np.ndarray
    ) -> np.ndarray:
        """Take out the drift of the chain: match the frame, warped by its guess, against the middle frame."""
        height, width = greys[t].shape
        warped = cv2.warpPerspective(greys[t], guess, (width, height), flags=cv2.INTER_LINEAR)
        valid = cv2.warpPerspective(free[t], guess, (width, height), flags=cv2.INTER_NEAREST)
        if (valid > 0).mean() < 0.4:
            return guess
        inner = cv2.erode(valid, np.ones((9, 9), np.uint8))
        fit = self._match(warped, greys[middle], inner, free[middle])
        if fit is None:
            return guess
        corners = np.array([[[0, 0]], [[width, 0]], [[0, height]], [[width, height]]], np.float64)
        shift = np.abs(cv2.perspectiveTransform(corners, fit) - corners).max()
        return fit @ guess if shift < 6 else guess

    def _one(
        self, frames: np.ndarray, masks: np.ndarray, to_anchor: list[np.ndarray | None], t: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Frame `t` with its hole filled, uint8 [H, W, 3], and where the background was seen, bool [H, W]."""
        frame, mask = frames[t], masks[t]
        found = bounds(mask)
        assert found is not None  # the caller skips empty masks
        left, top, right, bottom = grow(found, 1.0, mask.shape, pad=self.ring + 4)
        window, hole = (slice(top, bottom), slice(left, right)), mask[top:bottom, left:right]
        size = (right - left, bottom - top)
        around = dilate(hole, self.ring) & ~dilate(hole, 1)
        to_window = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], np.float64)
        lenders = []
        anchor = to_anchor[t]
        if anchor is not None:
            for s in range(max(0, t - self.spread), min(len(frames), t + self.spread + 1)):
                other = to_anchor[s]
                if s == t or other is None:
                    continue
                warp = to_window @ np.linalg.inv(anchor) @ other
                shown = cv2.warpPerspective((~dilate(masks[s], 2)).astype(np.uint8), warp, size, flags=cv2.INTER_LINEAR)
                usable = shown > 0
                if not (usable & hole).any():
                    continue
                picture = cv2.warpPerspective(frames[s], warp, size, flags=cv2.INTER_CUBIC).astype(np.float32)
                common = around & usable
                error = 255.0
                if common.sum() >= 30:
                    apart = frame[window][common].astype(np.float32) - picture[common]
                    shift = np.clip(np.median(apart, axis=0), -12, 12)
                    picture += shift  # exposure
                    error = float(np.abs(apart - shift).mean())
                lenders.append((error, abs(s - t), picture, usable))
        picture, known = self._compose(lenders, hole, frame[window])
        out, seen = frame.copy(), np.ones(mask.shape, bool)
        out[window][hole] = picture[hole]
        seen[window] = known | ~hole
        if not seen.all():
            rest = (~seen).astype(np.uint8)[window]
            out[window] = cv2.inpaint(np.ascontiguousarray(out[window]), rest, 3, cv2.INPAINT_TELEA)
        return out, seen

    def _compose(
        self, lenders: list[tuple[float, int, np.ndarray, np.ndarray]], hole: np.ndarray, frame: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masked median over the lenders that agree best around the hole; later ones only fill what is left."""
        picture, known = frame.copy(), np.zeros(hole.shape, bool)
        lenders.sort(key=lambda lender: lender[:2])
        for start in range(0, len(lenders), self.samples):
            if (known | ~hole).all():
                break
            group = lenders[start : start + self.samples]
            stack = np.stack([np.where(l[3][..., None], l[2], np.nan) for l in group])
            todo = hole & ~known & np.any([l[3] for l in group], axis=0)
            if todo.any():
                picture[todo] = np.clip(np.nanmedian(stack[:, todo], axis=0) + 0.5, 0, 255).astype(np.uint8)
            known |= todo
        return picture, known
