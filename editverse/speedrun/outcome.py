"""What a stage brought, in a line and in numbers, read from what its commands wrote."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from editverse.speedrun.recipe import Stage
from editverse.speedrun.records import read_mapping

MAX_LINE = 60  # characters of a line about a stage
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shard_folders(run: Path, makes: Sequence[str]) -> Iterator[Path]:
    """The shard folders among what a stage makes, two levels deep."""
    for path in makes:
        for pattern in ("manifest.jsonl", "*/manifest.jsonl", "*/*/manifest.jsonl"):
            yield from (found.parent for found in sorted((run / path).glob(pattern)))


def num_samples(folder: Path) -> int:
    """Samples of a shard folder, by its manifest; 0 where it cannot be read."""
    total = 0
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            total += int(json.loads(line)["samples"])
        except (ValueError, TypeError, KeyError):
            continue
    return total


def units_of(stage: Stage, run: Path) -> dict[str, float]:
    """Numbers of what a stage made: samples, pairs before and after a filter, shards, steps, items."""
    units: dict[str, float] = {}
    folders = list(shard_folders(run, stage.counts or stage.makes))
    if folders:
        units["samples"] = sum(map(num_samples, folders))
    encoded = [place for path in stage.makes for place in (run / path).glob("encoding.json")]
    if encoded:
        # an index is written when its tar is whole; hidden parts of tars may lie beside them
        units["shards"] = sum(len(list(place.parent.glob("*.index.json"))) for place in encoded)
    retained = [read_mapping(folder / "retention.json").get("total") for folder in folders]
    totals = [total for total in retained if isinstance(total, dict)]
    if totals:
        units["candidates"] = sum(total.get("candidates", 0) for total in totals)
        units["retained"] = sum(total.get("retained", 0) for total in totals)
    for path in stage.makes:
        found = [(run / path).glob(f"{'*/' * depth}summary.json") for depth in range(3)]
        for summary in sorted({*itertools.chain(*found)}):
            value = read_mapping(summary)
            for name in ("steps", "items"):
                if isinstance(value.get(name), int) and not folders:
                    units[name] = units.get(name, 0) + value[name]
    return units


def line_of(stage: Stage, units: dict[str, float], log: Path) -> str:
    """A stage's outcome in words, without paths; the last line of its log where nothing is known of it."""
    if "candidates" in units:
        return f"{units['retained']:.0f} of {units['candidates']:.0f} samples kept"
    for name, what in (("samples", ""), ("shards", " encoded"), ("steps", ""), ("items", " scored")):
        if name in units:
            return f"{units[name]:,.0f} {name}{what}"
    said = last_line(log)
    return said if said and "/" not in said else "done"  # a line is the same for the same run elsewhere


def last_line(log: Path, most: int = MAX_LINE) -> str:
    """The last line of a log that says anything, without colours, of so many characters; "" if none does."""
    try:
        with log.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - 8192))
            text = handle.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    lines = [CODES.sub("", part).strip() for part in re.split(r"[\r\n]", text)]
    words = (line for line in reversed(lines) if re.search(r"\w", line) and not line.startswith("$ "))
    said = next(words, "")
    return said if len(said) <= most else said[: most - 3] + "..."
