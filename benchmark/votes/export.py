"""Raw votes for others to analyse, and labels that `calibrate` and `correlate` judge metrics by.

Raters are called by the number of their list; what they were called when invited is in neither file.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.study.definition import StudyDefinition
from benchmark.study.records import StudyError, Vote
from benchmark.votes.ballots import side_sign
from benchmark.votes.raters import pseudonym
from shards.files import write_bytes, write_json

LABELS = ("item", "row", "criterion", "score", "rater")


def raw_votes(definition: StudyDefinition, votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """Every vote as a flat record: sides as they were shown, an answer per criterion."""
    names = {vote.trial: _name(vote) for vote in votes}
    return [
        {
            "vote": names[vote.trial],
            "rater": pseudonym(vote),
            "position": vote.position,
            "kind": vote.kind,
            "item": vote.item,
            "source_video": vote.cluster,
            "category": vote.category,
            "orientation": vote.orientation,
            "left": vote.left,
            "right": vote.right,
            **{question.id: vote.answers[question.id] for question in definition.questions},
            "expected": vote.expected,
            "repeats": None if vote.repeats is None else names.get(vote.repeats),
            "seconds": round(vote.seconds, 3),
            "created": vote.created.isoformat(timespec="seconds"),
        }
        for vote in votes
    ]


def write_votes(folder: Path, definition: StudyDefinition, votes: Sequence[Vote]) -> list[Path]:
    """Write `votes.csv` and `votes.json`; returns their paths."""
    records = raw_votes(definition, votes)
    csv_path, json_path = folder / "votes.csv", folder / "votes.json"
    columns = [
        *("vote", "rater", "position", "kind", "item", "source_video", "category", "orientation"),
        *("left", "right"),
        *(question.id for question in definition.questions),
        *("expected", "repeats", "seconds", "created"),
    ]
    write_bytes(csv_path, csv_text(columns, [[record[c] for c in columns] for record in records]).encode())
    write_json(json_path, {"questions": [q.model_dump() for q in definition.questions], "votes": records})
    return [csv_path, json_path]


def labels(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """A rater's labels of results: how often they preferred it to another of its item, a tie being a half.

    `calibrate` compares results within an item. Where a rater judged one pair of an item, labels order the
    two as the rater did; where they judged several, by each one's share of wins.
    """
    scores: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for vote in votes:
        if vote.kind == "pair":
            for criterion, side in vote.answers.items():
                left = (side_sign(side) + 1) / 2
                for method, score in ((vote.left, left), (vote.right, 1 - left)):
                    scores[vote.item, method, criterion, pseudonym(vote)].append(score)
    return [
        dict(zip(LABELS, (item, row, criterion, round(sum(of) / len(of), 6), rater), strict=True))
        for (item, row, criterion, rater), of in sorted(scores.items())
    ]


def write_labels(path: Path, votes: Sequence[Vote]) -> int:
    """Write `labels` as CSV; returns their number. StudyError where there are none."""
    made = labels(votes)
    if not made:
        raise StudyError(f"{path}: no votes on pairs yet; there is nothing to export")
    write_bytes(path, csv_text(LABELS, [list(label.values()) for label in made]).encode())
    return len(made)


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as CSV; None is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([columns, *rows])
    return out.getvalue()


def _name(vote: Vote) -> str:
    """Of a vote, in place of its trial's: that stands in addresses."""
    return f"{pseudonym(vote)}-{vote.position:03d}"
