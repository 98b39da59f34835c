"""Low-rank adapters of Wan's family in files: written as diffusers takes them, read from several programs.

Written is the layout of diffusers' `WanPipeline.load_lora_weights`: `pytorch_lora_weights.safetensors` with
`transformer.blocks.N.attn1.to_q.lora_A.weight`, and for the second of two experts
`pytorch_lora_weights_2.safetensors` with the same names (`load_into_transformer_2=True`). What is read may
also have peft's prefix `base_model.model.`, or the original names of Wan's modules behind `diffusion_model.`
(ComfyUI) or `lora_unet_` (musubi-tuner), with `lora_down`, `lora_up` and `alpha`.

Our queries and keys of `attn1` have other rows than theirs, see `model.net.wan_weights`; so have the second
factors of their adapters.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.inference.pretrained import FLOATS, PICKLES, write_weights
from model.net.wan_config import WanConfig
from model.net.wan_weights import from_diffusers, to_diffusers
from shards.errors import ConfigError, EditVerseError
from shards.limits import MAX_RANK, in_range, parse_json, shown

log = logging.getLogger(__name__)

FIRST, SECOND = "pytorch_lora_weights.safetensors", "pytorch_lora_weights_2.safetensors"
METADATA = "lora_adapter_metadata"  # diffusers' key in a file's header
EXPERTS = ("transformer.", "transformer_2.")  # what the names of two experts' weights begin with
PREFIXES = ("transformer.", "diffusion_model.", "base_model.model.", "lora_unet_")
CONVOLUTION = "patch_embedding"  # a linear layer here alone
KINDS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_down.weight": "A",
    ".lora_up.weight": "B",
    ".alpha": "alpha",
}
ORIGINAL = {  # modules, as Wan's own code calls them
    "attn1.": "self_attn.",
    "attn2.": "cross_attn.",
    "to_out.0": "o",
    "to_": "",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
}
Shapes = Mapping[str, tuple[int, int]]  # of linear layers by name: outputs, inputs


@dataclass(frozen=True)
class Scaling:
    """By what a layer's product of factors is multiplied, where the file holds no `alpha` of its own.

    Attributes:
        alpha: divided by the rank; None is a scale of 1, as diffusers reads a file that says nothing.
        rslora: divided by the root of the rank instead.
        pattern: alphas of single layers, by their names or the ends of their names.
        base: what the adapter was trained from, "" where that is not said.
    """

    alpha: float | None = None
    rslora: bool = False
    pattern: Mapping[str, float] | None = None
    base: str = ""

    def of(self, layer: str, rank: int) -> float:
        """Of a layer by its name in diffusers' layout."""
        alpha = self.alpha
        for end, value in (self.pattern or {}).items():
            if layer == end or layer.endswith(f".{end}"):
                alpha = value
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.rslora else rank)


@dataclass(frozen=True)
class Factors:
    """One layer's adapter in a file.

    Attributes:
        down, up: names of the factors, [rank, inputs] and [outputs, rank].
        scale: of their product.
    """

    file: Path
    down: str
    up: str
    rank: int
    scale: float


def spellings(layer: str) -> list[str]:
    """All names that files have for a linear layer, its own among them."""
    original = layer
    for ours, theirs in ORIGINAL.items():
        original = original.replace(ours, theirs)
    return [layer, original, original.replace(".", "_")]


def adapter_files(path: Path) -> list[Path]:
    """The safetensors of an adapter, first expert first; ConfigError where there are none, or only a pickle.

    Args:
        path: such a file, or a folder with one.
    """
    if path.is_file():
        if path.suffix in PICKLES:
            raise ConfigError(f"{path} is a pickle, which can run code: convert it to safetensors")
        return [path]
    files = sorted(path.glob("[!.]*.safetensors")) if path.is_dir() else []
    named = [path / name for name in (FIRST, SECOND) if path / name in files]
    if named:
        if path / FIRST not in named:
            raise ConfigError(f"{path / FIRST}: not found; is the adapter complete?")
        return named
    if len(files) > 1:
        raise ConfigError(
            f"{path}: holds several files, {files[0].name} and {files[1].name}: name one of them"
        )
    if not files:
        pickles = sorted(p.name for p in path.glob("*") if p.suffix in PICKLES) if path.is_dir() else []
        why = f"; {pickles[0]} is a pickle, which can run code: convert it" if pickles else ""
        raise ConfigError(f"{path / FIRST}: not found{why}")
    return files


