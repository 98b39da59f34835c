"""A checkpoint's files: where they are, and reading them without trusting them.

A folder, or a repository of the hub, with config.json and model.safetensors. Pickles are never read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from model.extras.config import ExtrasConfig
from model.inference.bundled import CONFIG, INDEX, PARTS, is_pipeline, shipped
from model.net.config import DiTConfig
from model.net.families import build_transformer
from model.net.wan_config import WanConfig
from shards.errors import ConfigError, EditVerseError
from shards.files import atomic_path, inside, sha256_of, write_bytes
from shards.limits import read_text, shown

WEIGHTS, SUMS = "model.safetensors", "SHA256SUMS"
FLOATS = {"F16", "BF16", "F32", "F64"}  # types of a weight, as safetensors names them
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


def find_checkpoint(path: str | Path, revision: str | None = None) -> Path:
    """The folder of a checkpoint.

    Args:
        path: a folder with config.json and model.safetensors, one in diffusers' layout (see
            `model.inference.diffusers_folder`), a finished run's folder, the name of weights
            that come with this package (a folder of `BUNDLED`), or `owner/name` of a repository on the model
            hub (downloaded unless it is in the local cache).
        revision: branch, tag or commit of the repository.

    Raises:
        ConfigError: nothing of the kind is there, only a pickle is, or a file is not the one of SHA256SUMS.
    """
    folder = shipped(Path(path))
    if folder.is_file():
        what = "a pickle, which can run code" if folder.suffix in PICKLES else "a file"
        raise ConfigError(f"{folder} is {what}; a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    if isinstance(path, str) and _is_repository(path):
        folder = _download(path, revision, [CONFIG, WEIGHTS, INDEX, *(f"{part}/*" for part in PARTS)])
    if is_pipeline(folder):
        return folder
    if not (folder / CONFIG).is_file() and (folder / "checkpoint" / CONFIG).is_file():
        folder = folder / "checkpoint"
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder / CONFIG}: not found; a checkpoint folder holds {CONFIG} and {WEIGHTS}")
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        why = f" ({pickles[0]} is a pickle, which can run code: convert it to safetensors)" if pickles else ""
        raise ConfigError(
            f"{folder / WEIGHTS}: not found; a checkpoint folder holds {CONFIG} and {WEIGHTS}{why}"
        )
    check_sums(folder)
    return folder


def check_sums(folder: Path) -> None:
    """Compare the files of a folder with its SHA256SUMS, if there; ConfigError names the one at fault."""
    sums = folder / SUMS
    if not sums.exists():
        return
    try:
        lines = [line.partition("  ") for line in read_text(sums).splitlines()]
        files = [(wanted, name, inside(folder, name)) for wanted, _, name in lines]
    except (EditVerseError, OSError) as error:
        raise ConfigError(f"{sums}: {error}") from error
    for wanted, name, file in files:
        if not file.is_file() or sha256_of(file) != wanted:
            raise ConfigError(
                f"{folder / name}: is not the file that {sums} names ({wanted[:12]}...); get the folder "
                f"again, or remove {SUMS} if the change was meant"
            )


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS of a checkpoint's two files, as `sha256sum` reads it."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in (CONFIG, WEIGHTS)]
    write_bytes(folder / SUMS, "".join(lines).encode())


def find_adapter(path: str | Path) -> Path:
    """Where an adapter is: the path itself, or what the hub gave for `owner/name`.

    Raises:
        ConfigError: no such path, and the hub has no such repository.
    """
    if not _is_repository(str(path)):
        return Path(path)
    return _download(str(path), None, ["*.safetensors", "adapter_config.json"])


def _is_repository(path: str) -> bool:
    """Whether a path that is not there can be `owner/name` of the hub."""
    return path.count("/") == 1 and path[0] not in "./~" and not Path(path).exists()


def _download(name: str, revision: str | None, wanted: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise ConfigError(f"{name}: no such folder, and huggingface_hub is not installed") from error
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns="*.bin")
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(
            f"{name}: no such folder here, and the model hub gave no such repository: {reason}"
        ) from error


def read_weights(
    file: Path, shapes: Mapping[str, torch.Size], owner: str, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """Read a safetensors file that must hold exactly the tensors of `shapes`, all finite.

    The header is compared before any tensor is read.

    Args:
        owner: what the shapes come from, for the message.

    Raises:
        ConfigError: the file is truncated or no safetensors, or a weight is missing, unknown, of another
            shape, no floating-point number or not finite; the message names it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_header(file, shapes, owner)
    try:
        state: dict[str, Tensor] = load_file(file, device=str(device))
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}; is the file complete?") from error
    for name, weight in state.items():
        if not torch.isfinite(weight).all():
            raise ConfigError(f"{file}: weight {name!r} holds values that are not finite")
    return state


