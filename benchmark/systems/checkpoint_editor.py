"""This project's editors, and the published weights that `model.Editor` reads, as editors of items.

The only place where the benchmark meets the model, through `model.Editor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark.core.fingerprint import content_of
from benchmark.core.item import MODEL, MODEL_RAW, Item, Loaded, RunStopped
from benchmark.core.score_cache import address
from benchmark.systems.edit_cache import Edited
from model import shipped
from shards.aliases import renewed
from shards.errors import EditVerseError, first_line
from shards.files import sha256_of
from shards.limits import read_json

PIPELINE = "model_index.json"  # of weights in diffusers' layout
WEIGHTS = "[!.]*.safetensors"  # a hidden one is half of a file, which a killed process has left


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


def weights_folder(checkpoint: Path, what: str = "--checkpoint") -> Path:
    """The folder with config.json and weights; RunStopped names what is missing.

    A run's folder may be given for the `checkpoint` folder inside it, or the name of weights that come with
    the package, as `Editor.from_pretrained` allows.

    Args:
        what: the setting that names it, for the message.
    """
    if not checkpoint.is_dir():
        checkpoint = shipped(checkpoint)
        if not checkpoint.is_dir():
            raise RunStopped(f"{what} {checkpoint}: no such folder; train one with `make train`")
    inner = checkpoint / "checkpoint"
    folder = inner if inner.is_dir() and not any(checkpoint.glob(WEIGHTS)) else checkpoint
    if not (folder / "config.json").is_file() or not any(folder.glob(WEIGHTS)):
        raise RunStopped(f"{what} {folder}: needs config.json and model.safetensors")
    return folder


def pretrained_folder(path: str, what: str) -> Path:
    """The folder of an editor's weights: one of ours, or in diffusers' layout, or a repository of the hub.

    A repository is had from the hub's cache, or fetched; RunStopped says what is missing.
    """
    folder = Path(path)
    if (folder / PIPELINE).is_file():
        return folder
    if folder.is_dir() or path.count("/") != 1 or path.startswith((".", "/")):
        return weights_folder(folder, what)
    from curation.vlm import hub  # only where weights come from the hub

    try:
        return hub.folder_of(path, "an editor", "see its page on the hub", PIPELINE)
    except EditVerseError as error:
        raise RunStopped(f"{what}: {first_line(error)}") from None


def checkpoint_sha256(folder: Path) -> str:
    """One hash over a checkpoint's config and weights; a snapshot of the hub is known by its commit."""
    if (folder / PIPELINE).is_file():
        return (
            address("commit", folder.name)
            if folder.parent.name == "snapshots"
            else str(content_of(str(folder)))
        )
    files = [folder / "config.json", *sorted(folder.glob(WEIGHTS))]
    return address(*((file.name, sha256_of(file)) for file in files))


def carries_over(folder: Path) -> bool:
    """Whether the checkpoint's edits are blended with the source (`extras.detail_transfer` of its config)."""
    if (folder / PIPELINE).is_file():
        return False
    try:
        config = renewed(read_json(folder / "config.json"))
        return bool(config.get("extras", {}).get("detail_transfer", False))
    except (EditVerseError, OSError, AttributeError) as error:
        raise RunStopped(f"--checkpoint {folder / 'config.json'}: {first_line(error)}") from None


class CheckpointEditor:
    """Edits by `model.Editor`, which is loaded at the first one.

    Its slots are `model`, and `model_raw` (the decoded edit before detail carry-over).

    Args:
        folder: the weights, see `pretrained_folder`.
        device: of the transformer and the encoders; a checkpoint of `--checkpoint` runs on the CPU.
    """

    def __init__(self, folder: Path, settings: EditSettings, device: str = "cpu") -> None:
        self.folder, self.settings, self.device = folder, settings, device
        self.sha256 = checkpoint_sha256(folder)
        self._editor: Any = None

    def rows(self) -> Mapping[str, str]:
        """The rows of `--checkpoint` by slot: with and, where the two differ, without carry-over."""
        return {MODEL: MODEL, MODEL_RAW: MODEL_RAW} if carries_over(self.folder) else {MODEL: MODEL}

    def depends(self, item: Item) -> list[Any]:
        """The weights, the item's media and words, and the settings."""
        return [self.sha256, item.content, item.text, asdict(self.settings)]

    def edit(self, item: Item, loaded: Loaded) -> Edited:
        """See `ItemEditor`."""
        chosen = {n: v for n, v in asdict(self.settings).items() if v is not None and n != "ground"}
        ground = grounded(item, self.settings.ground)
        edit = self.editor()(item.text, **loaded.inputs, **chosen, ground=ground)
        return Edited({MODEL: edit.frames, MODEL_RAW: edit.raw}, float(edit.fps))

    def editor(self) -> Any:
        """The loaded `model.Editor`; raises RunStopped when the checkpoint does not load."""
        if self._editor is None:
            from safetensors import SafetensorError

            from model import Editor  # brings torch; finished results need none

            try:
                self._editor = Editor.from_pretrained(str(self.folder), self.device)
            except (ValueError, RuntimeError, OSError, KeyError, SafetensorError) as error:
                raise RunStopped(f"--checkpoint {self.folder}: does not load: {first_line(error)}") from error
        return self._editor

    def release(self) -> None:
        """Drop the loaded editor."""
        self._editor = None


def grounded(item: Item, tasks: Sequence[str]) -> bool:
    """Whether an item's edit first finds its region: one of these tasks, by words alone."""
    return item.task in tasks and "<mask" not in item.text
