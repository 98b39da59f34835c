"""What several metrics ask of one result, computed by the first that comes, for all of them."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Once(Generic[T]):
    """Values by what they belong to and a key, each computed once.

    One is kept as long as its owner, such as an item's reference, and for no other run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: weakref.WeakKeyDictionary[Any, dict[Any, Place[T]]] = weakref.WeakKeyDictionary()

    def once(self, owner: Any, key: Any, compute: Callable[[], T]) -> T:
        """What `compute` returned for this key; what it raises is raised, and computed again by the next."""
        with self._lock:
            place = self._kept.setdefault(owner, {}).setdefault(key, Place())
        with place.lock:
            if not place.told:
                place.told.append(compute())
            return place.told[0]


@dataclass
class Place(Generic[T]):
    """Where a value is kept, and who waits for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    told: list[T] = field(default_factory=list)


def content_key(frames: np.ndarray) -> bytes:
    """The sha256 of an array's bytes, as a key of a result."""
    return hashlib.sha256(np.ascontiguousarray(frames).data).digest()
