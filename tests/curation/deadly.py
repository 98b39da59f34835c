"""Annotators that kill their process, find a GPU full, or note what they see: for tests of the engines."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from curation.annotators.canny import CannyEdges
from curation.vlm.interface import AnnotatorError, Backend
from curation.vlm.weights import Weights


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


class HungryEdges(CannyEdges):
    """Edges for which a GPU is too small, at frames brighter than any other clip's, while a file is there.

    Args:
        full: the file.
        program: whether it is a program that says so, in its last words.
    """

    def __init__(self, full: str, program: bool = False) -> None:
        super().__init__()
        self.full, self.program = full, program

    def describe(self) -> Backend:
        """As Canny's, under a name of its own."""
        return Backend("hungry")

    def weights(self) -> list[Weights]:
        """Those of VACE's transformer."""
        return [Weights("hungry", parameters=17_337_592_896, dtype="bfloat16")]

    def edges(self, frames: np.ndarray) -> np.ndarray:
        """Lines, unless the frames are bright."""
        import torch

        said = "CUDA out of memory. Tried to allocate 2.00 GiB."
        if Path(self.full).exists() and frames.mean() > 170:
            if self.program:
                raise AnnotatorError(f"A: ended with status 1: torch.cuda.OutOfMemoryError: {said}")
            raise torch.OutOfMemoryError(said)
        return super().edges(frames)


def note_gpus(folder: str, what: str) -> None:
    """Note in a file of this process which GPUs it sees."""
    (Path(folder) / f"{what}-{os.getpid()}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))


class NotingEdges(CannyEdges):
    """Edges that note which GPUs their process sees."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def describe(self) -> Backend:
        """As Canny's, under a name of its own."""
        return Backend("noting")

    def edges(self, frames: np.ndarray) -> np.ndarray:
        """Lines."""
        note_gpus(self.folder, "edges")
        time.sleep(0.2)  # so that every process gets some
        return super().edges(frames)


class NotingCaptioner:
    """A captioner that notes which GPUs its process sees."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def describe(self) -> Backend:
        """A name of its own."""
        return Backend("noting")

    def caption(self, frames: np.ndarray, people: int | None) -> str:
        """The same for all."""
        note_gpus(self.folder, "caption")
        return "A clip."


class DeadlySegmenter:
    """A segmenter that kills its process at its first clip."""

    def describe(self) -> Backend:
        """A name of its own."""
        return Backend("deadly")

    def propagate(self, frames: np.ndarray, seed: int, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nothing."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError
