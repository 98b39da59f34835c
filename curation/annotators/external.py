"""Programs in environments of their own: files in, files out, and every way to fail has a sentence.

A program is started once for each clip (`Program.run`) or kept running for many (`service.Service`).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from curation.vlm import hub
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError
from shards.errors import first_line
from shards.media import MediaError, read_video
from shards.processes import foreign_environment

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # stands where a file was not downloaded
TAIL = 65536  # bytes of a log that its last words are looked for in
# What a program of another environment ends with: no clip can mend it.
FOREIGN = ("ModuleNotFoundError:", "ImportError:")


@dataclass(frozen=True)
class Program:
    """How a program is started.

    Attributes:
        folder: its checkout, the working directory.
        python: the interpreter of its own environment.
        script: of the checkout.
        timeout: seconds for one clip, and for loading, after which it and its children are killed.
        environment: variables besides ours.
        service: keep it running with its weights loaded, for many clips; else it is started for each clip.
    """

    folder: str
    python: str = "python"
    script: str = ""
    timeout: float = 3600.0
    environment: dict[str, str] = field(default_factory=dict)
    service: bool = True

    def check(self, name: str, license: str, where: str, weights: Sequence[str] = ()) -> None:
        """Raise AssetError when the checkout, the script, the interpreter or a file of weights is not there.

        Args:
            name: of the program, for the error.
            license: of program and weights, for the error.
            where: the program comes from, for the error.
            weights: files, in the checkout unless absolute, their names perhaps patterns; one of each must be
                there and whole.
        """
        folder = Path(self.folder)
        if not (folder / self.script).is_file():
            raise AssetError(
                f"{folder / self.script}: no such program; clone {where} ({license}) there to run {name}"
            )
        if shutil.which(self.python) is None:
            raise AssetError(f"{self.python}: no such interpreter; make an environment for {name}: {where}")
        for pattern in weights:
            path = folder / pattern  # an absolute one stays as it is
            if not any(map(_is_whole, path.parent.glob(path.name))):
                raise AssetError(
                    f"{path}: missing, or not downloaded to its end; get the weights of {name} "
                    f"({license}) as {where} says"
                )

    @property
    def interpreter(self) -> str:
        """The absolute path of the interpreter; not resolved, since the link is what names an environment."""
        return str(Path(shutil.which(self.python) or self.python).absolute())

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that it gets."""
        return foreign_environment() | self.environment

    def run(self, name: str, arguments: list[str], log: Path) -> None:
        """Run it to its end.

        Raises:
            AnnotatorError: it fails or hangs; with its last words.
            AssetError: it lacks a package, so this is not its environment.
        """
        hub.note_loaded(name)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [self.interpreter, self.script, *arguments],
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                raise AnnotatorError(
                    f"{name}: did not end within {self.timeout:g} s and was stopped{last_words(log)}"
                ) from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status and said_of(log).startswith(FOREIGN):
            raise AssetError(f"{name}: {said_of(log)}; python: {self.python} is not its environment")
        if status:
            raise AnnotatorError(f"{name}: {how_it_ended(status)}{last_words(log)}")

    def result(
        self, name: str, path: Path, shape: tuple[int, ...], log: Path, fps: float | None = None
    ) -> np.ndarray:
        """The video that it wrote, uint8 [T, H, W, 3].

        Raises AnnotatorError for one that is not of `shape`, or of another rate than `fps`.
        """
        if not path.is_file():
            raise AnnotatorError(f"{name}: ended well but wrote no {path.name}{last_words(log)}")
        try:
            frames, rate = read_video(path)
        except MediaError as error:
            raise AnnotatorError(f"{name}: wrote a video that does not decode ({error})") from None
        if frames.shape[1:3] != shape[1:3]:
            sizes = [f"{width}x{height}" for height, width in (frames.shape[1:3], shape[1:3])]
            raise AnnotatorError(f"{name}: wrote frames of {sizes[0]}, not {sizes[1]}")
        if len(frames) != shape[0]:
            raise AnnotatorError(f"{name}: wrote {len(frames)} frames, not {shape[0]}")
        if fps is not None and abs(rate - fps) > 0.01:
            raise AnnotatorError(f"{name}: wrote {rate:g} frames a second, not {fps:g}")
        return frames


def array_of(name: str, path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array that a program wrote as .npy. Raises AnnotatorError for none, or another shape or dtype."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise AnnotatorError(f"{name}: wrote no array ({first_line(error)})") from None
    if array.shape != tuple(shape) or array.dtype != dtype:
        sizes = [f"{'x'.join(map(str, one))}" for one in (array.shape, shape)]
        raise AnnotatorError(f"{name}: wrote {array.dtype} of {sizes[0]}, not {dtype} of {sizes[1]}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise AnnotatorError(f"{name}: wrote numbers that are not finite")
    return array


def third_party(name: str, script: str) -> Program:
    """The program of a checkout third_party/<name> with its environment in .venv there."""
    folder = f"third_party/{name}"
    return Program(folder, f"{folder}/.venv/bin/python", script)


def _is_whole(path: Path) -> bool:
    """Whether a file of weights was downloaded: not empty, and not a pointer of Git LFS."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        return not file.read(len(LFS_POINTER)).startswith(LFS_POINTER)


def said_of(log: Path) -> str:
    """The last line of a log that says anything, at most 200 characters."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def last_words(log: Path) -> str:
    """The same behind a colon, to be put after a sentence; "" when there are none."""
    said = said_of(log)
    return f": {said}" if said else ""


def how_it_ended(status: int) -> str:
    """A process's exit status in words."""
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
