"""How much memory the weights of an annotator take, counted without loading any of them.

Parameters are counted on torch's meta device, from the checkpoint's own configuration where it is on this
machine, else from the published one (`curation.vlm.published`). Activations are no part of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from curation.vlm import hub
from curation.vlm.errors import AssetError
from curation.vlm.published import PUBLISHED, Layout
from shards.errors import SettingError, first_line

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "int8": 1}
BYTES |= {"double": 8, "float": 4, "half": 2}  # torch's other names
GIB = float(1 << 30)


@dataclass(frozen=True)
class Weights:
    """The weights of one part of a model as the process of a stage holds them.

    Equal ones are loaded once by a process, whoever uses them.

    Attributes:
        model: the checkpoint or program.
        part: of the model ("transformer"), or "model" where it has no parts.
        parameters: their number; None when it is not known.
        dtype: of the weights on a GPU.
        offloaded: whether they lie in main memory and are on the GPU only while this part works.
        peak_gib: for a program, the peak of GPU memory that its authors publish, activations included, GiB;
            it replaces the count.
        source: where the number is from, for a reader.
    """

    model: str
    part: str = "model"
    parameters: int | None = None
    dtype: str = "float32"
    offloaded: bool = False
    peak_gib: float | None = None
    source: str = ""

    @property
    def gib(self) -> float | None:
        """GiB of GPU memory; None when it is not known."""
        if self.peak_gib is not None:
            return self.peak_gib
        return None if self.parameters is None else self.parameters * BYTES[self.dtype] / GIB


class Weighted(Protocol):
    """An annotator that says how large its weights are.

    One without this method has none of its own: it computes, or asks another annotator (its `parts`) or an
    endpoint.
    """

    def weights(self) -> list[Weights]:
        """Its models' parts, without loading or fetching anything."""
        ...


def weights_of(annotator: Any) -> list[Weights]:
    """The weights of an annotator and of its `parts`, each part of a model once."""
    found: list[Weights] = list(annotator.weights()) if callable(getattr(annotator, "weights", None)) else []
    for part in getattr(annotator, "parts", {}).values():
        found += weights_of(part)
    return list(dict.fromkeys(found))


def gib_on_gpu(weights: Iterable[Weights]) -> tuple[float, list[Weights]]:
    """GiB of GPU memory that these take in one process, and those of which it is not known.

    Of each model's offloaded parts only the largest counts: they take turns.
    """
    resident, turns, unknown = 0.0, dict[str, float](), list[Weights]()
    for one in dict.fromkeys(weights):
        gib = one.gib
        if gib is None:
            unknown.append(one)
        elif one.offloaded:
            turns[one.model] = max(turns.get(one.model, 0.0), gib)
        else:
            resident += gib
    return resident + sum(turns.values()), unknown


def dtype_on_gpu(dtype: str) -> str:
    """What a `dtype` setting is on a GPU: bfloat16 for "auto" (see `hub.dtype_of`).

    Raises SettingError for one that weights do not come in.
    """
    if dtype != "auto" and dtype not in BYTES:
        raise SettingError(f"dtype: {dtype!r} is none that weights come in; use float32, bfloat16 or auto")
    return "bfloat16" if dtype == "auto" else dtype


def checkpoint_weights(
    checkpoint: str,
    dtype: str = "float32",
    dtypes: Mapping[str, str] | None = None,
    offloaded: bool = False,
    but: Sequence[str] = (),
) -> list[Weights]:
    """The parts of a checkpoint in the layout of transformers or diffusers.

    Args:
        checkpoint: folder, or hub repository with or without a revision ("owner/name@revision").
        dtype: of the weights on a GPU, or "auto".
        dtypes: part -> dtype, for parts with another one.
        offloaded: whether its parts take turns on the GPU.
        but: parts that are not loaded.

    Returns:
        One for each part; one without a number, which says why in its `source`, when the checkpoint is not
        here and its layout not published, or when its configuration is none that these libraries can build.

    Raises:
        SettingError: a dtype that weights do not come in.
    """
    folder, name = folder_on_disk(checkpoint), checkpoint.partition("@")[0]
    counts, source = dict[str, int](), "no checkpoint here, and no published layout"
    try:
        if folder is not None:
            counts, source = _counts_in(folder), "its config.json"
        elif name in PUBLISHED:
            counts, source = _counts_published(name), "its published config.json"
    except AssetError as error:
        source = str(error)
    if not counts:
        return [Weights(name, source=source)]
    return [
        Weights(name, part, count, dtype_on_gpu((dtypes or {}).get(part, dtype)), offloaded, source=source)
        for part, count in counts.items()
        if part not in but
    ]


def file_weights(path: str, parameters: int | None = None, source: str = "no file here") -> list[Weights]:
    """The weights of a model that is one file of float32: counted by its size where it is here.

    Args:
        path: of the file.
        parameters: the published number, for a file that is not here.
        source: of the published number.
    """
    file = Path(path)
    if file.is_file():
        return [Weights(file.name, parameters=file.stat().st_size // 4, source="the file's size")]
    return [Weights(file.name, parameters=parameters, source=source)]


def folder_on_disk(checkpoint: str) -> Path | None:
    """The folder of a checkpoint, or of its repository in the hub's cache; None when it is not here.

    Unlike `hub.folder_of` it fetches nothing, and a half downloaded one will do: it is only counted.
    """
    for marker in ("model_index.json", "config.json"):
        if (Path(checkpoint) / marker).is_file():
            return Path(checkpoint)
    name, _, revision = checkpoint.partition("@")
    if name.count("/") != 1 or name.startswith((".", "/")):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for marker in ("model_index.json", "config.json"):
        try:
            cached = try_to_load_from_cache(name, marker, revision=revision or None)
        except HFValidationError:  # a relative folder, which is no repository's name
            return None
        if isinstance(cached, str):
            return Path(cached).parent
    return None


@functools.cache
def _counts_published(name: str) -> dict[str, int]:
    return {part: _count_layout(layout) for part, layout in PUBLISHED[name].items()}


@functools.cache
def _counts_in(folder: Path) -> dict[str, int]:
    """Part -> parameters of the checkpoint in a folder."""
    try:
        if not (folder / "model_index.json").is_file():
            config = json.loads((folder / "config.json").read_text())
            return {"model": _count_folder("transformers", config["architectures"][0], folder)}
        index = json.loads((folder / "model_index.json").read_text())
        return {
            part: _count_folder(named[0], named[1], folder / part)
            for part, named in index.items()
            if isinstance(named, list) and named[0] and (folder / part / "config.json").is_file()
        }
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError, ImportError) as error:
        raise AssetError(
            f"its configuration is none that can be counted: {first_line(error)[:120]}"
        ) from None


def _count_folder(library: str, name: str, folder: Path) -> int:
    """Parameters of the class `name` of a library with the configuration in `folder`."""
    kind = getattr(hub.package(library), name)
    if library == "diffusers":
        return _count(lambda: kind.from_config(kind.load_config(folder)))
    return _count(lambda: kind(kind.config_class.from_pretrained(folder)))


def _count_layout(layout: Layout) -> int:
    """Parameters of a published layout."""
    (library, _, name), config = layout[0].partition("."), dict(layout[1])
    kind = getattr(hub.package(library), name)
    if library == "diffusers":
        return _count(lambda: kind.from_config(config))
    return _count(lambda: kind(kind.config_class(**config)))


def _count(build: Any) -> int:
    """Parameters of the model that `build` makes, of which no memory is taken. Tied ones count once."""
    import torch

    with torch.device("meta"):
        model = build()
    return sum(parameter.numel() for parameter in model.parameters())
