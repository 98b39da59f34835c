"""Raters of known taste: what they would answer in a study, with or without a database."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmark.study.database import (
    Base,
    ComparisonRow,
    ItemRow,
    StudyRow,
    TrialRow,
    VoteRow,
    open_engine,
)
from benchmark.study.definition import Exclusion, StudyDefinition
from benchmark.study.design import Design, Subject, make_design
from benchmark.study.records import SIDES, Side, Vote
from benchmark.study.store import Store

MET = ("Method & one", "Methode_zwei", "three", "four", "five")  # names that tables must escape
BEGIN = datetime.datetime(2026, 11, 30, 9)
SEEN_RIGHT = 0.97  # of answers to attention checks
SAME_AGAIN = 0.8  # of repeated answers that are not thought over


@dataclass(frozen=True)
class Taste:
    """What raters go by.

    Attributes:
        strengths: of the methods, log-odds as Davidson's model has them, the same by every criterion.
        tie: nu of that model.
        by_video: standard deviation of a method's strength over source videos.
        by_rater: over raters.
        guessing: seats whose raters answer at random.
        left: what is added for the side on the left.
    """

    strengths: Mapping[str, float]
    tie: float = 0.6
    by_video: float = 0.0
    by_rater: float = 0.0
    guessing: Sequence[int] = ()
    left: float = 0.0


@dataclass
class Simulated:
    """A study without media.

    Attributes:
        answers, seconds: by seat and position.
    """

    definition: StudyDefinition
    subjects: list[Subject]
    design: Design
    answers: dict[tuple[int, int], dict[str, Side]] = field(default_factory=dict)
    seconds: dict[tuple[int, int], float] = field(default_factory=dict)

    def votes(self) -> list[Vote]:
        """All votes, as `Store.votes` has them."""
        subject = {of.id: of for of in self.subjects}
        listed = []
        for (seat, position), answers in self.answers.items():
            trial = self.design.seats[seat][position]
            comparison = self.design.comparisons[trial.comparison]
            left, right = self.sides(seat, position)
            expected = comparison.expected
            shown: Any = {"first": "left", "second": "right"}
            if trial.flipped:
                shown = {"first": "right", "second": "left"}
            of = subject[comparison.item]
            listed.append(
                Vote(
                    f"t{seat}.{position}",
                    "repeat" if trial.repeats is not None else comparison.kind,
                    f"rater {seat}",
                    seat,
                    position,
                    of.id,
                    of.cluster,
                    of.category,
                    of.orientation,
                    left,
                    right,
                    answers,
                    None if expected is None else shown.get(expected, "same"),
                    None if trial.repeats is None else f"t{seat}.{trial.repeats}",
                    self.seconds[seat, position],
                    BEGIN + datetime.timedelta(seconds=60 * position + seat),
                )
            )
        return listed

    def sides(self, seat: int, position: int) -> tuple[str, str]:
        """Methods as a trial shows them, left and right."""
        trial = self.design.seats[seat][position]
        comparison = self.design.comparisons[trial.comparison]
        first, second = comparison.first, comparison.second
        return (second, first) if trial.flipped else (first, second)

    def store(self, url: str) -> Store:
        """A database of the study with everyone's votes, of which the first rater's came one by one."""
        store = write_database(self, url)
        raters = [store.invite(f"rater {seat}")[0] for seat in range(len(self.design.seats))]
        while (trial := store.next_trial(raters[0])) is not None:
            at = 0, trial.position
            assert store.record(raters[0], trial.id, self.answers[at], self.seconds[at])
        with Session(store.engine.execution_options(write=True)) as session, session.begin():
            for trial_row in session.scalars(select(TrialRow).where(TrialRow.seat > 0)).all():
                at = trial_row.seat, trial_row.position
                rater = raters[trial_row.seat].id
                facts = {"answers": dict(self.answers[at]), "seconds": self.seconds[at], "created": BEGIN}
                session.add(VoteRow(trial_id=trial_row.id, rater_id=rater, **facts))
        return store


def write_database(study: Simulated, url: str) -> Store:
    """Tables of a study whose media do not exist; its raters are not invited."""
    engine = open_engine(url)
    with engine.execution_options(write=True).begin() as connection, Session(connection) as session:
        Base.metadata.create_all(connection)
        dumped = study.definition.model_dump(mode="json")
        session.add(
            StudyRow(id=1, definition=dumped, created=BEGIN, secret="s", admin_hash=None, closed=None)
        )
        for of in study.subjects:
            strata = {"category": of.category, "orientation": of.orientation, "cluster": of.cluster}
            session.add(ItemRow(id=of.id, text="Make it snow", media="0.mp4", **strata))
        session.flush()
        for number, of_pair in enumerate(study.design.comparisons, 1):
            methods = {"first_method": of_pair.first, "second_method": of_pair.second}
            media = {"first": "1.mp4", "second": "2.mp4", "expected": of_pair.expected}
            session.add(ComparisonRow(id=number, kind=of_pair.kind, item_id=of_pair.item, **methods, **media))
        session.flush()
        for seat, trials in enumerate(study.design.seats):
            for position, trial in enumerate(trials):
                again = None if trial.repeats is None else f"t{seat}-{trial.repeats}"
                facts: dict[str, Any] = {
                    "id": f"t{seat}-{position}",
                    "seat": seat,
                    "position": position,
                    "repeats": again,
                }
                session.add(
                    TrialRow(comparison_id=trial.comparison + 1, flipped=trial.flipped, shown=None, **facts)
                )
        session.flush()
        session.commit()
    return Store(engine)


def simulate(taste: Taste, *, items: int = 60, videos: int = 50, seed: int = 0, **settings: Any) -> Simulated:
    """A study by the real design, answered by everyone.

    Args:
        items, videos: instructions, and source videos that they share.
        settings: of the definition: `pairs`, `raters` ...
    """
    chosen: dict[str, Any] = {"repeats": 5, "gold_ties": 3, "gold_losses": 4, "exclusion": Exclusion()}
    methods = dict.fromkeys(taste.strengths, "unused")
    definition = StudyDefinition(
        name="Simulated", data="unused", methods=methods, seed=seed, **chosen | settings
    )
    subjects = [
        Subject(f"item{n:03d}", ("add", "remove", "style")[n % 3], "horizontal", f"video{n % videos:03d}")
        for n in range(items)
    ]
    study = Simulated(definition, subjects, make_design(definition, subjects))
    answer(study, taste, np.random.default_rng(seed))
    return study


def answer(study: Simulated, taste: Taste, random: np.random.Generator) -> None:
    """Have every rater answer every trial of theirs."""
    cluster = {of.id: of.cluster for of in study.subjects}
    names = list(taste.strengths)
    videos = sorted(set(cluster.values()))
    of_video = dict(zip(videos, random.normal(0, taste.by_video, (len(videos), len(names))), strict=True))
    criteria = [question.id for question in study.definition.questions]
    for seat, trials in enumerate(study.design.seats):
        of_rater = random.normal(0, taste.by_rater, len(names))
        for position, trial in enumerate(trials):
            comparison = study.design.comparisons[trial.comparison]
            at = seat, position
            study.seconds[at] = float(random.gamma(4, 5))
            if seat in taste.guessing:
                study.answers[at] = {c: SIDES[random.integers(3)] for c in criteria}
                continue
            left, right = (names.index(name) for name in study.sides(seat, position))
            own = np.array(list(taste.strengths.values())) + of_video[cluster[comparison.item]] + of_rater
            gap = float(own[left] - own[right]) + taste.left
            sides = {c: _side(gap, taste.tie, random) for c in criteria}
            if comparison.expected is not None:
                right_side: Side = "same"
                if comparison.expected != "same":
                    right_side = "left" if (comparison.expected == "first") != trial.flipped else "right"
                sides = {c: right_side if random.random() < SEEN_RIGHT else sides[c] for c in criteria}
            if trial.repeats is not None:
                turned = trial.flipped != trials[trial.repeats].flipped
                before = study.answers[seat, trial.repeats]
                swap: Mapping[Side, Side] = {"left": "right", "right": "left", "same": "same"}
                again = {c: swap[side] if turned else side for c, side in before.items()}
                sides = {c: again[c] if random.random() < SAME_AGAIN else sides[c] for c in criteria}
            study.answers[at] = sides


def _side(gap: float, tie: float, random: np.random.Generator) -> Side:
    """By Davidson's model, for a difference of strengths."""
    chances = np.array([np.exp(gap / 2), np.exp(-gap / 2), tie])
    return SIDES[random.choice(3, p=chances / chances.sum())]


def database_url(folder: Path) -> str:
    """An SQLite database in a folder."""
    return f"sqlite:///{folder / 'study.sqlite'}"
