"""Everything that is asked of a study's database: by the server, by commands, by the analysis."""

from __future__ import annotations

import datetime
import hashlib
import math
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

from sqlalchemy import ColumnElement, Engine, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from benchmark.study import database
from benchmark.study.database import WRITE, ComparisonRow, ItemRow, RaterRow, StudyRow, TrialRow, VoteRow
from benchmark.study.definition import StudyDefinition
from benchmark.study.records import SIDES, Rater, Side, Slot, StudyError, Trial, Vote, VoteRefused

TRIAL = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what is no name of a trial is not asked of the database


def now() -> datetime.datetime:
    """The time in UTC, without a zone: SQLite knows none."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def token_hash(token: str) -> str:
    """What is stored of a rater's token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Store:
    """A study's database.

    Args:
        engine: of `open_engine`; its tables exist.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self._writing = engine, threading.Lock()
        with self._session() as session:
            row = session.get(StudyRow, 1)
            if row is None:
                raise StudyError(f"{engine.url}: holds no study; make one with `study create`")
            self.definition = StudyDefinition.model_validate(row.definition)
            self.secret = row.secret
            counts = select(TrialRow.seat, func.count()).group_by(TrialRow.seat)
            self.totals: dict[int, int] = {row[0]: row[1] for row in session.execute(counts)}

    @contextmanager
    def _session(self, write: bool = False) -> Iterator[Session]:
        """A transaction; committed at the end of the block.

        Those who write to SQLite queue here: by itself it has each try again after a while, and twenty raters
        who vote at once would keep one of them waiting until its time is over.
        """
        engine = self.engine.execution_options(**WRITE) if write else self.engine
        with (
            self._queue() if write else nullcontext(),
            Session(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def _queue(self) -> Iterator[None]:
        if self.engine.dialect.name != "sqlite":
            yield
            return
        if not self._writing.acquire(timeout=database.BUSY_SECONDS):
            raise PoolTimeoutError("others wrote for too long")
        try:
            yield
        finally:
            self._writing.release()

    def invite(self, label: str) -> tuple[Rater, str]:
        """Give the next free seat to a new rater; returns them and their token, which is stored nowhere."""
        token = secrets.token_urlsafe(32)
        with self._session(write=True) as session:
            if session.scalar(select(RaterRow.id).where(RaterRow.label == label)) is not None:
                raise StudyError(f"{label}: is invited already")
            taken = set(session.scalars(select(RaterRow.seat)))
            free = sorted(set(self.totals) - taken)
            if not free:
                raise StudyError(f"{label}: all {len(self.totals)} seats of the study are taken")
            row = RaterRow(label=label, seat=free[0], token_hash=token_hash(token), created=now())
            session.add(row)
            session.flush()
            return self._rater(row, 0), token

    def rater_of(self, token: str) -> Rater | None:
        """Who has this token."""
        return self._find(RaterRow.token_hash == token_hash(token))

    def rater(self, rater_id: int) -> Rater | None:
        """A rater by number; None once they are deleted."""
        return self._find(RaterRow.id == rater_id)

    def raters(self) -> list[Rater]:
        """All raters, by seat."""
        return self._raters()

    def _find(self, condition: ColumnElement[bool]) -> Rater | None:
        return next(iter(self._raters(condition)), None)

    def _raters(self, *conditions: ColumnElement[bool]) -> list[Rater]:
        """Raters with the number of their votes, by seat, in one query."""
        answered = select(func.count()).where(VoteRow.rater_id == RaterRow.id).scalar_subquery()
        query = select(RaterRow, answered).where(*conditions).order_by(RaterRow.seat)
        with self._session() as session:
            return [self._rater(row, count) for row, count in session.execute(query)]

    def _rater(self, row: RaterRow, answered: int) -> Rater:
        return Rater(row.id, row.label, row.seat, row.created, answered, self.totals[row.seat])

    def next_trial(self, rater: Rater) -> Trial | None:
        """The first trial of theirs without a vote; None when all are answered."""
        with self._session() as session:
            query = (
                select(TrialRow, ComparisonRow, ItemRow)
                .join(ComparisonRow, TrialRow.comparison_id == ComparisonRow.id)
                .join(ItemRow, ComparisonRow.item_id == ItemRow.id)
                .outerjoin(VoteRow, VoteRow.trial_id == TrialRow.id)
                .where(TrialRow.seat == rater.seat, VoteRow.trial_id.is_(None))
                .order_by(TrialRow.position)
                .limit(1)
            )
            row = session.execute(query).first()
        if row is None:
            return None
        trial, comparison, item = row
        practice = comparison.kind == "practice"
        return Trial(trial.id, trial.position, self.totals[rater.seat], item.text, practice)

    def show(self, rater: Rater, trial: str) -> None:
        """Note when a trial was first shown; a second showing changes nothing."""
        if not TRIAL.fullmatch(trial):
            return
        with self._session(write=True) as session:
            mine = (TrialRow.id == trial, TrialRow.seat == rater.seat, TrialRow.shown.is_(None))
            session.execute(update(TrialRow).where(*mine).values(shown=now()))

    def media(self, rater: Rater, trial: str, slot: Slot) -> str | None:
        """Name of the file in media/ that a trial of theirs shows there; None where it is not theirs."""
        if not TRIAL.fullmatch(trial):
            return None
        with self._session() as session:
            query = (
                select(TrialRow.flipped, ComparisonRow.first, ComparisonRow.second, ItemRow.media)
                .join(ComparisonRow, TrialRow.comparison_id == ComparisonRow.id)
                .join(ItemRow, ComparisonRow.item_id == ItemRow.id)
                .where(TrialRow.id == trial, TrialRow.seat == rater.seat)
            )
            row = session.execute(query).first()
        if row is None:
            return None
        flipped, first, second, source = row
        left, right = (second, first) if flipped else (first, second)
        return {"source": source, "left": left, "right": right}[slot]

    def record(self, rater: Rater, trial: str, answers: Mapping[str, Side], seconds: float) -> bool:
        """Store a vote; it is on disk when this returns.

        Args:
            answers: a side for every criterion, and for nothing else.
            seconds: what the page measured; the server's own time bounds it.

        Returns:
            True if it is new; False if the same answers were stored before (sent twice).

        Raises:
            VoteRefused: for a trial that is not theirs, other answers than those stored, answers that do not
                fit the questions, or a study that is closed.
        """
        wanted = {question.id for question in self.definition.questions}
        if set(answers) != wanted or not all(side in SIDES for side in answers.values()):
            raise VoteRefused("answers", "answers: every question needs one of left, right and same")
        if not math.isfinite(seconds):
            raise VoteRefused("answers", "seconds: needs a number")
        if not TRIAL.fullmatch(trial):
            raise VoteRefused("unknown", "this pair is not one of yours")
        try:
            with self._session(write=True) as session:
                row = session.scalar(
                    select(TrialRow).where(TrialRow.id == trial, TrialRow.seat == rater.seat)
                )
                if row is None:
                    raise VoteRefused("unknown", "this pair is not one of yours")
                if (stored := session.get(VoteRow, trial)) is not None:
                    return self._again(stored, answers)
                if session.scalar(select(StudyRow.closed)) is not None:
                    raise VoteRefused("closed", "the study is closed; votes are no longer taken")
                time = now()
                most = (time - row.shown).total_seconds() if row.shown else seconds
                spent = min(max(seconds, 0.0), max(most, 0.0))
                session.add(
                    VoteRow(
                        trial_id=trial, rater_id=rater.id, answers=dict(answers), seconds=spent, created=time
                    )
                )
        except IntegrityError:
            # Another request stored one between (PostgreSQL locks no whole write), or the rater was deleted.
            with self._session() as session:
                if (stored := session.get(VoteRow, trial)) is None:
                    raise VoteRefused("unknown", "you are no longer in this study") from None
                return self._again(stored, answers)
        return True

    @staticmethod
    def _again(stored: VoteRow, answers: Mapping[str, Side]) -> bool:
        if stored.answers != dict(answers):
            raise VoteRefused("answered", "this pair was answered already; the first answer stays")
        return False

    def votes(self) -> list[Vote]:
        """All votes, by seat and position."""
        with self._session() as session:
            query = (
                select(VoteRow, TrialRow, ComparisonRow, ItemRow, RaterRow)
                .join(TrialRow, VoteRow.trial_id == TrialRow.id)
                .join(ComparisonRow, TrialRow.comparison_id == ComparisonRow.id)
                .join(ItemRow, ComparisonRow.item_id == ItemRow.id)
                .join(RaterRow, VoteRow.rater_id == RaterRow.id)
                .order_by(TrialRow.seat, TrialRow.position)
            )
            return [_vote(*row) for row in session.execute(query)]

    def close(self, closed: bool = True) -> None:
        """Take no more votes; or take them again."""
        with self._session(write=True) as session:
            session.execute(update(StudyRow).values(closed=now() if closed else None))

    @property
    def closed(self) -> datetime.datetime | None:
        """Since when no votes are taken, in UTC."""
        with self._session() as session:
            return session.scalar(select(StudyRow.closed))

    def set_admin(self, hashed: str) -> None:
        """Store the hash of the admin page's password."""
        with self._session(write=True) as session:
            session.execute(update(StudyRow).values(admin_hash=hashed))

    @property
    def admin_hash(self) -> str | None:
        """The hash of the admin page's password, as it is now; None before one was set."""
        with self._session() as session:
            return session.scalar(select(StudyRow.admin_hash))

    def delete_rater(self, rater_id: int) -> int:
        """Delete a rater with all their votes; returns how many votes; their seat is free again."""
        with self._session(write=True) as session:
            row = session.get(RaterRow, rater_id)
            if row is None:
                raise StudyError(f"rater {rater_id}: there is none")
            votes = session.scalars(
                delete(VoteRow).where(VoteRow.rater_id == rater_id).returning(VoteRow.trial_id)
            )
            count = len(votes.all())
            session.execute(update(TrialRow).where(TrialRow.seat == row.seat).values(shown=None))
            session.delete(row)
            return count


def _vote(vote: VoteRow, trial: TrialRow, comparison: ComparisonRow, item: ItemRow, rater: RaterRow) -> Vote:
    """One row of a study's votes, its sides as they were shown."""
    methods = (comparison.first_method, comparison.second_method)
    left, right = methods[::-1] if trial.flipped else methods
    sides: dict[str | None, Side] = {"same": "same", "first": "left", "second": "right"}
    if trial.flipped:
        sides |= {"first": "right", "second": "left"}
    return Vote(
        trial=trial.id,
        kind="repeat" if trial.repeats else comparison.kind,  # type: ignore[arg-type]
        rater=rater.label,
        seat=trial.seat,
        position=trial.position,
        item=item.id,
        cluster=item.cluster,
        category=item.category,
        orientation=item.orientation,
        left=left,
        right=right,
        answers=vote.answers,
        expected=sides.get(comparison.expected),
        repeats=trial.repeats,
        seconds=vote.seconds,
        created=vote.created,
    )
