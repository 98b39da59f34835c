"""Finished windows of a long edit in a folder, so that an interrupted one goes on where it was."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from shards.errors import SettingError
from shards.files import atomic_path, exclusive, sweep_temporaries, sweep_temporaries_of, write_json
from shards.limits import read_json

SETTINGS = "settings.json"


class Journal:
    """The folder `<out>.parts` beside a result: arrays by name, of one edit with one set of settings.

    A context manager: it holds the folder against other processes. What was finished stays there unless
    `remove` is called. Every file appears whole or not at all.

    Args:
        out: the file that the edit will be written to.
        settings: all that the result depends on, as JSON.

    Attributes:
        found: how many arrays an earlier edit has left.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out, self.settings = out, dict(settings)
        self.folder = out.with_name(out.name + ".parts")
        self.found = 0
        self._lock: Any = None

    def __enter__(self) -> Self:
        """Take the folder.

        Raises:
            SettingError: it holds windows of an edit with other settings, which are named.
            shards.files.InUseError: another process is writing to it.
        """
        self._lock = exclusive(self.folder, "--out")
        self._lock.__enter__()
        try:
            self._open()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def _open(self) -> None:
        sweep_temporaries(self.folder)
        sweep_temporaries_of(self.out)  # the killed process held the folder then
        file = self.folder / SETTINGS
        self.found = len(list(self.folder.glob("*.npy")))
        if file.exists() and self.found:
            before = read_json(file)
            names = self.settings.keys() | before.keys()
            other = sorted(n for n in names if before.get(n) != self.settings.get(n))
            if other:
                raise SettingError(
                    f"{self.folder}: holds {self.found} finished windows of an edit with another "
                    f"{', '.join(other)}; repeat that one, remove the folder, or choose another --out"
                )
        write_json(file, self.settings)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the folder; one without finished windows is removed."""
        if self.folder.exists() and not any(self.folder.glob("*.npy")):
            self.remove()
        self._lock.__exit__(kind, error, trace)

    def load(self, name: str) -> np.ndarray | None:
        """The array that was stored by this name; None where there is none.

        Raises:
            SettingError: the file is damaged.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            array: np.ndarray = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise SettingError(f"{path}: is damaged ({error}); remove it, and it is made again") from error
        return array

    def store(self, name: str, array: np.ndarray) -> None:
        """Keep an array; OSError, such as of a full disk, names its file."""
        with atomic_path(self._path(name)) as temporary, temporary.open("wb") as handle:
            np.save(handle, array, allow_pickle=False)

    def remove(self) -> None:
        """Remove the folder: the edit is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"
