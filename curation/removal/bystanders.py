"""Who else is in the window of a person: all tracks, as far as they are followed, and strangers to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from curation.ops.appearance import Person, middle_of
from curation.ops.masks import covered, iou
from curation.removal.stages import FrameDetections, Look, MeasuredTrack

# Overlaps of boxes: the same person twice, and a box that a track explains.
SAME, KNOWN, INSIDE = 0.4, 0.3, 0.6


def people_in(
    tracks: Sequence[MeasuredTrack],
    detected: Sequence[FrameDetections],
    track: int,
    first: int,
    boxes: Sequence[Sequence[float]],
) -> tuple[Person, list[Person]]:
    """The person of a track in the window of its `boxes` [T, 4] from frame `first` on, and all others there.

    A detection that belongs to no track is somebody of unknown colours, seen in one frame.
    """
    stop = first + len(boxes)
    own = next(one for one in tracks if one.id == track)
    person = _person(np.arange(len(boxes)), np.array(boxes, np.float32), own.looks, first, stop)
    others = []
    for other in tracks:
        if other.id == track:
            continue
        seen = dict(box for box in _boxes(other) if first <= box[0] < stop)
        if not seen:
            continue
        frames = np.array(sorted(seen)) - first
        places = np.array([seen[t + first] for t in frames.tolist()], np.float32)
        one = _person(frames, places, other.looks, first, stop)
        if not _is_same(person, one):
            others.append(one)
    return person, [*others, *_strangers([person, *others], detected, first, stop)]


def _boxes(track: MeasuredTrack) -> Iterator[tuple[int, Sequence[float]]]:
    """Frames and boxes of a track and of what it was followed to."""
    yield from enumerate(track.boxes, start=track.start)
    yield from ((track.start - 1 - k, one.box) for k, one in enumerate(track.before))
    yield from ((track.start + len(track.boxes) + k, one.box) for k, one in enumerate(track.after))


def _person(frames: np.ndarray, boxes: np.ndarray, looks: Sequence[Look], first: int, stop: int) -> Person:
    near = [look for look in looks if first <= look.frame < stop] or list(looks)
    upper = middle_of([look.upper for look in near if look.upper is not None])
    return Person(frames, boxes, upper, middle_of([look.lower for look in near if look.lower is not None]))


def _is_same(person: Person, other: Person) -> bool:
    """Whether two tracks follow one person: their boxes lie over each other wherever both are."""
    _, mine, theirs = np.intersect1d(person.frames, other.frames, return_indices=True)
    if not len(mine):
        return False
    shared = [iou(person.boxes[[i]], other.boxes[[j]])[0, 0] for i, j in zip(mine, theirs, strict=True)]
    return float(np.median(shared)) > SAME


def _strangers(
    people: Sequence[Person], detected: Sequence[FrameDetections], first: int, stop: int
) -> list[Person]:
    found = []
    for seen in detected:
        if not first <= seen.frame < stop:
            continue
        known = [one.boxes[one.frames == seen.frame - first] for one in people]
        there = np.concatenate([np.zeros((0, 4), np.float32), *known])
        for box in np.array(seen.boxes, np.float32).reshape(-1, 1, 4):
            explained = len(there) and (
                iou(box, there).max() > KNOWN
                or covered(box, there).max() > INSIDE
                or covered(there, box).max() > INSIDE
            )
            if not explained:
                found.append(Person(np.array([seen.frame - first]), box))
    return found
