"""What is in shard folders, counted over their columns: sizes, lengths, rates, tokens, tasks, words, scores.

No media are read and nothing is kept per sample: kinds and texts come shard by shard, and each distribution
is a count per value.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from shards.columns import SampleKind
from shards.errors import SettingError
from shards.files import write_bytes, write_json
from shards.index import TokenGeometry
from shards.reader import ShardSet
from shards.reports import plots
from shards.reports.pages import ASSETS
from shards.sample import split_text
from shards.scores import open_scores
from shards.terminal import print_table

BINS = 30
WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
GRID = (
    ".plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); "
    "gap: 0 16px; align-items: start; } .plots figure { margin: 8px 0; } "
    "@media (max-width: 620px) { svg text { font-size: 16px; } }"
)
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_WORDS = 200_000  # different words that are counted; rarer ones that come later are left out


@dataclass
class Distribution:
    """A number of every sample, as a count per value; `missing` of them have none."""

    unit: str = ""
    counts: Counter[float] = field(default_factory=Counter)
    missing: int = 0

    def summary(self) -> dict[str, Any]:
        """Count, mean, least, largest, quantiles, and a histogram of `BINS` equal bins, as JSON values."""
        if not self.counts:
            return {"unit": self.unit, "count": 0, "missing": self.missing}
        values = np.array(sorted(self.counts))
        weights = np.array([self.counts[value] for value in values.tolist()])
        ends = np.cumsum(weights)
        places = np.searchsorted(ends, np.array(SHARES) * ends[-1])
        histogram, edges = _histogram(values, weights)
        return {
            "unit": self.unit,
            "count": int(ends[-1]),
            "missing": self.missing,
            "mean": float((values * weights).sum() / ends[-1]),
            "min": float(values[0]),
            "max": float(values[-1]),
            "quantiles": {str(s): float(values[p]) for s, p in zip(SHARES, places, strict=True)},
            "histogram": {"edges": edges, "counts": histogram},
        }


def _histogram(values: np.ndarray, weights: np.ndarray) -> tuple[list[int], list[float]]:
    low, high = float(values[0]), float(values[-1])
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, BINS, (low, high), weights=weights)
    return [int(count) for count in counts], [float(edge) for edge in edges]


@dataclass
class Statistics:
    """All that is counted of some folders.

    Attributes:
        sizes, rates, tasks, splits: name -> samples or elements; numbers: name -> its distribution.
        scores: name -> its summary, see `Distribution.summary`.
    """

    folders: list[str]
    samples: int = 0
    shards: int = 0
    bytes: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    rates: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, Distribution] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "folders": self.folders,
            "samples": self.samples,
            "shards": self.shards,
            "bytes": self.bytes,
            "tasks": dict(self.tasks.most_common()),
            "splits": dict(self.splits.most_common()),
            "elements": dict(self.elements.most_common()),
            "sizes": dict(self.sizes.most_common()),
            "rates": dict(self.rates.most_common()),
            "words": dict(self.words.most_common(100)),
            **{name: one.summary() for name, one in self.numbers.items()},
            "scores": self.scores,
        }


def statistics_of(directories: Sequence[str], scores: bool = True) -> Statistics:
    """Count folders or URLs.

    Args:
        scores: also the scores of the samples; the samples' own are read out of the tars once for that, and
            kept as columns (`shards.scores`).

    Raises:
        ShardError: a folder cannot be read. SettingError: none is given.
    """
    if not directories:
        raise SettingError("no shard folder is given; name at least one")
    found = Statistics(list(directories))
    units = {"frames": "of a video", "seconds": "of a video", "vision_tokens": "of a sample"}
    units |= {"instruction_words": "of a sample", "text_tokens": "of a sample"}
    found.numbers = {name: Distribution(unit) for name, unit in units.items()}
    stored: dict[str, list[np.ndarray]] = {}
    for directory in directories:
        shards = ShardSet(directory)
        found.samples += len(shards)
        found.shards += len(shards.shards)
        found.bytes += sum(row.bytes for row in shards.rows)
        _count_kinds(found, shards)
        _count_texts(found, shards)
        _count_text_tokens(found, shards)
        if scores:
            opened = open_scores(directory)
            for name in opened.names:
                stored.setdefault(name, []).append(opened.column(name))
    found.scores = {name: _of_columns(columns, found.samples) for name, columns in sorted(stored.items())}
    return found


def _count_kinds(found: Statistics, shards: ShardSet) -> None:
    columns, geometry = shards.columns, TokenGeometry()
    counts = np.zeros(len(columns.label_of_kind), np.int64)
    for shard in shards.shards.tolist():
        counts += np.bincount(columns.kinds(shard), minlength=len(counts))
    for number in np.flatnonzero(counts).tolist():
        kind, count = columns.kind(number), int(counts[number])
        found.tasks[kind.label.task] += count
        found.splits[kind.label.split] += count
        _count_elements(found, kind, count)
        shapes = {one.name: (one.frames, one.height, one.width) for one in kind.elements}
        tokens = sum(geometry.tokens(*shapes[name]) for name in kind.order)
        found.numbers["vision_tokens"].counts[tokens] += count


def _count_elements(found: Statistics, kind: SampleKind, count: int) -> None:
    for one in kind.elements:
        found.elements[one.kind] += count
        found.sizes[f"{one.width}x{one.height}"] += count
        if one.kind != "video":
            continue
        found.numbers["frames"].counts[one.frames] += count
        if one.fps is None:
            found.numbers["seconds"].missing += count
            continue
        found.rates[f"{one.fps:g}"] += count
        found.numbers["seconds"].counts[round(one.frames / one.fps, 2)] += count


def _count_texts(found: Statistics, shards: ShardSet) -> None:
    lengths = found.numbers["instruction_words"].counts
    for shard in shards.shards.tolist():
        for _, text in shards.columns.keys_and_texts(shard):
            said = " ".join(part for kind, part in split_text(text) if kind == "text")
            words = WORD.findall(said.lower())
            lengths[len(words)] += 1
            for word in words:
                if word in found.words or len(found.words) < MOST_WORDS:
                    found.words[word] += 1


def _count_text_tokens(found: Statistics, shards: ShardSet) -> None:
    """Where a tokenizer has counted the texts of a folder; the first of several."""
    number = found.numbers["text_tokens"]
    paths = [p for p in sorted(shards.columns.folder.glob("tokens-*.npy")) if "checksums" not in p.name]
    if not paths:
        number.missing += len(shards)
        return
    values, counts = np.unique(np.load(paths[0], mmap_mode="r", allow_pickle=False), return_counts=True)
    number.counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _of_columns(columns: Iterable[np.ndarray], samples: int) -> dict[str, Any]:
    """The summary of a score; values are told apart to five digits, so that their counts stay few."""
    score, there = Distribution(), 0
    for column in columns:
        for start in range(0, len(column), 1 << 16):
            part = column[start : start + (1 << 16)]
            known = part[np.isfinite(part)]
            there += len(known)
            rounded, counts = np.unique(_five_digits(known), return_counts=True)
            score.counts.update(dict(zip(rounded.tolist(), counts.tolist(), strict=True)))
    score.missing = samples - there
    return score.summary()


def _five_digits(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64)
    with np.errstate(divide="ignore"):
        power = 10.0 ** (4 - np.floor(np.log10(np.where(wide == 0, 1.0, np.abs(wide)))))
    return np.round(wide * power) / power


# ---- showing -----------------------------------------------------------------------------------------------


def print_statistics(found: Statistics) -> None:
    """Tables on stdout."""
    print(
        f"{found.samples} samples, {found.shards} shards, {found.bytes} bytes; "
        + ", ".join(f"{count} {split}" for split, count in found.splits.most_common())
    )
    for title, counts in _named(found).items():
        table = Table(title.rstrip("s") if title != "rates, fps" else "fps", "count", title=title)
        for name, count in counts:
            table.add_row(name, str(count))
        print_table(table)
    table = Table("number", "count", "missing", "least", "5 %", "median", "95 %", "largest", "mean")
    rows = {name: one.summary() for name, one in found.numbers.items()} | found.scores
    for name, one in rows.items():
        if not one["count"]:
            table.add_row(name, "0", str(one["missing"]))
            continue
        quantiles = (one["quantiles"][str(share)] for share in (0.05, 0.5, 0.95))
        told = (one["min"], *quantiles, one["max"], one["mean"])
        table.add_row(name, str(one["count"]), str(one["missing"]), *map(plots.number, told))
    print_table(table)


def _named(found: Statistics, most: int = 12) -> dict[str, list[tuple[str, int]]]:
    named = {"tasks": found.tasks, "sizes": found.sizes, "rates, fps": found.rates}
    return {title: counts.most_common(most) for title, counts in named.items() if counts}


def plots_of(found: Statistics) -> dict[str, str]:
    """File name without its ending -> SVG."""
    made = {title.partition(",")[0]: plots.named_bars(title, rows) for title, rows in _named(found).items()}
    if found.words:
        made["words"] = plots.named_bars("most frequent words", found.words.most_common(20))
    numbers = {name: one.summary() for name, one in found.numbers.items()}
    numbers |= {f"score-{name}": one for name, one in found.scores.items()}
    for name, one in numbers.items():
        if one["count"]:
            bins: Mapping[str, Any] = one["histogram"]
            title = name.removeprefix("score-").replace("_", " ")
            made[name] = plots.histogram(title, bins["edges"], bins["counts"], one["unit"])
    return made


def write_statistics(found: Statistics, folder: Path) -> None:
    """Write stats.json, an SVG for every distribution, and stats.html with all of them."""
    drawn = plots_of(found)
    for name, svg in drawn.items():
        write_bytes(folder / f"{re.sub(r'[^a-z0-9_-]', '_', name.lower())}.svg", svg.encode())
    write_json(folder / "stats.json", found.to_json())
    figures = "".join(f'<figure class="card">{svg}</figure>' for svg in drawn.values())
    title = f"{found.samples:,} samples"
    where = html.escape(", ".join(found.folders))
    style = f"<style>{(ASSETS / 'page.css').read_text()}\n{GRID}</style>"
    page = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n'
        f'<link rel="icon" href="data:,">\n{style}\n<main><h1>{title}</h1><p class="quiet">{where}: '
        f"{found.shards} shards, {found.bytes:,} bytes</p>"
        f'<div class="plots">{figures}</div></main>\n</html>\n'
    )
    write_bytes(folder / "stats.html", page.encode())
