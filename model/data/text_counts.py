"""Tokens of all texts of a folder, counted once and kept beside its columns, by tokenizer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from model.encoders import TextEncoder
from model.sequence.interleave import texts_of
from shards.columns import Columns, write_text_counts
from shards.reader import ShardSet
from shards.sample import split_text


def count_texts(folder: str, text_encoder: TextEncoder) -> bool:
    """Count the texts of a folder of shards, of all its splits; False where that was done before.

    Raises:
        shards.errors.SettingError: a text that is longer than the encoder takes.
        OSError: the columns cannot be written to.
    """
    columns, tokenizer = ShardSet(folder).columns, text_encoder.tokenizer_hash()
    if columns.has_text_counts(tokenizer):
        return False
    write_text_counts(columns, tokenizer, _counts(columns, text_encoder))
    return True


def _counts(columns: Columns, text_encoder: TextEncoder) -> Iterator[NDArray[np.uint32]]:
    for shard in range(len(columns.shards)):
        pieces = [texts_of(split_text(text)) for _, text in columns.keys_and_texts(shard)]
        parts = list(dict.fromkeys(part for some in pieces for part in some))
        counts = dict(zip(parts, text_encoder.count(parts), strict=True))
        yield np.array([sum(counts[part] for part in some) for some in pieces], np.uint32)
