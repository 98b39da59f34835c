"""Defects of edit pairs, each of which a person sees at a glance; `curation.quality.plant` plants them.

A kind is a function of a pair and of chance that gives the changed pair, or None where it would hardly show.
Strengths were chosen to be seen, before any signal was looked at.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from shards.reader import Record
from shards.sample import Sample, tags_of

KINDS = (
    "leftover",
    "colour_shift",
    "flicker",
    "blur",
    "wrong_object",
    "frozen",
    "wrong_instruction",
    "swapped",
)
LEFT_BEHIND = 16.0  # levels of 255 by which what is left behind differs from what should be there, at least
SHIFT, SHIFTED = (9.0, 14.0), 7.0  # CIELAB distance of a colour shift, as drawn, and at least as it came out
FLICKER = (14.0, 22.0)  # levels by which a frame is lighter or darker than it was
BLUR, BLURRED = 90.0, 10.0  # sigma is the height over this; levels by which the sharpest 5 % change at least
STUCK, MOVES = 24.0, 0.003  # a frozen picture differs by so many levels in this share of a frame at least
AREA = 0.004  # share of the picture that the mask covers at least, where a defect lies inside it
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black", "grey", "gray", "pink")
SHADES = ("brown", "cyan", "turquoise", "beige", "golden", "silver", "dark", "lime", "violet", "teal")
STYLES = ("watercolour", "watercolor", "pencil", "cartoon", "poster", "sepia", "night")


@dataclass(frozen=True)
class Pair:
    """A pair's pixels: uint8 [T, H, W, 3]; `mask` bool [T, H, W] where the sample has one of that length."""

    record: Record
    source: np.ndarray
    target: np.ndarray
    mask: np.ndarray | None
    shrink: Shrink

    @property
    def sample(self) -> Sample:
        """The sample."""
        return self.record.sample


@dataclass(frozen=True)
class Planted:
    """A changed pair: its target, its text, and whether its source takes the target's place."""

    target: np.ndarray
    text: str
    how: str = ""
    swapped: bool = False


def names_of(sample: Sample) -> tuple[str, str] | None:
    """The elements (source, target) of a pair, the source being the first of its kind; None for none."""
    target = sample.targets[0]
    kind = sample.media[target].kind
    for name in tags_of(sample.text):
        shape, wanted = sample.media[name], sample.media[target]
        if name != target and shape.kind == kind and shape.frames == wanted.frames:
            return (name, target) if (shape.height, shape.width) == (wanted.height, wanted.width) else None
    return None


@dataclass(frozen=True)
class Shrink:
    """How pairs are made small first, so that many of them take little time.

    Attributes:
        height: pixels, never enlarged; frames: at most so many, evenly spaced. 0 leaves them as they are.
    """

    height: int = 0
    frames: int = 0

    def step(self, frames: int) -> int:
        """Every so-manieth frame is taken."""
        return max(1, (frames - 1) // (self.frames - 1)) if self.frames > 1 else 1

    def __call__(self, video: np.ndarray) -> np.ndarray:
        """uint8 [T, H, W, 3] or bool [T, H, W] made small; even sides."""
        video = video[:: self.step(len(video))][: self.frames or None]
        height, width = video.shape[1:3]
        if not 0 < self.height < height:
            return video
        size = round(width * self.height / height / 2) * 2, self.height
        if video.dtype == bool:
            return np.stack(
                [cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in video]
            )
        return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in video])


AS_IT_IS = Shrink()


def read_pair(record: Record, shrink: Shrink = AS_IT_IS) -> Pair:
    """The pixels of a sample that `names_of` calls a pair."""
    source, target = (shrink(record.pixels(name)) for name in names_of(record.sample) or ())
    mask = shrink(record.mask("mask")) if "mask" in record.sample.media else None
    if mask is not None and mask.shape != target.shape[:3]:
        mask = None
    return Pair(record, source, target, mask, shrink)


# ---- the defects ----------------------------------------------------------------------------------------


def leftover(pair: Pair, random_: random.Random) -> Planted | None:
    """Half of the removed object is still there, or all of it as a ghost."""
    if pair.sample.task != "object_removal" or pair.mask is None or pair.mask.mean() < AREA:
        return None
    how = random_.choice(["ghost", "upper half", "lower half", "left half", "right half"])
    weight = np.zeros(pair.mask.shape, np.float32)
    for t, mask in enumerate(pair.mask):
        rows, columns = np.nonzero(mask)
        if not len(rows):
            continue
        y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
        middle, centre = np.median(rows), np.median(columns)
        sides = {
            "upper half": y < middle,
            "lower half": y >= middle,
            "left half": x < centre,
            "right half": x >= centre,
        }
        kept = cv2.dilate((mask & sides.get(how, mask)).astype(np.uint8), np.ones((3, 3), np.uint8))
        weight[t] = cv2.GaussianBlur(kept.astype(np.float32), (0, 0), 0.7) * (0.65 if how == "ghost" else 1.0)
    target = blend(pair.target, pair.source, weight)
    seen = weight > 0.5
    apart = np.abs(target.astype(np.float32) - pair.target).mean(-1)
    if seen.mean() < AREA / 3 or apart[seen].mean() < LEFT_BEHIND:
        return None
    return Planted(target, pair.sample.text, how)


