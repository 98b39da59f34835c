"""Runs a checkpoint on items, and keeps each edit, to the bit, under the hash of what it depends on.

The only place where the benchmark meets the model, through `model.Editor`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark.core.item import MODEL, MODEL_RAW, BenchmarkError, Geometry, Item, Loaded, RunStopped, Unscored
from benchmark.core.score_cache import address
from benchmark.systems.results_folder import Result
from model import shipped
from shards.aliases import renewed
from shards.errors import EditVerseError, first_line
from shards.files import DISK_FAULTS, inside, sha256_of, write_json
from shards.limits import read_json
from shards.media import write_lossless

VERSION = 4  # raise when what is stored for the same checkpoint, item and settings changes


@dataclass(frozen=True)
class EditSettings:
    """What an edit depends on besides checkpoint and item; None leaves the editor's own default.

    Edits of the tasks in `ground` first find their region (`Editor.__call__`). Edits are scored at the size
    that the model works at: enlarging them would score the enlargement too.
    """

    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    frames: int | None = None
    size: str = "model"
    ground: tuple[str, ...] = ()


def weights_folder(checkpoint: Path) -> Path:
    """The folder with config.json and weights; RunStopped names what is missing.

    A run's folder may be given for the `checkpoint` folder inside it, or the name of weights that come with
    the package, as `Editor.from_pretrained` allows.
    """
    if not checkpoint.is_dir():
        checkpoint = shipped(checkpoint)
        if not checkpoint.is_dir():
            raise RunStopped(f"--checkpoint {checkpoint}: no such folder; train one with `make train`")
    inner = checkpoint / "checkpoint"
    folder = inner if inner.is_dir() and not any(checkpoint.glob("*.safetensors")) else checkpoint
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise RunStopped(f"--checkpoint {folder}: needs config.json and model.safetensors")
    return folder


def checkpoint_sha256(folder: Path) -> str:
    """One hash over a checkpoint's config and weights."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return address(*((file.name, sha256_of(file)) for file in files))


def carries_over(folder: Path) -> bool:
    """Whether the checkpoint's edits are blended with the source (`extras.detail_transfer` of its config)."""
    try:
        config = renewed(read_json(folder / "config.json"))
        return bool(config.get("extras", {}).get("detail_transfer", False))
    except (EditVerseError, OSError, AttributeError) as error:
        raise RunStopped(f"--checkpoint {folder / 'config.json'}: {first_line(error)}") from None


class Edits:
    """Edits of one checkpoint, made when asked for and kept in `folder`; loads the model at the first miss.

    `rows` are the rows of the table that an edit fills: `model`, and `model_raw` (the decoded edit before
    detail carry-over) where the checkpoint has that on.
    """

    def __init__(self, folder: Path, checkpoint: Path, settings: EditSettings) -> None:
        self.folder = folder
        self.checkpoint = weights_folder(checkpoint)
        self.settings = settings
        self.sha256 = checkpoint_sha256(self.checkpoint)
        self.rows = [MODEL, MODEL_RAW] if carries_over(self.checkpoint) else [MODEL]
        self._editor: Any = None

    def result(self, item: Item, load: Callable[[], Loaded]) -> Result | Unscored:
        """The stored edit, or a new one."""
        return self.stored(item) or self.make(item, load())

    def stored(self, item: Item) -> Result | None:
        """The edit of an item when it is stored and its files are what was written."""
        facts_path = self._facts_path(item)
        if not facts_path.is_file():
            return None
        try:
            facts = read_json(facts_path)
            held = {
                row: (inside(self.folder, name), digest) for row, (name, digest) in facts["files"].items()
            }
            files = {row: held[row] for row in self.rows}
            geometry, seconds = Geometry(**facts["geometry"]), float(facts["seconds"])
        except (EditVerseError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BenchmarkError(
                f"{facts_path}: damaged ({first_line(error)}); delete it, the edit is then made again"
            ) from error
        if any(not path.is_file() or sha256_of(path) != digest for path, digest in files.values()):
            return None
        return Result(files, geometry, seconds)

    def make(self, item: Item, loaded: Loaded) -> Result | Unscored:
        """Edit an item and store the result; a fault of this edit is the reason that comes back."""
        facts_path = self._facts_path(item)
        try:
            begin = time.perf_counter()
            edit = self.editor()(item.text, **loaded.inputs, **self._options(item))
            seconds = time.perf_counter() - begin
            files = {}
            for row in self.rows:
                path = facts_path.with_suffix(f".{row}.mkv")
                write_lossless(path, edit.frames if row == MODEL else edit.raw, edit.fps)
                files[row] = (path, sha256_of(path))
        except RunStopped:
            raise
        except (ValueError, RuntimeError, OSError, TypeError) as error:
            if isinstance(error, OSError) and error.errno in DISK_FAULTS:
                raise  # no fault of this edit
            return Unscored(f"the edit failed: {type(error).__name__}: {first_line(error)}")
        frames, height, width = edit.frames.shape[:3]
        geometry = Geometry(frames, height, width, float(edit.fps))
        facts = {
            "item": item.id,
            "files": {row: [path.name, digest] for row, (path, digest) in files.items()},
            "geometry": asdict(geometry),
            "seconds": seconds,
        }
        write_json(facts_path, facts)
        return Result(files, geometry, seconds, new=True)

    def editor(self) -> Any:
        """The loaded `model.Editor`; raises RunStopped when the checkpoint does not load."""
        if self._editor is None:
            from safetensors import SafetensorError

            from model import Editor  # brings torch; finished results need none

            try:
                self._editor = Editor.from_pretrained(str(self.checkpoint))
            except (ValueError, RuntimeError, OSError, KeyError, SafetensorError) as error:
                raise RunStopped(
                    f"--checkpoint {self.checkpoint}: does not load: {first_line(error)}"
                ) from error
        return self._editor

    def _facts_path(self, item: Item) -> Path:
        key = address("edit", VERSION, self.sha256, item.content, item.text, asdict(self.settings))
        return self.folder / f"{key[:32]}.json"

    def _options(self, item: Item) -> dict[str, Any]:
        chosen = {n: v for n, v in asdict(self.settings).items() if v is not None and n != "ground"}
        return chosen | {"ground": grounded(item, self.settings.ground)}


def grounded(item: Item, tasks: Sequence[str]) -> bool:
    """Whether an item's edit first finds its region: one of these tasks, by words alone."""
    return item.task in tasks and "<mask" not in item.text
