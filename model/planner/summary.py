"""`python -m model info`: parameters of a configuration, and the work of an edit by its length.

Counted on the meta device and by `model.planner.flops`; nothing is loaded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from model.config import ModelConfig, build_part
from model.encoders import Codec, TextEncoder
from model.extras.config import ExtrasConfig
from model.net.config import DiTConfig
from model.net.families import build_transformer
from model.net.wan_config import WanConfig
from model.planner.flops import Sizes, backward_flops, edit_flops, forward_flops
from model.planner.work import Shape
from shards.errors import ConfigError

WORDS = 16  # of the instruction that the work is counted for


def with_widths(model: ModelConfig) -> Sizes:
    """The transformer's settings, with the widths of the encoders where they are not given."""
    config = model.network
    if config.text_dim and config.vision_dim:
        return config
    codec = build_part(model.vae, Codec, "model.vae")
    text = build_part(model.text_encoder, TextEncoder, "model.text_encoder")
    return replace(config, text_dim=text.width, vision_dim=codec.channels * model.sequence.patch**2)


def describe(model: ModelConfig, tokens: list[int]) -> None:
    """Print the size of a model and the operations of an edit.

    Args:
        model: with `text_dim` and `vision_dim` 0 where they are the encoders'.
        tokens: lengths of sequences of a source, an instruction and a target as long as the source.
    """
    from rich.console import Console
    from rich.table import Table

    config = with_widths(model)
    console, count = Console(), parameter_count(config, model.extras)
    table = Table("", "", title="model", show_header=False)
    table.add_row("parameters", f"{count:,}")
    table.add_row("weights, bf16", f"{count * 2 / 2**30:.2f} GiB")
    table.add_row("weights, gradients and AdamW, fp32", f"{count * 16 / 2**30:.2f} GiB")
    table.add_row("width x depth", f"{config.width} x {config.depth}")
    kv_heads = (isinstance(config, DiTConfig) and config.kv_heads) or config.heads
    table.add_row("heads", f"{config.heads} of {config.width // config.heads}, {kv_heads} for keys")
    table.add_row("rope", "/".join(map(str, config.rope.dims)))
    table.add_row("text encoder", model.text_encoder["class_path"].rpartition(".")[2])
    table.add_row("codec", model.vae["class_path"].rpartition(".")[2])
    console.print(table)
    copies = model.extras.copy_bias is not None
    steps, guided = model.inference.steps, model.inference.guidance != 1
    # in Wan's family the clean tokens see the noisy ones, so that nothing of them can be kept
    contexts: tuple[Literal["full", "cached"], ...] = ("full", "cached")
    if not isinstance(config, DiTConfig):
        contexts = ("full",)
    table = Table(
        "tokens",
        "forward",
        "backward",
        *(f"edit, context {context}" for context in contexts),
        title=f"TFLOP; an edit is {steps} steps" + (" with guidance" if guided else ""),
    )
    for length in tokens:
        shape = _edit_shape(config, length)
        edits = [
            edit_flops(
                replace(config, context=context) if isinstance(config, DiTConfig) else config,
                *([shape], steps, guided, copies),
            )
            for context in contexts
        ]
        flops = (
            forward_flops(config, [shape], copies),
            backward_flops(config, [shape], copies=copies),
            *edits,
        )
        table.add_row(f"{length:,}", *(f"{f / 1e12:,.3g}" for f in flops))
    console.print(table)


def _edit_shape(config: Sizes, length: int) -> Shape:
    """A source and a target as long as each other, and an instruction, which is apart in Wan's family."""
    bounds = 0 if isinstance(config, WanConfig) else 2
    among = 0 if isinstance(config, WanConfig) else WORDS
    vision = (length - among - 2 * bounds) // 2
    if vision < 1:
        raise ConfigError(f"tokens: {length} are too few for a source, {WORDS} words and a target")
    return Shape(
        text=WORDS,
        vision=2 * vision,
        noisy=vision + bounds,
        target=vision,
        total=among + 2 * (vision + bounds),
        segments=2 + (among > 0),
    )


def parameter_count(config: Sizes, extras: ExtrasConfig | None = None) -> int:
    """Weights of a transformer, counted on the meta device."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_transformer(config, extras).parameters())
