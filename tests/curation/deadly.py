"""Annotators that kill their process, for the tests of the engines."""

from __future__ import annotations

import os
import signal

import numpy as np

from curation.annotators.canny import CannyEdges
from curation.vlm.interface import Backend


class DeadlyEdges(CannyEdges):
    """Edges that kill the process at frames which are brighter than any other clip's."""

    def describe(self) -> Backend:
        """As Canny's, under a name of its own."""
        return Backend("deadly")

    def edges(self, frames: np.ndarray) -> np.ndarray:
        """Lines, unless the frames are bright."""
        if frames.mean() > 170:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().edges(frames)


class Stillborn(CannyEdges):
    """Edges that kill every process in which they are made but one."""

    def __init__(self, spared: int) -> None:
        super().__init__()
        if os.getpid() != spared:
            os.kill(os.getpid(), signal.SIGKILL)

    def describe(self) -> Backend:
        """As Canny's, under a name of its own."""
        return Backend("stillborn")