def check_header(file: Path, shapes: Mapping[str, torch.Size], owner: str) -> None:
    """Compare the header of a safetensors file with the tensors that it must hold.

    Raises:
        ConfigError: as `read_weights`.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise ConfigError(f"{file}: not a regular file")
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            held = {name: (torch.Size(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"{file}: {error}; is the file complete?") from error
    for name in sorted(set(shapes) | set(held)):
        if name not in held or name not in shapes:
            problem = "is missing" if name not in held else "is unknown"
            raise ConfigError(f"{file}: does not fit {owner}: weight {shown(name)} {problem}")
        shape, kind = held[name]
        if shape != shapes[name]:
            sizes = f"{list(shape)}, not {list(shapes[name])}"
            raise ConfigError(f"{file}: does not fit {owner}: weight {name!r} is {sizes}")
        if kind not in FLOATS:
            raise ConfigError(
                f"{file}: weight {name!r} is {kind}; weights are floating-point numbers, "
                f"{', '.join(sorted(FLOATS))}"
            )
    if len(kinds := sorted({kind for _, kind in held.values()})) > 1:
        raise ConfigError(f"{file}: its weights are of several types ({', '.join(kinds)}); store all as one")


def weight_shapes(config: DiTConfig | WanConfig, extras: ExtrasConfig | None = None) -> dict[str, torch.Size]:
    """Names and shapes of a transformer's weights, without building more than one of its blocks.

    A configuration from outside may ask for many blocks, which take long to build even without memory.
    Raises ConfigError for one that does not say what its tokens hold.
    """
    for name in ("text_dim", "vision_dim"):
        if not getattr(config, name):
            raise ConfigError(f"dit.{name}: 0 is for training alone; a checkpoint says what a token holds")
    with torch.device("meta"):
        one = build_transformer(dataclasses.replace(config, depth=1), extras).state_dict()
    shapes: dict[str, torch.Size] = {}
    for name, value in one.items():
        shapes |= dict.fromkeys(in_every_block(name, config.depth), value.shape)
    return shapes


def linear_shapes(
    config: DiTConfig | WanConfig, extras: ExtrasConfig | None = None
) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of a transformer's linear layers by name, as `weight_shapes` finds them."""
    with torch.device("meta"):
        one = build_transformer(dataclasses.replace(config, depth=1), extras)
    shapes: dict[str, tuple[int, int]] = {}
    for name, module in one.named_modules():
        if isinstance(module, nn.Linear):
            names = in_every_block(name, config.depth)
            shapes |= dict.fromkeys(names, (module.out_features, module.in_features))
    return shapes


def in_every_block(name: str, depth: int) -> list[str]:
    """The names that a part of block 0 has in each of `depth` blocks; that of another part alone."""
    owner, block, rest = name.rpartition("blocks.0.")
    return [f"{owner}blocks.{n}.{rest}" for n in range(depth)] if block else [name]


def write_weights(file: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all; `metadata` goes into the header."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", **(metadata or {})})
