"""Faults of the set-up, which stop a run since no clip could do without: what is missing, or too small."""

from __future__ import annotations

import re

from shards.errors import EditVerseError


class AssetError(EditVerseError, RuntimeError):
    """A file that could not be fetched or is not what it should be; one line that says what to do."""


# What torch, CUDA, its libraries and onnxruntime say; also as the last words of a program.
OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|CUDA( error| failure \d+)?:? out of memory|CUBLAS_STATUS_ALLOC_FAILED"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a GPU is used up, in this process or in a program."""
    return bool(OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"))
