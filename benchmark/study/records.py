"""What moves between the study's database, its pages and its analysis."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal

from benchmark.core.item import BenchmarkError

Side = Literal["left", "right", "same"]
Kind = Literal["practice", "pair", "gold_tie", "gold_loss", "repeat"]
Slot = Literal["source", "left", "right"]
Refusal = Literal["answers", "unknown", "answered", "closed"]
MAX_LABEL = 80  # characters of what a rater is called
SIDES: tuple[Side, ...] = ("left", "right", "same")


class StudyError(BenchmarkError):
    """A study cannot be made, served or analysed as asked; the message says why and what to do."""


class VoteRefused(StudyError):
    """A vote that is not taken.

    Attributes:
        reason: `answers` do not fit the questions; the trial is `unknown`, no one's or another rater's; it is
            `answered` in another way; the study is `closed`. Pages have a sentence for each.
    """

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason: Refusal = reason


@dataclass(frozen=True)
class Trial:
    """A comparison as one rater gets it. Nothing here names a method.

    Attributes:
        id: opaque; names the trial in addresses.
        position: in the rater's order, from 0; total: how many there are.
        text: the instruction, without tags.
        practice: whether its vote does not count.
    """

    id: str
    position: int
    total: int
    text: str
    practice: bool


@dataclass(frozen=True)
class Rater:
    """Someone who was invited.

    Attributes:
        seat: which prepared list of trials is theirs, from 0.
        answered, total: their trials.
    """

    id: int
    label: str
    seat: int
    created: datetime.datetime
    answered: int
    total: int


@dataclass(frozen=True)
class Vote:
    """A raw vote with everything that an analysis needs.

    Attributes:
        kind: of the trial; only `pair` counts towards a ranking.
        rater: their label; seat: their list.
        item: of the suite; cluster: its source video; category, orientation: strata.
        left, right: methods as they were shown (for a corrupted copy, the method it was made of).
        answers: side by criterion.
        expected: what an attention check should be answered; None for others.
        repeats: the trial that this one shows again; None for others.
        seconds: from the first showing of the pair to the vote.
        position: in the rater's order, from 0.
    """

    trial: str
    kind: Kind
    rater: str
    seat: int
    position: int
    item: str
    cluster: str
    category: str
    orientation: str
    left: str
    right: str
    answers: dict[str, Side]
    expected: Side | None
    repeats: str | None
    seconds: float
    created: datetime.datetime
