"""Tables of a study, and the database that holds them: SQLite in the study's folder, or PostgreSQL by URL."""

from __future__ import annotations

import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, Engine, ForeignKey, UniqueConstraint, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmark.study.records import StudyError

BUSY_SECONDS = 5.0  # a writer waits this long for another one, then the server says 503
WRITE = {"write": True}  # execution options of a connection that will write


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON}


class StudyRow(Base):
    """The study itself; one row."""

    __tablename__ = "study"
    id: Mapped[int] = mapped_column(primary_key=True)
    definition: Mapped[dict[str, Any]]
    created: Mapped[datetime.datetime]
    secret: Mapped[str]  # signs sessions
    admin_hash: Mapped[str | None]
    closed: Mapped[datetime.datetime | None]


class ItemRow(Base):
    """An item of the suite that is compared."""

    __tablename__ = "item"
    id: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    category: Mapped[str]
    orientation: Mapped[str]
    cluster: Mapped[str]
    media: Mapped[str]  # file of the source in media/; names of files are random


class ComparisonRow(Base):
    """Two clips of one item; `first` and `second` are files in media/."""

    __tablename__ = "comparison"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]  # practice, pair, gold_tie, gold_loss
    item_id: Mapped[str] = mapped_column(ForeignKey("item.id"))
    first_method: Mapped[str]
    second_method: Mapped[str]
    first: Mapped[str]
    second: Mapped[str]
    expected: Mapped[str | None]  # first, second, same


class TrialRow(Base):
    """A comparison in a rater's list: `flipped` shows the second clip on the left."""

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("seat", "position"),)
    id: Mapped[str] = mapped_column(primary_key=True)  # random: it stands in addresses
    seat: Mapped[int] = mapped_column(index=True)
    position: Mapped[int]
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparison.id"))
    flipped: Mapped[bool]
    repeats: Mapped[str | None]
    shown: Mapped[datetime.datetime | None]


class RaterRow(Base):
    """Someone who was invited. A token is stored as its SHA-256 only: it has 256 random bits."""

    __tablename__ = "rater"
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(unique=True)
    seat: Mapped[int] = mapped_column(unique=True)
    token_hash: Mapped[str] = mapped_column(unique=True)
    created: Mapped[datetime.datetime]


class VoteRow(Base):
    """A vote; its trial is the key, so that none counts twice."""

    __tablename__ = "vote"
    trial_id: Mapped[str] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    rater_id: Mapped[int] = mapped_column(ForeignKey("rater.id"), index=True)
    answers: Mapped[dict[str, Any]]
    seconds: Mapped[float]
    created: Mapped[datetime.datetime]


def open_engine(url: str) -> Engine:
    """Connect to `sqlite:///...` or `postgresql+psycopg://...`; StudyError for any other address.

    SQLite writes ahead (WAL), so that readers never wait for a writer, and syncs at each commit: a vote that
    was acknowledged outlives a crash of the machine. Writers ask for the lock when they begin (`WRITE`): a
    transaction that reads first and writes later fails at once where another one wrote between.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StudyError(f"--database {url}: is no database URL") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StudyError(f"--database {url}: needs sqlite:///FILE or postgresql://USER@HOST/NAME")
    if parsed.get_backend_name() == "postgresql":
        waits = {"connect_timeout": 5, "options": f"-c lock_timeout={BUSY_SECONDS * 1000:.0f}"}
        return create_engine(parsed, pool_size=8, max_overflow=8, pool_pre_ping=True, connect_args=waits)
    # As many connections as a server has threads: who reads does not wait for those who wait to write.
    waits = {"timeout": BUSY_SECONDS}
    engine = create_engine(parsed, pool_size=10, max_overflow=40, connect_args=waits)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # `begin` below opens transactions, not the driver
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        write = connection.get_execution_options().get("write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
