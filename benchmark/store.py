"""Scores and edits cached by content: what was computed once is not computed again.

Scores are lines of `scores.jsonl`, edits are mp4 files under `edits/`, both named by what they depend on.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmark.item import BenchmarkError, Unscored, Worded
from shards.files import naming

Score = float | Unscored


def address(*parts: Any) -> str:
    """sha256 over the canonical JSON of what a cached thing depends on."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def number_out(value: float | None) -> float | str | None:
    """JSON has no infinity: it becomes the string "inf"."""
    return value if value is None or math.isfinite(value) else str(value)


def score_out(score: Score) -> dict[str, Any]:
    """A score as fields of a line."""
    used = {"usage": dict(score.usage)} if isinstance(score, Unscored | Worded) and score.usage else {}
    if isinstance(score, Unscored):
        return {"unscored": score.reason, **used}
    words = {"words": score.words} if isinstance(score, Worded) else {}
    return {"value": number_out(float(score)), **words, **used}


def score_in(row: dict[str, Any]) -> Score:
    """The score that `score_out` wrote."""
    usage = row.get("usage", {})
    if "unscored" in row:
        return Unscored(row["unscored"], usage)
    value = float(row["value"])
    return Worded(value, row["words"], usage) if "words" in row else value


class ScoreStore:
    """Scores by address, in one append-only JSONL file.

    Each item's scores are appended and fsynced together. A last line cut short by a kill is dropped;
    any other unreadable line is an error that names it.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self._scores: dict[str, Score] = {}
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                self._scores[row["address"]] = score_in(row)
            except (ValueError, KeyError, TypeError):
                raise BenchmarkError(
                    f"{path}: line {number} is damaged; delete the line or the file"
                ) from None
        if len(whole) < len(data) and not read_only:
            with path.open("r+b") as handle:
                handle.truncate(len(whole))

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, key: str) -> Score | None:
        """The score at an address; None when there is none yet."""
        return self._scores.get(key)

    def put(self, rows: Iterable[tuple[str, Score, dict[str, Any]]]) -> None:
        """Append (address, score, what it is of); the last part is for people who read the file."""
        lines = []
        for key, score, about in rows:
            lines.append(json.dumps({"address": key, **score_out(score), **about}, ensure_ascii=False) + "\n")
            self._scores[key] = score
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("a", encoding="utf-8") as handle:
            handle.write("".join(lines))
            handle.flush()
            os.fsync(handle.fileno())
