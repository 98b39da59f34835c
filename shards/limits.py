"""How large a file from outside may be: one list of limits, used by every reader.

A reader checks what a file's header claims before it allocates anything, so that a small file cannot ask for
a large machine. Every limit is far above what the paper's data needs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.errors import EditVerseError, SettingError, first_line

MAX_SIDE = 16_384  # pixels, of an image or frame
MAX_PIXELS = 1 << 26  # of an image or frame: 8192x8192
MAX_FRAMES = 1 << 20  # of a video; nine hours at 30 frames per second
MAX_SECONDS = 12 * 3600.0  # of a video
MAX_FPS = 1000.0  # frames per second of a video
MAX_DECODED_BYTES = 4 << 30  # of the frames of one array: about 5,000 frames of 480x640
MAX_JSON_BYTES = 64 << 20  # of a JSON or YAML document, except the index of a shard
MAX_INDEX_BYTES = 1 << 30  # of a manifest, or of the index of one shard
MAX_NESTING = 64  # of lists and objects in a document
MAX_YAML_BYTES = 4 << 20  # of a YAML document, which takes some 200 times as long to read as JSON
MAX_YAML_NODES = 1 << 20  # of a YAML document, with every alias counted as often as it is used
MAX_DIGITS = 300  # of a number in a YAML document
MAX_ANSWER = 1 << 20  # characters of a language model's answer
MAX_ROWS = 1 << 17  # of a benchmark's table
MAX_LINE_BYTES = 16 << 20  # of a line of a JSONL file

# Of a network that a checkpoint describes; the largest published transformers stay below.
MAX_WIDTH = 1 << 16  # of a layer, and of what a token holds
MAX_DEPTH = 1024  # blocks
MAX_HEADS = 1024
MAX_RANK = 4096  # of an adapter
MAX_PATCH = 64  # latent positions per token along a side, and pixels per latent position
MAX_BLOCK = 32  # pixels, side of a block of the transform codec
MAX_SOLVER_STEPS = 10_000


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


def parse_json(
    data: bytes | str,
    where: str,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """A JSON document from outside; `where` is how messages call it.

    Args:
        object_pairs_hook: see `json.loads`.

    Raises:
        LimitError: larger than `MAX_JSON_BYTES` or nested deeper than `MAX_NESTING`.
        EditVerseError: not JSON.
    """
    if len(data) > MAX_JSON_BYTES:
        raise LimitError(f"{where}: {len(data)} bytes, a document may have {MAX_JSON_BYTES}")
    try:
        raw = data.encode() if isinstance(data, str) else data
        value = json.loads(raw, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise LimitError(f"{where}: nested deeper than {MAX_NESTING} levels") from None
    except ValueError as error:  # UnicodeDecodeError, a number of thousands of digits, or no JSON
        raise EditVerseError(f"{where}: not JSON ({error})") from None
    check_nesting(value, where)
    if b"\\ud" in raw.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # such text could be neither printed nor written
            raise EditVerseError(f"{where}: not JSON (half of a surrogate pair in a string)") from None
    return value


def read_bytes(path: str | Path, most: int = MAX_JSON_BYTES) -> bytes:
    """The bytes of a regular file.

    Raises:
        LimitError: no regular file (a device never ends, a pipe may never begin), or larger than `most`.
        OSError: there is none, or it cannot be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise LimitError(f"{path}: not a regular file")
    with path.open("rb") as handle:
        data = handle.read(most + 1)
    if len(data) > most:
        raise LimitError(f"{path}: {path.stat().st_size} bytes, such a file may have {most}")
    return data


def read_text(path: str | Path, most: int = MAX_JSON_BYTES) -> str:
    """The UTF-8 text of a regular file; raises as `read_bytes`, and EditVerseError for what is no UTF-8."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise EditVerseError(f"{path}: not UTF-8 text ({error})") from None


def read_json(path: str | Path) -> Any:
    """`parse_json` of a file; raises OSError where there is none, LimitError for what is no file."""
    return parse_json(read_bytes(path), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """A YAML document from outside, of plain values only; `where` is how messages call it.

    Raises:
        LimitError: too large or nested too deep; with aliases that stand for too much; a number too long.
        EditVerseError: not YAML.
    """
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise LimitError(f"{where}: {len(text)} characters, a YAML document may have {MAX_YAML_BYTES}")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(text, Loader=loader), where)
        value = yaml.load(text, Loader=loader)
        json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()
        return value
    except RecursionError:
        raise LimitError(f"{where}: nested deeper than {MAX_NESTING} levels") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        # The safe loader raises ValueError for a date that is none, and for half of a surrogate pair.
        raise EditVerseError(f"{where}: not YAML ({first_line(error)})") from None


def _check_events(events: Any, where: str) -> None:
    """Refuse a document by its stream of events, before any of it is built."""
    import yaml

    # Per open collection: its anchor, and the nodes in it so far. Aliases count what they stand for.
    stack: list[tuple[str | None, int]] = [(None, 0)]
    sizes: dict[str, int] = {}

    def add(count: int) -> None:
        anchor, total = stack[-1]
        if total + count > MAX_YAML_NODES:
            raise LimitError(f"{where}: holds more than {MAX_YAML_NODES} values, aliases included")
        stack[-1] = anchor, total + count

    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append((event.anchor, 1))
            if len(stack) > MAX_NESTING + 1:
                raise LimitError(f"{where}: nested deeper than {MAX_NESTING} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, total = stack.pop()
            if anchor is not None:
                sizes[anchor] = total
            add(total)
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_DIGITS and re.fullmatch(r"[-+]?[0-9][0-9a-fA-FxX_:.]*", event.value):
                raise LimitError(f"{where}: a number of {len(event.value)} digits")
            if event.anchor is not None:
                sizes[event.anchor] = 1
            add(1)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise EditVerseError(f"{where}: not YAML (*{event.anchor} is undefined, or holds itself)")
            add(sizes[event.anchor])


def read_yaml(path: str | Path) -> Any:
    """`parse_yaml` of a file; raises OSError where there is none, LimitError for what is no file."""
    return parse_yaml(read_text(path, 4 * MAX_YAML_BYTES), str(path))


def shown(value: Any, most: int = 80) -> str:
    """`repr` of a value from outside for a message, cut to `most` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of more digits than Python prints
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else text[: most - 3] + "..."


def in_range(name: str, value: float, least: float, most: float) -> None:
    """Raise SettingError naming `name` unless least <= value <= most; what is no number is refused too."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        bounds = (
            f"from {least:.10g} to {most:.10g}" if math.isfinite(most) else f"{least:g} or above, and finite"
        )
        raise SettingError(f"{name}: a number {bounds}, got {shown(value)}")