def read_factors(
    files: list[Path], linear: Shapes, network: WanConfig, owner: str, scaling: Scaling | None = None
) -> dict[str, Factors]:
    """What adapts each layer, by the files' headers and `alpha`s alone.

    Args:
        linear: the model's linear layers.
        owner: what the model is, for messages.
        scaling: what a file beside them says; that of the file's header when None.

    Raises:
        ConfigError: a file is damaged or of another model, or holds what is no factor of a linear layer; the
            message names the tensor and both models.
    """
    result: dict[str, Factors] = {}
    for file, prefix in zip(files, ("", "") if network.boundary is None else EXPERTS, strict=False):
        result |= _FileReader(file, prefix, linear, network, owner, scaling).factors()
    if not result:
        raise ConfigError(f"{files[0]}: holds no factors of low rank")
    if network.boundary is not None and not any(name.startswith(EXPERTS[1]) for name in result):
        log.warning("%s: adapts the first of two experts alone; the second's is %s", files[0], SECOND)
    return result


class _FileReader:
    """Reads one file's header."""

    def __init__(
        self,
        file: Path,
        prefix: str,
        linear: Shapes,
        network: WanConfig,
        owner: str,
        scaling: Scaling | None,
    ) -> None:
        self.file, self.prefix, self.linear, self.owner = file, prefix, linear, owner
        self.experts = network.boundary is not None
        self.layers = {
            spelling: name.removeprefix(prefix)
            for name in linear
            if name.startswith(prefix)
            for spelling in spellings(name.removeprefix(prefix))
        }
        self.shapes: dict[str, list[int]] = {}
        self.alphas: dict[str, float] = {}
        self.scaling = self._open(scaling)

    def _open(self, scaling: Scaling | None) -> Scaling:
        from safetensors import SafetensorError, safe_open

        if not self.file.is_file():
            raise ConfigError(f"{self.file}: not a regular file")
        try:
            with safe_open(self.file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (no mapping)
                    header = opened.get_slice(name)
                    if header.get_dtype() not in FLOATS:
                        raise ConfigError(f"{self.file}: weight {shown(name)} is {header.get_dtype()}")
                    self.shapes[name] = list(header.get_shape())
                    if name.endswith(".alpha") and math.prod(self.shapes[name]) == 1:
                        self.alphas[name] = float(opened.get_tensor(name))
                return scaling or read_scaling(opened.metadata() or {}, self.file)
        except (SafetensorError, OSError, ValueError, OverflowError, RuntimeError) as error:
            if isinstance(error, EditVerseError):
                raise
            raise ConfigError(f"{self.file}: {error}; is the file complete?") from error

    def factors(self) -> dict[str, Factors]:
        held: dict[str, dict[str, str]] = {}
        for name in self.shapes:
            layer, kind = self._layer_of(name)
            if kind in held.setdefault(layer, {}):
                raise self._mismatch(name, "is there twice, by two names")
            held[layer][kind] = name
        return {layer: self._factors_of(layer, names) for layer, names in held.items()}

    def _layer_of(self, name: str) -> tuple[str, str]:
        """Our full name of the layer that a tensor belongs to, and what it is of it."""
        end = next((end for end in KINDS if name.endswith(end)), None)
        if end is None:
            raise ConfigError(
                f"{self.file}: weight {shown(name)} is no factor of low rank; only lora_A and lora_B (or "
                f"lora_down, lora_up and alpha) are taken"
            )
        spelling, prefix = name.removesuffix(end), self.prefix
        if self.experts and spelling.startswith(EXPERTS[1]):
            spelling, prefix = spelling.removeprefix(EXPERTS[1]), EXPERTS[1]
        else:
            start = next((start for start in PREFIXES if spelling.startswith(start)), "")
            spelling = spelling.removeprefix(start)
        if self.layers.get(spelling) == CONVOLUTION:
            raise ConfigError(f"{self.file}: weight {shown(name)}: adapters of {CONVOLUTION} are not taken")
        if spelling not in self.layers:
            raise self._mismatch(name, "is unknown")
        return prefix + self.layers[spelling], KINDS[end]

    def _factors_of(self, layer: str, names: dict[str, str]) -> Factors:
        for kind, other in (("A", "B"), ("B", "A")):
            if kind not in names:
                there = names.get(other, names.get("alpha"))
                raise self._mismatch(there, f"is there without the layer's factor {kind}")
        outputs, inputs = self.linear[layer]
        down = self.shapes[names["A"]]
        rank = down[0] if len(down) == 2 else 0
        for kind, wanted in (("A", [rank, inputs]), ("B", [outputs, rank])):
            found = self.shapes[names[kind]]
            if found != wanted:
                raise self._mismatch(names[kind], f"is {found}, not {wanted}")
        where = f"{self.file}: {names['A']}"
        try:
            in_range("rank", rank, 1, MAX_RANK)
            scale = self.scaling.of(layer.removeprefix(self.prefix), rank)
            if "alpha" in names:
                alpha = self.alphas.get(names["alpha"], math.nan)
                in_range("alpha", alpha, 0, 1e6)
                scale = alpha / rank
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
        return Factors(self.file, names["A"], names["B"], rank, scale)

    def _mismatch(self, name: str | None, problem: str) -> ConfigError:
        base = shown(self.scaling.base)
        if not self.scaling.base:
            downs = [shape for n, shape in self.shapes.items() if KINDS.get(n[n.rfind(".lora_") :]) == "A"]
            width = f" of width {downs[0][-1]}" if downs and downs[0] else ""
            base = f"a model{width} that it does not name"
        return ConfigError(
            f"{self.file}: trained from {base}, does not fit {self.owner}: weight {shown(name)} {problem}"
        )


def read_scaling(header: Mapping[str, str], file: Path) -> Scaling:
    """What diffusers' metadata in a file's header says; ConfigError for what is not supported."""
    if METADATA not in header:
        return Scaling()
    try:
        value = parse_json(header[METADATA], f"{file}: {METADATA}")
    except EditVerseError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: {METADATA}: expected an object, got {shown(value)}")
    start = EXPERTS[0]
    own = {name.removeprefix(start): item for name, item in value.items() if name.startswith(start)}
    for name in ("use_dora", "lora_bias", "modules_to_save"):
        if own.get(name):
            raise ConfigError(f"{file}: {METADATA}: {name}: {shown(own[name])} is not supported")
    rslora, pattern = own.get("use_rslora") or False, own.get("alpha_pattern") or {}
    if type(rslora) is not bool or not isinstance(pattern, dict):
        raise ConfigError(f"{file}: {METADATA}: use_rslora and alpha_pattern are of another kind")
    plain = {name.removeprefix("^").replace("\\.", "."): alpha for name, alpha in pattern.items()}
    try:
        in_range("lora_alpha", own.get("lora_alpha", 8), 0, 1e6)
        for name, alpha in plain.items():
            if not re.fullmatch(r"[\w.]+", name):
                raise ValueError(f"alpha_pattern: {shown(name)} is an expression, which is not run")
            in_range(f"alpha_pattern: {name}", alpha, 0, 1e6)
    except ValueError as error:
        raise ConfigError(f"{file}: {METADATA}: {error}") from error
    base = own.get("base_model_name_or_path")
    return Scaling(own.get("lora_alpha", 8), rslora, plain, base if isinstance(base, str) else "")


def read_state(factors: Mapping[str, Factors], heads: int, device: torch.device) -> dict[str, Tensor]:
    """The factors as float32 in our layout, under peft's names, with the scale in the second one.

    Raises:
        ConfigError: values that are not finite, by name.
    """
    from safetensors import safe_open

    state: dict[str, Tensor] = {}
    for file in dict.fromkeys(f.file for f in factors.values()):
        with safe_open(file, framework="pt", device=str(device)) as opened:
            for layer, own in factors.items():
                if own.file != file:
                    continue
                down, up = opened.get_tensor(own.down).float(), opened.get_tensor(own.up).float()
                up = from_diffusers(f"{_in_expert(layer)}.weight", up * own.scale, heads)
                for name, value in ((own.down, down), (own.up, up)):
                    if not torch.isfinite(value).all():
                        raise ConfigError(f"{file}: weight {name!r} holds values that are not finite")
                state |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    return state


def _in_expert(layer: str) -> str:
    return re.sub(r"^transformer(_2)?\.", "", layer)


def write_adapter(dit: nn.Module, state: Mapping[str, Tensor], folder: Path, base: str | None) -> None:
    """Write adapters as diffusers takes them; the file without which nothing is read comes last.

    The scale (alpha / rank) is multiplied into the second factor, and alpha is written as the rank: programs
    that do not know of diffusers' metadata take the scale for 1.

    Args:
        dit: with the adapter `default` of peft.
        state: its factors by peft's names.
        base: what it was trained from.
    """
    config: Any = dit.config
    two = config.boundary is not None
    for prefix, name in ((EXPERTS[1], SECOND), (EXPERTS[0], FIRST)) if two else (("", FIRST),):
        tensors, ranks = {}, {}
        for full, value in state.items():
            if not full.startswith(prefix):
                continue
            layer, _, kind = full.removeprefix(prefix).rpartition(".lora_")
            module: Any = dit.get_submodule(prefix + layer)
            ranks[layer] = module.r["default"]
            if kind.startswith("B"):
                value = to_diffusers(f"{layer}.weight", value * module.scaling["default"], config.heads)
            tensors[f"{EXPERTS[0]}{layer}.lora_{kind}"] = value
        if tensors:
            write_weights(folder / name, tensors, {METADATA: json.dumps(_metadata(ranks, base))})


def _metadata(ranks: dict[str, int], base: str | None) -> dict[str, Any]:
    rank = Counter(ranks.values()).most_common()[0][0]
    others = {re.escape(layer): r for layer, r in ranks.items() if r != rank}
    value: dict[str, Any] = {"r": rank, "lora_alpha": rank, "target_modules": sorted(ranks)}
    value |= {"rank_pattern": others, "alpha_pattern": others} if others else {}
    value |= {"base_model_name_or_path": base} if base else {}
    return {EXPERTS[0] + name: item for name, item in value.items()}
