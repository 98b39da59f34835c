"""Cameras: where they stand and how they move, as poses per frame.

The ten movements are ReCamMaster's. A pose is a position in metres, a rotation from camera to world (the
camera looks along -z, y is up), and a vertical field of view in degrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shards.errors import SettingError

MOVEMENTS = (
    "Pan Right",
    "Pan Left",
    "Tilt Up",
    "Tilt Down",
    "Zoom In",
    "Zoom Out",
    "Translate Up",
    "Translate Down",
    "Arc Left",
    "Arc Right",
)
TURN, TILT, ARC = 16.0, 9.0, 35.0  # degrees
RISE, CLOSER = 0.42, 0.7  # metres; part of the field of view
CENTRE = np.array([0.0, 0.0, 0.25])
FOVY = 45.0


@dataclass(frozen=True)
class Pose:
    """One moment of a camera: position [3], rotation [3, 3] (columns right, up, back), fovy in degrees."""

    position: np.ndarray
    rotation: np.ndarray
    fovy: float

    def project(self, points: np.ndarray, height: int, width: int) -> np.ndarray:
        """Pixel coordinates (x, y), float [N, 2], of world points [N, 3]; pixel centres are at halves."""
        seen = (np.asarray(points) - self.position) @ self.rotation
        focal = 0.5 * height / np.tan(np.radians(self.fovy) / 2)
        depth = -seen[:, 2]
        return np.stack([width / 2 + focal * seen[:, 0] / depth, height / 2 - focal * seen[:, 1] / depth], 1)


def orbit_pose(azimuth: float, elevation: float, distance: float) -> Pose:
    """A camera that looks at the middle of the scene, `elevation` below the horizon (degrees, negative)."""
    a, e = np.radians(azimuth), np.radians(elevation)
    away = np.array([-np.cos(a) * np.cos(e), -np.sin(a) * np.cos(e), -np.sin(e)])
    return look_at(CENTRE + distance * away, CENTRE, FOVY)


def look_at(position: np.ndarray, target: np.ndarray, fovy: float) -> Pose:
    """A camera at `position` that looks at `target`, its horizon level."""
    back = position - target
    back = back / np.linalg.norm(back)
    right = np.cross([0, 0, 1], back)
    right = right / np.linalg.norm(right)
    return Pose(position, np.stack([right, np.cross(back, right), back], axis=1), fovy)


def trajectory(start: Pose, movement: str | None, frames: int) -> list[Pose]:
    """Poses of a movement that begins at `start` and runs over all frames; None stands still.

    Raises:
        ValueError: no such movement.
    """
    if movement is None:
        return [start] * frames
    if movement not in MOVEMENTS:
        raise SettingError(f"movement {movement!r} is none of {', '.join(MOVEMENTS)}")
    return [moved(start, movement, t / max(1, frames - 1)) for t in range(frames)]


def moved(start: Pose, movement: str, part: float) -> Pose:
    """The pose after `part` (0 to 1) of a movement."""
    kind, _, way = movement.partition(" ")
    part *= 1 if way in ("Right", "Up", "In") else -1
    upright, place, rotation, fovy = np.array([0.0, 0.0, 1.0]), start.position, start.rotation, start.fovy
    if kind == "Pan":  # to the right: the view turns clockwise, seen from above
        return Pose(place, _turn(upright, -part * TURN) @ rotation, fovy)
    if kind == "Tilt":
        return Pose(place, _turn(rotation[:, 0], part * TILT) @ rotation, fovy)
    if kind == "Zoom":
        wide = np.tan(np.radians(fovy) / 2) * CLOSER**part
        return Pose(place, rotation, float(np.degrees(2 * np.arctan(wide))))
    if kind == "Translate":
        return Pose(place + part * RISE * upright, rotation, fovy)
    # an arc to the right is counter-clockwise around the middle
    return look_at(CENTRE + _turn(upright, part * ARC) @ (place - CENTRE), CENTRE, fovy)


def _turn(axis: np.ndarray, degrees: float) -> np.ndarray:
    """Rotation around an axis of length 1 (Rodrigues)."""
    import cv2

    return np.asarray(cv2.Rodrigues(axis * np.radians(degrees))[0])
