"""Votes as arrays: which two methods, which of them was preferred by each criterion, by whom, about what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.study.definition import StudyDefinition
from benchmark.study.records import Side, StudyError, Vote

MAJORITY = "majority"  # not a criterion of its own: what most of a rater's criteria say


@dataclass(frozen=True)
class Ballots:
    """The votes that count towards a ranking: those of kind `pair`.

    Attributes:
        methods: in the definition's order.
        criteria: the questions' ids, and `MAJORITY`.
        first, second: numbers of the methods, the first the earlier in `methods`, int [N].
        outcomes: 1 where the first is preferred, 0 for about the same, -1 for the second, int [N, criteria].
        flipped: whether the second stood on the left, bool [N].
        raters, clusters, items: labels [N].
        seconds: that each vote took, float [N].
    """

    methods: tuple[str, ...]
    criteria: tuple[str, ...]
    first: np.ndarray
    second: np.ndarray
    outcomes: np.ndarray
    flipped: np.ndarray
    raters: np.ndarray
    clusters: np.ndarray
    items: np.ndarray
    seconds: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def outcome(self, criterion: str) -> np.ndarray:
        """By one criterion, int [N]."""
        column: np.ndarray = self.outcomes[:, self.criteria.index(criterion)]
        return column

    def units(self) -> np.ndarray:
        """Number of the comparison (two methods on an item) that each vote is about, int [N]."""
        if not len(self):
            return np.zeros(0, dtype=int)
        item = np.unique(self.items, return_inverse=True)[1].reshape(-1)
        size = len(self.methods)
        code = (item * size + self.first) * size + self.second
        numbers: np.ndarray = np.unique(code, return_inverse=True)[1]
        return numbers.reshape(-1)

    def of(self, method: str, other: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the votes on a method, against one other or all; and 1 or -1 to turn outcomes to it."""
        k = self.methods.index(method)
        mine = (self.first == k) | (self.second == k)
        if other is not None:
            j = self.methods.index(other)
            mine &= (self.first == j) | (self.second == j)
        numbers = np.flatnonzero(mine)
        return numbers, np.where(self.first[numbers] == k, 1, -1)


def side_sign(side: Side) -> int:
    """1 for the left, -1 for the right, 0 for about the same."""
    return {"left": 1, "same": 0, "right": -1}[side]


def majority(outcomes: np.ndarray) -> np.ndarray:
    """What more than half say, 1, 0 or -1; 0 also where nothing has more than half. [..., N] to [...]."""
    half = outcomes.shape[-1] / 2
    made: np.ndarray = ((outcomes == 1).sum(-1) > half).astype(int) - ((outcomes == -1).sum(-1) > half)
    return made


def ballots(definition: StudyDefinition, votes: Sequence[Vote]) -> Ballots:
    """The votes of kind `pair` as arrays; StudyError for votes that do not fit the definition."""
    methods = tuple(definition.methods)
    questions = [question.id for question in definition.questions]
    counted = [vote for vote in votes if vote.kind == "pair"]
    for vote in counted:
        if strange := [name for name in (vote.left, vote.right) if name not in methods]:
            raise StudyError(f"vote {vote.trial}: {strange[0]!r} is none of the methods {', '.join(methods)}")
        if vote.left == vote.right or set(vote.answers) != set(questions):
            raise StudyError(f"vote {vote.trial}: does not compare two methods by the study's questions")
    place = {name: n for n, name in enumerate(methods)}
    left = np.array([place[vote.left] for vote in counted], dtype=int)
    right = np.array([place[vote.right] for vote in counted], dtype=int)
    flipped = left > right
    signs = np.array([[side_sign(v.answers[q]) for q in questions] for v in counted], dtype=int)
    signs = signs.reshape(len(counted), len(questions)) * np.where(flipped, -1, 1)[:, None]
    return Ballots(
        methods,
        (*questions, MAJORITY),
        np.minimum(left, right),
        np.maximum(left, right),
        np.concatenate([signs, majority(signs)[:, None]], 1),
        flipped,
        np.array([vote.rater for vote in counted], dtype=object),
        np.array([vote.cluster for vote in counted], dtype=object),
        np.array([vote.item for vote in counted], dtype=object),
        np.array([vote.seconds for vote in counted], dtype=np.float64),
    )
