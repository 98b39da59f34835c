"""`python -m model info`: parameters of a configuration, and the work of an edit by its length.

Counted on the meta device and by `model.planner.flops`; nothing is loaded.
"""

from __future__ import annotations

import dataclasses

import torch

from model.config import ModelConfig, build_part
from model.encoders import Codec, TextEncoder
from model.extras.config import ExtrasConfig
from model.net.config import DiTConfig
from model.net.dit import DiT
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
    return dataclasses.replace(
        config, text_dim=text.width, vision_dim=codec.channels * model.sequence.patch**2
    )


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
    table = Table(
        "tokens",
        "forward",
        "backward",
        "edit, context full",
        "edit, context cached",
        title=f"TFLOP; an edit is {steps} steps" + (" with guidance" if guided else ""),
    )
    for length in tokens:
        vision = (length - WORDS - 4) // 2
        if vision < 1:
            raise ConfigError(f"tokens: {length} are too few for a source, {WORDS} words and a target")
        shape = Shape(
            text=WORDS,
            vision=2 * vision,
            noisy=vision + 2,
            target=vision,
            total=WORDS + 2 * vision + 4,
            segments=3,
        )
        edits = [
            edit_flops(dataclasses.replace(config, context=context), [shape], steps, guided, copies)
            for context in ("full", "cached")
        ]
        flops = (
            forward_flops(config, [shape], copies),
            backward_flops(config, [shape], copies=copies),
            *edits,
        )
        table.add_row(f"{length:,}", *(f"{f / 1e12:,.3g}" for f in flops))
    console.print(table)


def parameter_count(config: DiTConfig, extras: ExtrasConfig | None = None) -> int:
    """Weights of a transformer, counted on the meta device."""
    with torch.device("meta"):
        return sum(p.numel() for p in DiT(config, extras).parameters())