def colour_shift(pair: Pair, random_: random.Random) -> Planted | None:
    """All that should have stayed has another colour or brightness."""
    if pair.mask is None:
        return None
    length, toward = (
        random_.uniform(*SHIFT),
        np.array([random_.gauss(0, 1) for _ in range(3)], np.float32),
    )
    shift = toward / np.linalg.norm(toward) * length
    lab = np.stack([cv2.cvtColor(f.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for f in pair.target])
    moved = np.stack([cv2.cvtColor(f, cv2.COLOR_LAB2RGB) for f in lab + shift])
    outside = 1 - soft(pair.mask, 3)
    target = blend(pair.target, (moved.clip(0, 1) * 255).round().astype(np.uint8), outside)
    after = np.stack([cv2.cvtColor(f.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for f in target])
    if np.linalg.norm((after - lab)[outside > 0.99].mean(0)) < SHIFTED:  # black or white stays what it is
        return None
    return Planted(target, pair.sample.text)


def flicker(pair: Pair, random_: random.Random) -> Planted | None:
    """Frames are lighter and darker in turn, all over the picture or in the edited region alone."""
    if len(pair.target) < 5:
        return None
    how = random_.choice(["whole", "inside"])
    if how == "inside" and (pair.mask is None or pair.mask.mean() < AREA):
        how = "whole"
    levels, before = [], 0
    for _ in pair.target:
        before = random_.choice([sign for sign in (-1, 0, 1) if sign != before])
        levels.append(before * random_.uniform(*FLICKER))
    lighter = pair.target.astype(np.float32) + np.array(levels, np.float32)[:, None, None, None]
    where = (
        soft(pair.mask, 3) if how == "inside" and pair.mask is not None else np.ones(pair.target.shape[:3])
    )
    return Planted(
        blend(pair.target, lighter.clip(0, 255).round().astype(np.uint8), where), pair.sample.text, how
    )


def blur(pair: Pair, random_: random.Random) -> Planted | None:
    """The target is out of focus, all of it or the edited region and what is around it."""
    how = random_.choice(["whole", "around the edit"])
    sigma = max(1.5, pair.target.shape[1] / BLUR)
    dull = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in pair.target])
    where = np.ones(pair.target.shape[:3], np.float32)
    if how != "whole":
        if pair.mask is None or pair.mask.mean() < AREA:
            return None
        where = soft(pair.mask, pair.target.shape[1] // 16)
    target = blend(pair.target, dull, where)
    apart = np.abs(target.astype(np.float32) - pair.target).mean(-1)[where > 0.5]
    if np.percentile(apart, 95) < BLURRED:  # nothing there that could be sharp
        return None
    return Planted(target, pair.sample.text, how)


def frozen(pair: Pair, random_: random.Random) -> Planted | None:
    """The picture stands still, from the first frame on or from a third of the clip on."""
    how, first = random_.choice([("all", 0), ("from a third on", len(pair.target) // 3)])
    target = pair.target.copy()
    target[first:] = target[first]
    apart = np.abs(target.astype(np.float32) - pair.target).mean(-1) >= STUCK
    if len(target) < 5 or max(apart.mean((1, 2))) < MOVES:  # nothing moves anyway
        return None
    return Planted(target, pair.sample.text, how)


def swapped(pair: Pair, random_: random.Random) -> Planted | None:
    """Source and target have changed places; the instruction is as it was."""
    return Planted(pair.target, pair.sample.text, swapped=True)


def wrong_object(pair: Pair, random_: random.Random, others: Sequence[Record]) -> Planted | None:
    """The right thing was done to another object of the same video; the mask is that of what was asked."""
    source, target = names_of(pair.sample) or ("", "")
    sha256 = pair.sample.media[source].sha256
    for other in others:
        if other.sample.media[source].sha256 == sha256:
            changed = pair.shrink(other.pixels(target))
            mask, masked = pair.mask, other.sample.media.get("mask")
            if mask is None or masked is None or not np.array_equal(pair.shrink(other.mask("mask")), mask):
                return Planted(changed, pair.sample.text)
    return None


def wrong_instruction(pair: Pair, random_: random.Random, others: Sequence[Record]) -> Planted | None:
    """The pair is right, and the words are those of another pair of its task, which do not fit."""
    own = named(pair.sample.text)
    if "<mask" in pair.sample.text:
        return None
    for other in others:
        words = named(other.sample.text)
        fits = own[-1:] == words[-1:] if "replacement" in pair.sample.task else set(own) & set(words)
        alike = tags_of(other.sample.text) == tags_of(pair.sample.text)
        if alike and own and words and not fits:
            return Planted(pair.target, other.sample.text)
    return None


ALONE = {
    "leftover": leftover,
    "colour_shift": colour_shift,
    "flicker": flicker,
    "blur": blur,
    "frozen": frozen,
    "swapped": swapped,
}
WITH_OTHERS = {"wrong_object": wrong_object, "wrong_instruction": wrong_instruction}


def named(text: str) -> list[str]:
    """Colours and styles that a text names, in its order."""
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word in COLOURS + SHADES + STYLES]


def soft(mask: np.ndarray, radius: int) -> np.ndarray:
    """A mask grown by so many pixels, with a soft edge, float32 [T, H, W] of 0 to 1."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    grown = [cv2.dilate(one.astype(np.uint8), kernel).astype(np.float32) for one in mask]
    return np.stack([cv2.GaussianBlur(one, (0, 0), 1.5) for one in grown])


def blend(frames: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Frames with `other` laid over them where `weight` [T, H, W] says so, uint8."""
    share = weight[..., None].astype(np.float32)
    mixed = frames * (1 - share) + other * share
    return np.asarray(mixed.round().clip(0, 255), np.uint8)
