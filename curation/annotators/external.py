"""Programs in environments of their own: files in, files out, and every way to fail has a sentence."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from curation.vlm import hub
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError
from shards.media import MediaError, read_video


@dataclass(frozen=True)
class Program:
    """How a program is started.

    Attributes:
        folder: its checkout, the working directory.
        python: the interpreter of its own environment.
        script: of the checkout.
        timeout: seconds after which it and its children are killed.
        environment: variables besides ours.
    """

    folder: str
    python: str = "python"
    script: str = ""
    timeout: float = 3600.0
    environment: dict[str, str] = field(default_factory=dict)

    def check(self, name: str, license: str, where: str) -> None:
        """Raise AssetError when the checkout, the script or the interpreter is not there."""
        if not (Path(self.folder) / self.script).is_file():
            raise AssetError(
                f"{Path(self.folder) / self.script}: no such program; clone {where} ({license}) there "
                f"to run {name}"
            )
        if shutil.which(self.python) is None:
            raise AssetError(f"{self.python}: no such interpreter; make an environment for {name}: {where}")

    def run(self, name: str, arguments: list[str], log: Path) -> None:
        """Run it to its end. Raises AnnotatorError when it fails or hangs, with its last words."""
        hub.note_loaded(name)
        # not resolved: an environment's interpreter is a link, and the link is what names the environment
        interpreter = Path(shutil.which(self.python) or self.python).absolute()
        command = [str(interpreter), self.script, *arguments]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                raise AnnotatorError(
                    f"{name}: did not end within {self.timeout:g} s and was stopped{_last_words(log)}"
                ) from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise AnnotatorError(f"{name}: {how}{_last_words(log)}")

    def result(self, name: str, path: Path, shape: tuple[int, ...], log: Path) -> np.ndarray:
        """The video that it wrote, uint8 [T, H, W, 3] of `shape`. Raises AnnotatorError for any other."""
        if not path.is_file():
            raise AnnotatorError(f"{name}: ended well but wrote no {path.name}{_last_words(log)}")
        try:
            frames, _ = read_video(path)
        except MediaError as error:
            raise AnnotatorError(f"{name}: wrote a video that does not decode ({error})") from None
        if frames.shape[1:3] != shape[1:3]:
            sizes = [f"{width}x{height}" for height, width in (frames.shape[1:3], shape[1:3])]
            raise AnnotatorError(f"{name}: wrote frames of {sizes[0]}, not {sizes[1]}")
        if len(frames) != shape[0]:
            raise AnnotatorError(f"{name}: wrote {len(frames)} frames, not {shape[0]}")
        return frames


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:200]}" if lines else ""
