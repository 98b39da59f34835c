"""Scores and edits cached by content: what was computed once is not computed again.

Scores are lines of `scores.jsonl`, edits lossless .mkv files in `edits/`; what they depend on names both.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmark.core.item import BenchmarkError, Unscored, Worded
from shards.errors import EditVerseError
from shards.files import naming
from shards.hashing import digest
from shards.limits import MAX_LINE_BYTES, parse_json

Score = float | Unscored


def address(*parts: Any) -> str:
    """sha256 over the canonical JSON of what a cached thing depends on."""
    return digest(parts, "compact_utf8")


def number_out(value: float | None) -> float | str | None:
    """JSON has no infinity: it becomes the string "inf"."""
    return value if value is None or math.isfinite(value) else str(value)


def score_out(score: Score) -> dict[str, Any]:
    """A score as fields of a line."""
    used = {"usage": dict(score.usage)} if isinstance(score, Unscored | Worded) and score.usage else {}
    if isinstance(score, Unscored):
        failed = {"retry": True, "kind": score.kind} if score.retry else {}
        return {"unscored": score.reason, **failed, **used}
    words: dict[str, Any] = {"words": score.words} if isinstance(score, Worded) else {}
    if isinstance(score, Worded) and score.repeats:
        words["repeats"] = list(score.repeats)
    return {"value": number_out(float(score)), **words, **used}


def score_in(row: dict[str, Any]) -> Score:
    """The score that `score_out` wrote; ValueError or KeyError for what it never writes."""
    usage = row.get("usage", {})
    if not isinstance(usage, dict) or not all(type(n) is int and n >= 0 for n in usage.values()):
        raise ValueError("usage counts requests and tokens")
    words = row.get("unscored", row.get("words", ""))
    if not isinstance(words, str):
        raise ValueError("a reason and words are texts")
    if "unscored" in row:
        retry, kind = row.get("retry", False), row.get("kind", "")
        if not isinstance(retry, bool) or not isinstance(kind, str):
            raise ValueError("a failure is asked again or not, and has a kind")
        return Unscored(words, usage, retry, kind)
    value = number_in(row["value"])
    if value is None:
        raise ValueError("a score is a number")
    repeats = [number_in(one) for one in row.get("repeats", [])]
    if any(one is None for one in repeats):
        raise ValueError("repeats are numbers")
    return Worded(value, words, usage, tuple(map(float, repeats))) if "words" in row else value  # type: ignore[arg-type]


def number_in(value: Any) -> float | None:
    """A score as JSON has it: a number, "inf" as a word, or null where it is missing.

    Raises ValueError for anything else, such as what is not a number.
    """
    if value is None or value in ("inf", "-inf"):
        return value if value is None else float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError("a score is a number, or inf as a word")
    if isinstance(value, int) and abs(value) > 1 << 53:
        raise ValueError("a score is no number as large as this")
    return float(value)


def read_lines(path: Path, read_only: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of the lines of an append-only JSONL file; one cut short by a kill is dropped.

    Args:
        read_only: leave the piece of a line at the end where it is: somebody may be writing it.

    Raises:
        BenchmarkError: any other line that cannot be read, or what is no file.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise BenchmarkError(f"{path}: not a regular file")
    whole = number = 0  # bytes and count of the lines that end
    with path.open("rb") as handle:
        while line := handle.readline(MAX_LINE_BYTES):
            if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
                break
            whole, number = whole + len(line), number + 1
            try:
                row = parse_json(line, f"line {number}")
                if not isinstance(row, dict):
                    raise ValueError("a line is an object")
            except (EditVerseError, ValueError):
                raise damaged(path, number) from None
            yield number, row
    if whole < path.stat().st_size and not read_only:
        with path.open("r+b") as handle:
            handle.truncate(whole)


def damaged(path: Path, number: int) -> BenchmarkError:
    """What is said of a line of a file that is not as it was written."""
    return BenchmarkError(f"{path}: line {number} is damaged; delete the line or the file")


class ScoreStore:
    """Scores by address, in one append-only JSONL file.

    Each item's scores are appended and fsynced together. Of several lines with one address the last counts;
    `failures` counts those that are failures. See `read_lines` for what else the file may hold.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self._scores: dict[str, Score] = {}
        self._failures: Counter[str] = Counter()
        for number, row in read_lines(path, read_only):
            try:
                if not isinstance(row["address"], str):
                    raise ValueError("a line has an address")
                self._take(row["address"], score_in(row))
            except (ValueError, KeyError, TypeError):
                raise damaged(path, number) from None

    def _take(self, key: str, score: Score) -> None:
        self._scores[key] = score
        self._failures[key] += isinstance(score, Unscored) and score.retry

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, key: str) -> Score | None:
        """The score at an address; None when there is none yet."""
        return self._scores.get(key)

    def failures(self, key: str) -> int:
        """How often the score at an address could not be had, of failures that are asked again."""
        return self._failures[key]

    def put(self, rows: Iterable[tuple[str, Score, dict[str, Any]]]) -> None:
        """Append (address, score, what it is of); the last part is for people who read the file."""
        lines = []
        for key, score, about in rows:
            lines.append(json.dumps({"address": key, **score_out(score), **about}, ensure_ascii=False) + "\n")
            self._take(key, score)
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("a", encoding="utf-8") as handle:
            handle.write("".join(lines))
            handle.flush()
            os.fsync(handle.fileno())
