"""What to say about a scene: names that fit one object and no other, captions of what happens.

Everything comes from the scene's description and the exact positions; nothing is guessed from pixels.
"""

from __future__ import annotations

import numpy as np

from curation.cg.camera import Pose
from curation.cg.scene import Scene, SceneObject

AXES = {"to the left of": (0, -1), "to the right of": (0, 1), "in front of": (2, -1), "behind": (2, 1)}
CLEAR = 0.35  # metres by which one object must be further than the other for a relation to be said


def names(
    scene: Scene,
    number: int,
    positions: np.ndarray,
    pose: Pose,
    relations: bool = True,
    shapes_alone: bool = True,
) -> list[str]:
    """Names of an object, without article, each of which fits it alone; the shortest first.

    Args:
        positions: float [objects, 3], in the frame that relations are read from; seen from `pose`.
        relations: whether it may be named by where it stands.
        shapes_alone: whether by a name without its colour.
    """
    thing = scene.things[number]
    looks = [[look for look in _looks(t) if shapes_alone or t.colour in look.split()] for t in scene.things]
    found = [look for look in looks[number] if sum(look in others for others in looks) == 1]
    for relation, (axis, sign) in AXES.items() if relations else ():
        for other in range(len(scene.things)):
            if other == number:
                continue
            unique = [look for look in looks[other] if sum(look in others for others in looks) == 1]
            if not unique:
                continue
            for look in (look for look in looks[number] if thing.size not in look.split()):
                able = [i for i in range(len(looks)) if i != other and look in looks[i]]
                stand = [i for i in able if _stands(positions, pose, i, other, axis, sign)]
                clear = all(_apart(positions, pose, i, other, axis, sign) for i in able if i != number)
                if stand == [number] and clear:
                    found.append(f"{look} {relation} the {unique[0]}")
    return list(dict.fromkeys(found))


def caption(scene: Scene, without: int | None = None) -> str:
    """What is in a scene and how it moves."""
    told = [f"a {t.size} {t.colour} {t.shape} {_verb(t)}" for i, t in enumerate(scene.things) if i != without]
    if not told:  # the only object was left out
        return f"A {scene.floor} floor with nothing on it."
    listed = told[0] if len(told) == 1 else ", ".join(told[:-1]) + f" and {told[-1]}"
    return f"On a {scene.floor} floor, {listed}."


def _verb(thing: SceneObject) -> str:
    said = {"rests": "stands still", "rolls": "moves along", "falls": "falls", "bounces": "bounces"}
    return said[thing.motion]


def _looks(thing: SceneObject) -> list[str]:
    """Descriptions by looks, from short to long."""
    return [
        thing.shape,
        f"{thing.colour} {thing.shape}",
        f"{thing.size} {thing.shape}",
        f"{thing.size} {thing.colour} {thing.shape}",
    ]


def _along(positions: np.ndarray, pose: Pose, number: int, axis: int) -> float:
    """Where an object is along the camera's axis: to the right, up, or away."""
    seen = (positions[number] - pose.position) @ pose.rotation
    return float(seen[axis] if axis < 2 else -seen[2])


def _stands(positions: np.ndarray, pose: Pose, number: int, other: int, axis: int, sign: int) -> bool:
    apart = _along(positions, pose, number, axis) - _along(positions, pose, other, axis)
    return sign * apart > CLEAR


def _apart(positions: np.ndarray, pose: Pose, number: int, other: int, axis: int, sign: int) -> bool:
    """The relation surely does not hold."""
    apart = _along(positions, pose, number, axis) - _along(positions, pose, other, axis)
    return sign * apart < -CLEAR / 4 or sign * apart > CLEAR
