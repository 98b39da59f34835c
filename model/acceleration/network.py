"""Shortcuts that change how a network is held and run: weights in eight bits, compiled blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from model.acceleration.config import Shortcuts
from model.net.activation_checkpointing import compiled_forward
from model.net.frozen_linear import FrozenLinear, freeze_base
from model.net.transformer import Transformer
from model.sequence.rope import mark_constants
from shards.errors import SettingError

ROUNDED = "rounded_to"  # attribute of a network whose weights an edit has rounded


@contextmanager
def accelerated(network: Transformer, shortcuts: Shortcuts) -> Iterator[None]:
    """Have a network run as `shortcuts` say; compiled blocks only inside the `with` block.

    Raises:
        SettingError: the weights are held otherwise since an edit before, or cannot be held so here.
    """
    hold_weights(network, shortcuts.weights)
    if not shortcuts.compile:
        yield
        return
    mark_constants()
    blocks: list[Any] = list(network.blocks)
    before = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        if not hasattr(block, "compiled_forward"):
            block.compiled_forward = compiled_forward(block)
        block.forward = block.compiled_forward
    try:
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is None:
                del block.forward  # the class's again
            else:
                block.forward = own


def held_as(network: Transformer) -> str:
    """How the weights of the blocks are held, in the words of `Shortcuts.weights`.

    A base that is trained in fewer bits beside an adapter is held as it was loaded.
    """
    return str(getattr(network, ROUNDED, "as_loaded"))


@torch.inference_mode(False)  # weights made in a caller's inference mode could not be moved again
@torch.no_grad()
def hold_weights(network: Transformer, weights: str) -> None:
    """Round the linear layers of the blocks to eight bits, in place, one by one; they cannot be trained then.

    Raises:
        SettingError: they are rounded already, to something else than is asked for, or the device has no
            such numbers.
    """
    held = held_as(network)
    if held == weights:
        return
    if held != "as_loaded":
        raise SettingError(
            f"shortcuts.weights: these weights were rounded to {held} by an edit before, so they cannot be "
            f"{weights}; load the model anew"
        )
    if weights == "fp8":
        try:
            torch.ones(1, device=network.device).to(torch.float8_e4m3fn).to(network.dtype)
        except (RuntimeError, TypeError) as error:
            raise SettingError(
                f"shortcuts.weights: {network.device.type} has no fp8 numbers; choose int8"
            ) from error
    kinds = {layer.kind for layer in network.blocks.modules() if isinstance(layer, FrozenLinear)}
    if kinds:
        raise SettingError(
            f"shortcuts.weights: these weights were loaded in fewer bits ({', '.join(sorted(kinds))}); leave "
            "it out"
        )
    network.blocks.requires_grad_(False)
    freeze_base(network, "int8" if weights == "int8" else "fp8")
    setattr(network, ROUNDED, weights)


def weight_bytes(network: Transformer) -> int:
    """Bytes of a network's weights as they are held."""
    return sum(p.numel() * p.element_size() for p in network.parameters())
