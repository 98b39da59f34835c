"""What a visit makes of a sample: its mirror image, form, what is left without sources, its loss weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from model.sequence.interleave import patchify
from shards.index import IndexEntry
from shards.sample import Part, tags_of


def mirrored(text: str) -> str:
    """The text with "left" and "right" exchanged, case kept."""
    swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub(r"\b([Ll]eft|[Rr]ight)\b", lambda m: swap[m[0]], text)


def form_of(entry: IndexEntry, target: str) -> str:
    """A sample's form by the kinds of its sources and target, one of `model.data.batch.FORMS`."""
    made = "i" if entry.media[target][0] == "image" else "v"
    sources = {entry.media[name][0] for name in tags_of(entry.text) if name != target}
    if not sources:
        return f"t2{made}"
    if sources == {"image"}:
        return "i2i" if made == "i" else "r2v"
    return f"v2{made}"


def without_sources(
    entry: IndexEntry, parts: Sequence[Part], target: str, dropped: Collection[str]
) -> list[Part]:
    """A text's parts without the sources of kinds that are dropped; masks go with the videos."""
    gone = {*dropped, *(["mask"] if "video" in dropped else [])}
    return [
        (kind, part)
        for kind, part in parts
        if kind == "text" or part == target or entry.media[part][0] not in gone
    ]


def token_weights(
    entry: IndexEntry, latents: Mapping[str, Tensor], target: str, extra: float, patch: int
) -> Tensor:
    """Loss weight per target token, float32 [tokens], mean 1; `extra` is `DataConfig.edit_weight`."""
    tokens = patchify(latents[target], patch)
    same = [
        name
        for name, value in latents.items()
        if name != target and entry.media[name][0] != "mask" and value.shape == latents[target].shape
    ]
    if not extra or not same:
        return torch.ones(len(tokens))
    change = (tokens - patchify(latents[same[0]], patch)).square().mean(1).sqrt()
    weight = 1 + extra * (change / 0.5).clamp(max=1)
    return weight / weight.mean()
