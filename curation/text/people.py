"""Words for one person among others: descriptions that fit nobody else, instructions and captions with them.

A description is a set of features (colours, side, walk, rank, distance). It is used only if each feature
surely holds for the person and, for everybody else in the window, one of them surely does not; in between,
margins keep out what two people could see differently. Nothing is said that was not measured: no garment but
"top" and "trousers", no sex, no age.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curation.ops.appearance import Lab, Person
from curation.text.templates import draw, name_of_lab

SURE, DOUBT = (
    3.0,
    9.0,
)  # CIELAB: a name holds if it does all around; it may be said if it does anywhere around
SIDES = {  # surely, at most: shares of the picture's width
    "on the left": ((0.0, 0.36), (0.0, 0.42)),
    "in the middle": ((0.4, 0.6), (0.33, 0.67)),
    "on the right": ((0.64, 1.0), (0.58, 1.0)),
}
WALKS, MAY_WALK = 0.5, 0.12  # body heights along the picture, in a window
STANDS, MAY_STAND = 0.12, 0.45
CLASH: tuple[set[str], ...] = ({"rank", "side"},)  # groups that read badly together
REMOVE = (
    "Remove {what}.",
    "Remove {what} from the video.",
    "Erase {what}.",
    "Erase {what} from the video.",
    "Take {what} out of the scene.",
    "Take {what} out of the video.",
    "Delete {what} and keep everything else as it is.",
    "Delete {what} from every frame.",
    "Make {what} disappear.",
    "Make {what} vanish and leave the rest untouched.",
    "Get rid of {what}.",
    "Cut {what} out and fill in the background.",
    "Show the scene without {what}.",
    "I do not want to see {what}; please remove this person.",
)
ADD = (
    "Add {what}.",
    "Add {what} to the video.",
    "Add {what} to the scene.",
    "Insert {what} into the video.",
    "Insert {what} and change nothing else.",
    "Put {what} into the scene.",
    "Put {what} into the video.",
    "Let {what} appear and keep everything else as it is.",
    "Let there be {what}.",
    "Show the scene with {what} in it.",
    "Place {what} in this scene.",
    "I would like to see {what} in this video.",
)
REMOVE_MASKED = (
    "Remove the person marked in <mask>.",
    "Erase the person that <mask> marks.",
    "Take the person out of the region marked in <mask>.",
    "Use <mask> to remove {what}.",
    "Use <mask> to erase {what} from the video.",
    "Take {what}, marked in <mask>, out of the scene.",
    "Delete {what}; <mask> shows where.",
    "Remove {what}, whom <mask> marks.",
    "Make {what}, marked in <mask>, disappear.",
    "<mask> marks {what}: remove this person.",
    "Fill the region of <mask> with the background, so that {what} is gone.",
    "Erase {what} inside <mask> and leave the rest untouched.",
)
ADD_MASKED = (
    "Add a person in the region marked in <mask>.",
    "Insert a person where <mask> marks.",
    "Add {what} where <mask> marks.",
    "Add {what} in the region marked in <mask>.",
    "Use <mask> to insert {what}.",
    "Use <mask> to add {what} to the scene.",
    "Put {what} into the region marked in <mask>.",
    "Insert {what}; <mask> shows where.",
    "Fill <mask> with {what}.",
    "Let {what} appear inside <mask>.",
    "Place {what} where <mask> is white.",
    "<mask> marks the place: add {what} there.",
)


class Feature(NamedTuple):
    """Something that can be said of a person.

    Attributes:
        group: of which one description uses one feature at most.
        words: what follows "person"; of a rank, what stands in its place ("leftmost person").
        others: for each of the others, whether it may be said of them too.
    """

    group: str
    words: str
    others: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Description:
    """Words for one person.

    Attributes:
        exact: phrases without article that fit nobody else in the window, the shortest first.
        plain: phrases without article that are true, whether or not they fit others too, and can follow "a".
        others: the same, one for each of the others whose looks are sure; `more` when there are any further.
    """

    exact: list[str]
    plain: list[str]
    others: list[str]
    more: bool

    def name(self, key: str) -> str:
        """One phrase, for other tasks about the same person; one that fits nobody else if there is."""
        phrases = self.exact or self.plain[-1:] or ["person"]
        return draw(phrases, key, "name")


def describe_person(
    person: Person, others: Sequence[Person], size: tuple[int, int], frames: int
) -> Description:
    """Words for a person in a window of so many frames of `size` (height, width) with these others."""
    features = [
        *_looks(person, others),
        *_sides(person, others, size[1]),
        *_walks(person, others, frames),
    ]
    relations, ordinals = _relations(person, others), _ordinals(person, others)
    exact: list[str] = []
    plain: list[str] = []
    for count in range(4):
        for chosen in itertools.combinations(features, count):
            if len({feature.group for feature in chosen}) < count:
                continue
            rivals = [i for i in range(len(others)) if all(feature.others[i] for feature in chosen)]
            words = {feature.group: feature.words for feature in chosen}
            if "looks" in words:
                plain += _phrases(words)
            if not rivals:
                exact += _phrases(words)
            elif count < 3:
                apart = [r for r in relations if not any(r.others[i] for i in rivals)]
                for relation in [*apart, *(ordinals if not count else [])]:
                    exact += _phrases({**words, relation.group: relation.words})
    told = [_looks_of(one) for one in others if len(one.frames) > frames / 2]
    known = [words for words in told if words]
    return Description(exact, plain, known[:2], len(others) > len(known[:2]))


def instruction(key: str, description: Description, direction: str, masked: bool) -> str:
    """The instruction, without media tags other than <mask>; "" where nothing fits the person alone.

    `direction` is "removal" or "addition". What is added needs no words that fit nobody else, but they are
    taken where there are any.
    """
    removes = direction == "removal"
    forms = {
        ("removal", False): REMOVE,
        ("removal", True): REMOVE_MASKED,
        ("addition", False): ADD,
        ("addition", True): ADD_MASKED,
    }[direction, masked]
    phrases = description.exact if removes else _for_addition(description)
    if not phrases:
        forms = tuple(form for form in forms if "{what}" not in form)
    if not forms:
        return ""
    what = draw(phrases, key, "phrase") if phrases else ""
    return draw(forms, key, "form").format(what=f"{'the' if removes else 'a'} {what}")


def captions(source: str, target: str, description: Description) -> tuple[str, str]:
    """Captions of the video with the person and of the one without; `source` and `target` begin them."""
    person = f"a {description.plain[-1]}" if description.plain else "a person"
    rest = [f"a {words}" for words in description.others]
    more = ["other people"] if description.more else []
    return _sentence(source, [person, *rest, *more]), _sentence(
        target, [*rest, *(more if rest else ["people"] if more else [])]
    )


def _sentence(setting: str, people: list[str]) -> str:
    if not people:
        return f"{setting}, with nobody in it."
    listed = people[0] if len(people) == 1 else ", ".join(people[:-1]) + f" and {people[-1]}"
    return f"{setting}, with {listed}."


def _for_addition(description: Description) -> list[str]:
    unique = [words for words in description.exact if words in set(description.plain)]
    told = [words for words in description.plain if words.count(" ") > 4]  # more than a colour
    return unique or told or description.plain


def _phrases(words: Mapping[str, str]) -> list[str]:
    """The noun phrases of features by group, in natural orders; none of those that read badly together."""
    if any(pair <= words.keys() for pair in CLASH):
        return []
    head, last = words.get("rank", "person"), words.get("depth", words.get("anchor", ""))
    side, looks, walk = words.get("side", ""), words.get("looks", ""), words.get("walk", "")
    orders: list[tuple[str, ...]] = [(head, side, looks, walk, last)]
    if side and looks and not walk and not last:
        orders.append((head, looks, side))
    if walk and looks and not side and not last:
        orders.append((head, f"who {_finite(walk)}", looks) if "rank" not in words else (head, walk, looks))
    return [" ".join(part for part in order if part) for order in orders]


def _finite(walk: str) -> str:
    return walk.replace("walking", "walks").replace("standing", "stands")


def _relations(person: Person, others: Sequence[Person]) -> list[Feature]:
    """What sets a person apart from others: `Feature.others` says from whom it does not.

    "the leftmost person in dark clothes" is the leftmost of all who may be said to wear them.
    """
    found = [
        Feature(group, words, tuple(not holds(person, other) for other in others))
        for group, relations in (("rank", RANKS), ("depth", DEPTHS))
        for words, holds in relations.items()
    ]
    return found + _anchors(person, others)


def _apart(
    one: Person, other: Person, gap: Callable[[Person, Person, np.ndarray, np.ndarray], np.ndarray]
) -> bool:
    """Whether a gap is positive in all frames in which both are."""
    _, mine, theirs = np.intersect1d(one.frames, other.frames, return_indices=True)
    return bool(len(mine) > 0 and (gap(one, other, mine, theirs) > 0).all()) or len(mine) == 0


def _left_of(a: Person, b: Person) -> bool:
    margin = 0.5 * max(a.width, b.width)
    return _apart(a, b, lambda p, q, i, j: q.x[j] - p.x[i] - margin)


def _nearer(a: Person, b: Person) -> bool:
    margin = 0.2 * min(a.height, b.height)
    return _apart(a, b, lambda p, q, i, j: p.feet[i] - q.feet[j] - margin)


RANKS: dict[str, Callable[[Person, Person], bool]] = {
    "leftmost person": _left_of,
    "rightmost person": lambda a, b: _left_of(b, a),
}
DEPTHS: dict[str, Callable[[Person, Person], bool]] = {
    "closest to the camera": _nearer,
    "farthest from the camera": lambda a, b: _nearer(b, a),
}


def _ordinals(person: Person, others: Sequence[Person]) -> list[Feature]:
    """ "second person from the left" and "from the right", of at least three whose order is clear."""
    left = [_left_of(other, person) for other in others]
    right = [_left_of(person, other) for other in others]
    always = [len(np.intersect1d(person.frames, other.frames)) == len(person.frames) for other in others]
    if len(others) < 2 or not all(a or b for a, b in zip(left, right, strict=True)):
        return []
    told = []
    for side, words in ((left, "left"), (right, "right")):
        if sum(side) == 1 and always[side.index(True)]:
            told.append(Feature("rank", f"second person from the {words}"))
    return told


@functools.lru_cache(maxsize=4096)
def _names_near(lab: Lab, radius: float) -> frozenset[str]:
    steps = itertools.product((-radius, 0, radius), repeat=3)
    return frozenset(name_of_lab((lab[0] + x, lab[1] + y, lab[2] + z)) for x, y, z in steps)


def _name(lab: Lab | None) -> str:
    """The name of a colour that has one surely, else ""."""
    names = _names_near(lab, SURE) if lab is not None else frozenset[str]()
    return next(iter(names)) if len(names) == 1 else ""


def _may_be(lab: Lab | None, name: str) -> bool:
    """Whether somebody could call a colour so: dark blue is blue, and dark."""
    if lab is None or not name:
        return True
    near = _names_near(lab, DOUBT)
    return any(
        name in (other, other.split()[-1], other.split()[0]) or name.split()[-1] == other for other in near
    )


def _looks(person: Person, others: Sequence[Person]) -> list[Feature]:
    upper, lower = _name(person.upper), _name(person.lower)
    tops = tuple(_may_be(other.upper, upper) for other in others)
    legs = tuple(_may_be(other.lower, lower) for other in others)
    both = tuple(a and b for a, b in zip(tops, legs, strict=True))
    if upper and upper == lower:
        return [Feature("looks", f"in {upper} clothes", both)]
    features = []
    if upper:
        features.append(Feature("looks", f"in {_article(upper)} top", tops))
    if lower:
        features.append(Feature("looks", f"in {lower} trousers", legs))
    if upper and lower:
        features.append(Feature("looks", f"in {_article(upper)} top and {lower} trousers", both))
    return features


def _article(colour: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour}"


def _looks_of(person: Person) -> str:
    """A person by looks alone; "" when no colour is sure."""
    looks = _looks(person, [])
    return f"person {looks[-1].words}" if looks else ""


def _sides(person: Person, others: Sequence[Person], width: int) -> list[Feature]:
    def within(one: Person, limits: tuple[float, float]) -> np.ndarray:
        share = one.x / width
        inside: np.ndarray = (share >= limits[0]) & (share <= limits[1])
        return inside

    return [
        Feature("side", words, tuple(bool(within(other, may).any()) for other in others))
        for words, (sure, may) in SIDES.items()
        if within(person, sure).all()
    ]


def _walks(person: Person, others: Sequence[Person], frames: int) -> list[Feature]:
    def walked(one: Person) -> float:
        return float(one.x[-1] - one.x[0]) / one.height

    def moved(one: Person) -> float:
        return float(max(np.ptp(one.x), np.ptp(one.feet))) / one.height

    brief = [len(other.frames) < 0.6 * frames for other in others]  # too short to say how they walk
    told, step = [], walked(person)
    if abs(step) > WALKS:
        sign = np.sign(step)
        least = [-MAY_WALK if b else MAY_WALK for b in brief]
        may = tuple(sign * walked(o) > limit for o, limit in zip(others, least, strict=True))
        told.append(Feature("walk", f"walking to the {'left' if sign < 0 else 'right'}", may))
    elif moved(person) < STANDS:
        may = tuple(b or moved(o) < MAY_STAND for o, b in zip(others, brief, strict=True))
        told.append(Feature("walk", "standing still", may))
    return told


def _anchors(person: Person, others: Sequence[Person]) -> list[Feature]:
    """Closest, in all frames, to somebody whom a colour alone names."""
    found = []
    for number, anchor in enumerate(others):
        rest = [other for i, other in enumerate(others) if i != number]
        named = [f for f in _looks(anchor, [person, *rest]) if not any(f.others)]
        if not named or len(np.intersect1d(anchor.frames, person.frames)) < len(person.frames):
            continue
        mine = _distances(person, anchor)
        may = tuple(o is not anchor and not _farther(o, anchor, mine, person) for o in others)
        found.append(Feature("anchor", f"closest to the person {named[0].words}", may))
    return found


def _distances(one: Person, anchor: Person) -> np.ndarray:
    _, i, j = np.intersect1d(one.frames, anchor.frames, return_indices=True)
    apart = np.stack([one.x[i] - anchor.x[j], one.feet[i] - anchor.feet[j]], axis=-1)
    distance: np.ndarray = np.linalg.norm(apart, axis=-1)
    return distance


def _farther(other: Person, anchor: Person, mine: np.ndarray, person: Person) -> bool:
    theirs = _distances(other, anchor)
    return len(theirs) == 0 or float(theirs.min()) > 1.5 * float(mine.max()) + 0.2 * person.height
