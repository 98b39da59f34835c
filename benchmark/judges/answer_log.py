"""Every request to a judge and what came of it, as lines of `<out>/judge/*.jsonl`.

A line is an exchange or a rejection, written whole and synced:

    {"id": ..., "key": ..., "answer": true, "item": ..., "row": ..., "metric": ..., "frame": ...,
     "request": {...}, "status": 200, "body": "...", "seconds": 0.9}
    {"rejected": [ids], "reader": ...}

`key` is the hash of the request's body, whoever it was sent to; where the same is asked several times on
purpose, of its number too. Embedded pictures are told by their sha256: they are JPEG files of frames that
`item`, `row` and `frame` name, and can be made again from the media. No header is kept, so no key of anybody.

An answer that was kept is given instead of a new request to whoever asks the same. Only a reader that could
make nothing of it gets another one: a score is counted anew, by another parser too, without any request.
"""

from __future__ import annotations

import datetime
import json
import os
import threading
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmark.core.item import BenchmarkError
from benchmark.core.score_cache import read_lines
from curation.vlm.exchange import Question

FOLDER = "judge"


class AnswerLog:
    """The log of a run.

    Args:
        folder: of all its files; every one is read.
        name: of the file that this process appends to, which no other one does.
        read_only: do not drop the end of a file that was cut off: another process may be writing it.
    """

    def __init__(self, folder: Path, name: str = "answers", read_only: bool = False) -> None:
        self.path = folder / f"{name}.jsonl"
        self._lock = threading.Lock()
        self._answers: dict[str, list[tuple[str, str]]] = defaultdict(list)  # (id, body) by key
        self._rejected: dict[str, set[str]] = defaultdict(set)  # ids by reader
        for path in sorted(folder.glob("*.jsonl")):
            for number, row in read_lines(path, read_only):
                try:
                    self._take(row)
                except (KeyError, TypeError):
                    raise BenchmarkError(f"{path}: line {number} is damaged; delete the line") from None

    def _take(self, row: dict[str, Any]) -> None:
        if "rejected" in row:
            self._rejected[str(row["reader"])].update(map(str, row["rejected"]))
        elif row["answer"] is True:
            self._answers[str(row["key"])].append((str(row["id"]), str(row["body"])))

    def kept(self, key: str, question: Question) -> str | None:
        """An answer to a request that the question has not had and its reader has not rejected."""
        with self._lock:
            not_these = self._rejected[question.reader] | set(question.used)
            for id, body in self._answers[key]:
                if id not in not_these:
                    question.used.append(id)
                    return body
        return None

    def add(self, key: str, question: Question, *, answer: bool, **about: Any) -> None:
        """Keep an exchange; `answer` says that it is one, which may be given again."""
        id = uuid.uuid4().hex[:16]
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        repeat = {"repeat": question.repeat} if question.repeat else {}
        row = {"id": id, "key": key, "answer": answer, "time": now, **question.about, **repeat, **about}
        self._write(row)
        if answer:
            question.used.append(id)

    def reject(self, question: Question) -> None:
        """The question's reader could not use the answers that it was given."""
        self._write({"rejected": question.used, "reader": question.reader})

    def _write(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as handle:
                handle.write(line)
                os.fsync(handle.fileno())
            self._take(row)
