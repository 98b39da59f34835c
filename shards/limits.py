"""How large a file from outside may be: one list of limits, used by every reader.

A reader checks what a file's header claims before it allocates anything, so that a small file cannot ask for
a large machine. Every limit is far above what the paper's data needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shards.errors import EditVerseError

MAX_SIDE = 16_384  # pixels, of an image or frame
MAX_PIXELS = 1 << 26  # of an image or frame: 8192x8192
MAX_FRAMES = 1 << 20  # of a video; nine hours at 30 frames per second
MAX_SECONDS = 12 * 3600.0  # of a video
MAX_FPS = 1000.0  # frames per second of a video
MAX_DECODED_BYTES = 4 << 30  # of the frames of one array: about 5,000 frames of 480x640
MAX_JSON_BYTES = 64 << 20  # of a JSON or YAML document, except the index of a shard
MAX_INDEX_BYTES = 1 << 30  # of a manifest, or of the index of one shard
MAX_NESTING = 64  # of lists and objects in a document


class LimitError(EditVerseError):
    """A file beyond a limit of `shards.limits`; the message names the file and the limit."""


def check_nesting(value: Any, where: str) -> None:
    """Refuse lists and objects nested deeper than `MAX_NESTING`; LimitError names `where`."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_NESTING:
            raise LimitError(f"{where}: nested deeper than {MAX_NESTING} levels")
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]


def parse_json(data: bytes | str, where: str) -> Any:
    """A JSON document from outside; `where` is how messages call it.

    Raises:
        LimitError: larger than `MAX_JSON_BYTES` or nested deeper than `MAX_NESTING`.
        EditVerseError: not JSON.
    """
    if len(data) > MAX_JSON_BYTES:
        raise LimitError(f"{where}: {len(data)} bytes, a document may have {MAX_JSON_BYTES}")
    try:
        value = json.loads(data)
    except RecursionError:
        raise LimitError(f"{where}: nested deeper than {MAX_NESTING} levels") from None
    except ValueError as error:  # UnicodeDecodeError, a number of thousands of digits, or no JSON
        raise EditVerseError(f"{where}: not JSON ({error})") from None
    check_nesting(value, where)
    return value


def read_json(path: str | Path) -> Any:
    """`parse_json` of a file; FileNotFoundError where there is none, LimitError for what is no file."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise LimitError(f"{path}: not a regular file")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise LimitError(f"{path}: {path.stat().st_size} bytes, a document may have {MAX_JSON_BYTES}")
    return parse_json(path.read_bytes(), str(path))
