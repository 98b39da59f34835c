"""Background of a moving camera: other frames of the clip registered by homographies, and their median.

Right for a camera that turns or zooms, and for scenes that are nearly flat; what does not register shows as
noise in the plate, and the gates refuse it.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from curation.core.interfaces import Plate
from curation.ops.masks import close, dilate, disc, large_parts
from curation.vlm.interface import Backend
from shards.frames import evenly_spaced

Anchors = list[np.ndarray | None]


class HomographyPlates:
    """For each pixel the median of the `lenders` nearest frames, within `reach`, that show what is behind."""

    license = "Apache-2.0 (OpenCV)"

    def __init__(
        self,
        lenders: int = 5,
        samples: int = 15,
        reach: int = 40,
        corners: int = 600,
        tolerance: int = 22,
        parallax: int = 8,
    ) -> None:
        self.lenders, self.samples, self.reach = lenders, samples, reach
        self.corners, self.tolerance, self.parallax = corners, tolerance, parallax

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        names = ("lenders", "samples", "reach", "corners", "tolerance", "parallax")
        return Backend(
            "homography-median", "", cv2.__version__, {name: getattr(self, name) for name in names}
        )

    def plates(self, frames: np.ndarray) -> Callable[[int], Plate | None]:
        """The plate of any frame of uint8 [T, H, W, 3], made on demand; None where it does not register."""
        to_anchor = self._register(frames)
        moving: list[np.ndarray] = []
        made: dict[int, Plate | None] = {}

        def plate(t: int) -> Plate | None:
            if not moving:
                nothing = np.ones(frames.shape[1:3], bool)  # a frame without registration lends no pixel
                registered = [h is not None for h in to_anchor]
                moving.extend(
                    self._moving(frames, to_anchor, s) if ok else nothing for s, ok in enumerate(registered)
                )
            if t not in made:
                made[t] = self._plate(frames, to_anchor, moving, t)
            return made[t]

        return plate

    def _register(self, frames: np.ndarray) -> Anchors:
        """Homographies float64 [3, 3] from each frame to the middle one: chained, then refined against it."""
        greys = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
        middle = len(frames) // 2
        found: Anchors = [None] * len(frames)
        found[middle] = np.eye(3)
        for step, stop in ((1, len(frames)), (-1, -1)):
            for t in range(middle + step, stop, step):
                before = found[t - step]
                fit = self._match(greys[t], greys[t - step], None)
                if before is None or fit is None:
                    break  # nothing beyond this frame can be registered
                found[t] = self._refine(greys, t, middle, before @ fit)
        return found

    def _match(self, a: np.ndarray, b: np.ndarray, valid: np.ndarray | None) -> np.ndarray | None:
        """Homography from picture `a` to `b` by Lucas-Kanade corners and RANSAC; None without a good fit."""
        points = cv2.goodFeaturesToTrack(a, self.corners, 0.005, 6, mask=valid)
        if points is None or len(points) < 24:
            return None
        moved, ok, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]
            a, b, points, None, winSize=(15, 15), maxLevel=3
        )
        good = ok.ravel() == 1
        if good.sum() < 24:
            return None
        cv2.setRNGSeed(0)  # RANSAC draws from OpenCV's own generator
        fit, inliers = cv2.findHomography(points[good], moved[good], cv2.RANSAC, 0.8)
        return fit if fit is not None and inliers.mean() > 0.35 else None

    def _refine(self, greys: list[np.ndarray], t: int, middle: int, guess: np.ndarray) -> np.ndarray:
        """Take out the drift of the chain: match the frame, warped by its guess, against the middle frame."""
        height, width = greys[t].shape
        warped = cv2.warpPerspective(greys[t], guess, (width, height), flags=cv2.INTER_LINEAR)
        full = np.full((height, width), 255, np.uint8)
        valid = cv2.warpPerspective(full, guess, (width, height), flags=cv2.INTER_NEAREST)
        if (valid > 0).mean() < 0.4:
            return guess
        fit = self._match(warped, greys[middle], cv2.erode(valid, np.ones((15, 15), np.uint8)))
        if fit is None:
            return guess
        corners = np.array([[[0, 0]], [[width, 0]], [[0, height]], [[width, height]]], np.float64)
        shift = np.abs(cv2.perspectiveTransform(corners, fit) - corners).max()
        return fit @ guess if shift < 6 else guess

    def _warped(self, frames: np.ndarray, to_anchor: Anchors, s: int, t: int) -> np.ndarray:
        """Frame `s` as frame `t` would show it, uint8 [H, W, 3]; outside of it frame `t` itself."""
        into, outof = to_anchor[t], to_anchor[s]
        assert into is not None  # callers ask for registered frames only
        assert outof is not None
        return cv2.warpPerspective(
            frames[s],
            np.linalg.inv(into) @ outof,
            frames.shape[2:0:-1],
            dst=frames[t].copy(),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_TRANSPARENT,
        )

    def _moving(self, frames: np.ndarray, to_anchor: Anchors, t: int) -> np.ndarray:
        """Where frame `t` shows something that moves by itself, bool [H, W]: its hull, generously.

        First what differs from the median of registered frames; then, of that, what is not found again
        within `parallax` pixels in frames shortly before or after: near things shift against the background,
        a person who walks is gone.
        """
        near = self._near(to_anchor, t, self.reach)
        chosen = sorted({near[i] for i in evenly_spaced(len(near), self.samples)})
        image = _median(np.stack([self._warped(frames, to_anchor, s, t) for s in chosen]))
        differs: np.ndarray = _difference(frames[t], image) > self.tolerance
        here = cv2.blur(frames[t], (3, 3))
        found_again = np.zeros(differs.shape, np.int32)
        steps = [s for s in (t - 14, t - 9, t + 9, t + 14) if s in near]
        for s in steps:
            other = cv2.blur(self._warped(frames, to_anchor, s, t), (3, 3))
            best = self._nearest_shift(here, other)
            found_again += cv2.blur(best, (5, 5)) < 0.6 * self.tolerance
        gone = found_again < max(1, (len(steps) + 1) // 2)
        moves: np.ndarray = differs & gone
        moves = cv2.morphologyEx(moves.astype(np.uint8), cv2.MORPH_OPEN, disc(1))
        moves = large_parts(close(moves > 0, 4), 60)
        # Dark clothes before a dark wall leave gaps: take the hull of what lies close together.
        hull = np.zeros(moves.shape, np.uint8)
        outlines, _ = cv2.findContours(
            dilate(moves, 10).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        for outline in outlines:
            inside = np.zeros(moves.shape, np.uint8)
            cv2.drawContours(inside, [outline], -1, (1,), cv2.FILLED)
            points = cv2.findNonZero((moves & (inside > 0)).astype(np.uint8))
            cv2.fillConvexPoly(hull, cv2.convexHull(points), (1,))
        return dilate(hull > 0, 5)

    def _nearest_shift(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The least `_difference` of uint8 [H, W, 3] `a` to `b` moved by up to `parallax` pixels sideways.

        Black comes in from the sides. By planes: OpenCV takes the largest of three planes in a tenth of the
        time that NumPy takes for the last axis.
        """
        width = a.shape[1]
        sides = (0, 0, self.parallax, self.parallax)
        wide = cv2.copyMakeBorder(b, *sides, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        planes = list(zip(cv2.split(a), cv2.split(wide), strict=True))
        best: np.ndarray = np.full(a.shape[:2], 255, np.uint8)
        for start in range(2 * self.parallax + 1):
            gaps = [cv2.absdiff(p, q[:, start : start + width]) for p, q in planes]
            best = cv2.min(best, cv2.max(cv2.max(gaps[0], gaps[1]), gaps[2]))
        return best

    def _near(self, to_anchor: Anchors, t: int, reach: int) -> list[int]:
        low, high = max(0, t - reach), min(len(to_anchor), t + reach + 1)
        return [s for s in range(low, high) if to_anchor[s] is not None]

    def _plate(
        self, frames: np.ndarray, to_anchor: Anchors, moving: list[np.ndarray], t: int
    ) -> Plate | None:
        """The nearest `lenders` frames in time that show the background at a pixel; their median."""
        into = to_anchor[t]
        if into is None:
            return None
        height, width = frames.shape[1:3]
        held = np.repeat(frames[t][None], self.lenders, axis=0)
        count = np.zeros((height, width), np.int32)
        order = sorted(self._near(to_anchor, t, self.reach), key=lambda s: (abs(s - t), s))
        for s in order:
            outof = to_anchor[s]
            assert outof is not None  # `_near` gives registered frames only
            warp = np.linalg.inv(into) @ outof
            hidden = cv2.warpPerspective(moving[s].astype(np.uint8), warp, (width, height), borderValue=(1,))
            free = (hidden == 0) & (count < self.lenders)
            held[count[free], *np.nonzero(free)] = self._warped(frames, to_anchor, s, t)[free]
            count += free
            if (count >= self.lenders).all():
                break
        for k in range(1, self.lenders):  # too few lenders: the last one stands in for the others
            held[k] = np.where((count <= k)[..., None] & (count > 0)[..., None], held[k - 1], held[k])
        image = _median(held)
        apart = np.stack([_difference(h, image) for h in held])
        agreement = (apart <= self.tolerance).mean(0) * np.minimum(1, count / self.lenders)
        # Where nothing moves by itself no object is looked for: it would be parallax.
        noise = np.where(moving[t], 0.5 * apart.max(0), 255).astype(np.float32)
        return Plate(image, noise, agreement.astype(np.float32), gap=8)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Largest difference over the channels of two uint8 [H, W, 3], uint8 [H, W]."""
    red, green, blue = cv2.split(cv2.absdiff(a, b))
    return cv2.max(cv2.max(red, green), blue)


def _median(stack: np.ndarray) -> np.ndarray:
    """Lower median over the first axis of uint8 [N, H, W, 3]."""
    rank = (len(stack) - 1) // 2
    return np.partition(stack, rank, axis=0)[rank]
