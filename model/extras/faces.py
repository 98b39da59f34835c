"""Faces of a source that an edit is not about: where they are in a window, and whether they are kept.

Ours, not in the paper. A face is kept where the edit left its surroundings as they were, so that no face of
before looks out of a night, a painting or a person that is gone; and not at all where the words are about
people. Both rules need the detector (`model.extras.face_detector`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from enum import StrEnum
from functools import cache

import cv2
import numpy as np

from model.extras.face_detector import FILE, SAME, Box, detect, detector_is_there
from shards.errors import SettingError
from shards.media import resize, shrunk_size

LOG = logging.getLogger(__name__)
EVERY = 4  # frames from one search of all to the next; between them faces are looked for where they were
SIDE = 640  # pixels of the longer side that is searched
MARGIN = 32  # pixels around a change that are searched with it
LEAST = 2  # frames in which a face of a video was found; a single hit is an error most often
GROWN = 1.25  # of the detector's box, which ends at chin, temples and hair
AROUND = 1.9  # of the box; what lies between `GROWN` and this is a face's surroundings
CELLS = 16  # by which a side of the surroundings is averaged before it is compared
MOVED = 8  # levels of 255 by which most of the surroundings may differ and count as left alone

Track = dict[int, Box]  # of one face: its box by frame

ABOUT_PEOPLE = """
person people human man men woman women lady gentleman guy boy girl child children kid baby teenager adult
someone somebody everyone everybody anyone anybody he him his she her hers crowd pedestrian passer-by
passersby passerby cyclist biker rider driver passenger walker runner jogger skater surfer player athlete
dancer singer actor actress worker soldier officer policeman policewoman nurse doctor teacher student chef
waiter clown king queen prince princess bride groom father mother brother sister son daughter friend family
couple portrait selfie face facial head hair hairstyle haircut beard moustache mustache bald eye eyebrow
eyelash nose mouth lip teeth tooth tongue ear cheek chin jaw forehead neck skin wrinkle freckle scar tattoo
expression emotion smile smiling laugh laughing cry crying frown frowning wink winking blink look looking
talk talking speak speaking sing singing yawn yawning happy sad angry surprised age aged older younger
elderly gender identity makeup lipstick blush glasses sunglasses spectacles goggles hat cap helmet crown wig
headphones earring scarf veil turban
"""
WORDS = frozenset(ABOUT_PEOPLE.split())


class FacePolicy(StrEnum):
    """Which faces of a source are kept: none, those that an edit does not ask about, or all found."""

    NONE = "none"
    UNASKED = "unasked"
    ALL = "all"


def choose_faces(keep_faces: bool | None, keep: float | None, carry: bool | None) -> FacePolicy:
    """Which faces are kept, of what a caller asks for.

    Args:
        keep_faces: all, or none; None is those that the edit does not ask about, unless nothing is kept.
        keep, carry: see `model.extras.keeping.choose_keep`.

    Raises:
        SettingError: they contradict each other.
    """
    if keep_faces is None:
        return FacePolicy.NONE if keep == 0 or carry is False else FacePolicy.UNASKED
    if keep_faces and keep == 0:
        raise SettingError("keep_faces: needs keep above 0, which is how much of them is kept")
    return FacePolicy.ALL if keep_faces else FacePolicy.NONE


def policy_for(words: str, policy: FacePolicy, edits: bool) -> FacePolicy:
    """Which faces are kept in one edit.

    Where the detector is not there it says so, once, and keeps none.

    Args:
        words: of the instruction.
        policy: what was chosen.
        edits: there is a source whose faces could be kept.

    Raises:
        SettingError: all faces are to be kept and the detector is not there, or it is another one.
    """
    if policy is FacePolicy.NONE or not edits or (policy is FacePolicy.UNASKED and about_people(words)):
        return FacePolicy.NONE
    if detector_is_there():
        return policy
    line = f"{FILE} is missing; run: python -m curation models fetch"
    if policy is FacePolicy.ALL:
        raise SettingError(f"keep_faces: {line}")
    say_once(f"faces are not looked for: {line}")
    return FacePolicy.NONE


@cache
def say_once(line: str) -> None:
    """Warn, the first time that this process has the line to say."""
    LOG.warning("%s", line)


def about_people(words: str) -> bool:
    """Whether an instruction in English speaks of people, of their faces or of what is worn there."""
    said = re.findall(r"[a-z]+(?:-[a-z]+)?", words.lower())
    return any(word in WORDS or word.removesuffix("s") in WORDS for word in said)


def faces_to_keep(
    frames: np.ndarray,
    source: np.ndarray,
    change: np.ndarray | None,
    policy: FacePolicy,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """Where a window of an edit is to show the faces of its source: uint8 [T, H, W], 255 in ellipses.

    Faces are looked for around the change alone, since elsewhere nothing can have become of them.

    Args:
        frames: uint8 RGB [T, H, W, 3], the edit; source: of the same shape.
        change: bool [T, H, W], where they may differ; None is everywhere.
        policy: which faces are kept.
        inside: bool [T or 1, H, W], where the edit was asked for: `FacePolicy.ALL` alone keeps faces there.
    """
    marks = np.zeros(frames.shape[:3], np.uint8)
    place = _place_of(change, frames.shape[1:3])
    if policy is FacePolicy.NONE or place is None:
        return marks
    top, bottom, left, right = place
    before, after = source[:, top:bottom, left:right], frames[:, top:bottom, left:right]
    longest = SIDE / max(frames.shape[1:3]) * max(before.shape[1:3])  # as large as in the whole picture
    for track in find_faces(before, longest):
        if policy is FacePolicy.ALL or is_left_alone(after, before, track):
            draw(marks[:, top:bottom, left:right], track)
    if policy is FacePolicy.UNASKED and inside is not None:
        marks[np.broadcast_to(inside, marks.shape)] = 0
    return marks


def find_faces(frames: np.ndarray, longest: float = SIDE) -> list[Track]:
    """Faces of a window, with their boxes in all frames in which they were found or could be followed.

    Args:
        frames: uint8 RGB [T, H, W, 3].
        longest: pixels of the longer side at which they are searched; smaller frames are not enlarged.
    """
    height, width = frames.shape[1:3]
    rows, columns = shrunk_size((height, width), max(1, round(longest)))
    small = resize(frames, (rows, columns))
    tracks: list[Track] = []
    for start in range(0, len(small), EVERY):
        for found in detect(small[start]):
            if not any(overlap(found.box, track[start]) > SAME for track in tracks if start in track):
                ahead = _follow(small, range(start + 1, len(small)), found.box)
                tracks.append(
                    {start: found.box} | ahead | _follow(small, range(start - 1, -1, -1), found.box)
                )
    down, across = height / rows, width / columns
    return [
        {t: (x * across, y * down, w * across, h * down) for t, (x, y, w, h) in track.items()}
        for track in tracks
        if len(track) >= min(LEAST, len(small))
    ]


def is_left_alone(frames: np.ndarray, source: np.ndarray, track: Track) -> bool:
    """Whether most of what surrounds a face is in an edit as it was: hair, neck, and what is behind them.

    Args:
        frames: uint8 RGB [T, H, W, 3], the edit; source: of the same shape.
        track: the face.
    """
    gaps = []
    for t, (x, y, w, h) in track.items():
        middle = np.array([y + h / 2, x + w / 2])
        reach = np.array([h, w]) / 2 * AROUND
        (top, left), (bottom, right) = (
            np.clip(np.rint(edge).astype(int), 0, frames.shape[1:3])
            for edge in (middle - reach, middle + reach)
        )
        if bottom <= top or right <= left:
            continue
        ours, theirs = (
            cv2.resize(f[t, top:bottom, left:right], (CELLS, CELLS), interpolation=cv2.INTER_AREA).astype(int)
            for f in (frames, source)
        )
        cells = (np.arange(CELLS) + 0.5) / CELLS
        across = (left + cells * (right - left) - middle[1]) / (w / 2)
        down = (top + cells * (bottom - top) - middle[0]) / (h / 2)
        away = np.hypot(down[:, None], across)
        ring = (away > GROWN) & (away < AROUND)
        if ring.any():
            gaps.append(float(np.median(np.abs(ours - theirs).max(-1)[ring])))
    return bool(gaps) and float(np.median(gaps)) <= MOVED


def draw(marks: np.ndarray, track: Track) -> None:
    """Fill the ellipses of a face in marks uint8 [T, H, W]."""
    for t, (x, y, w, h) in track.items():
        centre = round(x + w / 2), round(y + h / 2)
        axes = round(w / 2 * GROWN), round(h / 2 * GROWN)
        marks[t] = cv2.ellipse(np.ascontiguousarray(marks[t]), centre, axes, 0, 0, 360, (255,), -1)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(0.0, across) * max(0.0, down)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def _place_of(change: np.ndarray | None, size: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Top, bottom, left and right of a change with a margin, rounded; None where nothing changed."""
    height, width = size
    if change is None:
        return 0, height, 0, width
    rows, columns = (np.flatnonzero(change.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    if not len(rows):
        return None
    margin = round(MARGIN * max(1.0, max(size) / SIDE))
    top, left = (max(0, int(side[0]) - margin) for side in (rows, columns))
    bottom, right = min(height, int(rows[-1]) + margin + 1), min(width, int(columns[-1]) + margin + 1)
    return top, bottom, left, right


def _follow(frames: np.ndarray, times: Iterable[int], box: Box) -> Track:
    """Boxes of a face by frame, until it is not found where it was in the one before."""
    track: Track = {}
    for t in times:
        x, y, w, h = box
        reach = max(w, h)
        left, top = max(0, round(x - reach)), max(0, round(y - reach))
        around = frames[t, top : max(0, round(y + h + reach)), left : max(0, round(x + w + reach))]
        near = []
        for found in detect(around) if around.size else []:
            there = (found.box[0] + left, found.box[1] + top, *found.box[2:])
            away = np.hypot(there[0] - x + (there[2] - w) / 2, there[1] - y + (there[3] - h) / 2)
            if away < reach:
                near.append((float(away), there))
        if not near:
            break
        box = min(near)[1]
        track[t] = box
    return track
