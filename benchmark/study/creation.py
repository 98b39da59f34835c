"""A study out of a definition: its media, its design and its database, all of them or nothing."""

from __future__ import annotations

import os
import secrets
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from benchmark.study import folder as folders
from benchmark.study.database import WRITE, Base, ComparisonRow, ItemRow, StudyRow, TrialRow, open_engine
from benchmark.study.definition import StudyDefinition
from benchmark.study.design import Design, make_design
from benchmark.study.material import SOURCE, Material, Tell, read_material
from benchmark.study.media import corrupted, even_out, shown_frames, write_clip
from benchmark.study.records import StudyError
from benchmark.study.store import now
from benchmark.study.texts import keep_texts
from benchmark.suites import instruction_of
from shards.errors import first_line
from shards.files import sync, write_bytes

File = tuple[str, bool]  # a method (or `SOURCE`), and whether its copy is corrupted
Names = dict[str, dict[File, str]]  # by item: files in media/


@dataclass(frozen=True)
class Created:
    """A study that was made.

    Attributes:
        items: that it compares.
        seconds: how long an item's videos play, by its id.
        remarks: what its author should know.
    """

    folder: Path
    design: Design
    items: int
    seconds: Mapping[str, float]
    remarks: tuple[str, ...] = ()


def create_study(
    definition: StudyDefinition,
    folder: Path,
    database: str | None = None,
    *,
    allow_missing: bool = False,
    cut: bool = False,
    jobs: int | None = None,
    tell: Tell = lambda *_: None,
) -> Created:
    """Make a study's folder and its tables.

    Args:
        folder: that does not exist yet, or is empty.
        database: address of a PostgreSQL database without a study; None for SQLite in the folder.
        allow_missing: leave out items that a method has no result of.
        cut: cut results of other lengths than their source.
        jobs: items whose videos are made at the same time; None for one per processor.
        tell: is called as the work goes on.

    Raises:
        StudyError: results that are missing, the same file twice, of other lengths, or a design that is not
            to be had.
        MediaError: a video that cannot be read. After any error nothing is left behind.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StudyError(f"--out {folder}: exists already; choose another, or delete it first")
    if database is not None:
        _check_database(database)
    material = read_material(definition, allow_missing, cut, tell)
    design = make_design(definition, material.subjects)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        (building / folders.MEDIA).mkdir(parents=True)
        keep_texts(building, definition.language)
        files = _write_media(building / folders.MEDIA, design, material, jobs or os.cpu_count() or 1, tell)
        _write_database(definition, design, material, files, building, folder, database)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    used = {comparison.item for comparison in design.comparisons}
    seconds = {name: shown.frames / shown.fps for name, shown in material.shown.items() if name in used}
    return Created(folder, design, len(used), seconds, material.remarks)


def _write_media(place: Path, design: Design, material: Material, jobs: int, tell: Tell) -> Names:
    """Write all videos that the design shows; their names are random."""
    wanted: dict[str, set[File]] = {}
    for comparison in design.comparisons:
        files = wanted.setdefault(comparison.item, {(SOURCE, False)})
        files |= {(comparison.first, False), (comparison.second, comparison.kind == "gold_loss")}
    names = {
        item: {file: f"{secrets.token_hex(16)}.mp4" for file in sorted(files)}
        for item, files in wanted.items()
    }

    def make(item: str) -> None:
        shown = material.shown[item]
        for (method, broken), name in names[item].items():
            frames = shown_frames(material.clips[item][method], shown)
            if broken:
                frames = corrupted(frames, shown.fps, seed=0)
            write_clip(place / name, frames, shown.fps)
        even_out(place / name for name in names[item].values())

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(make, item) for item in names]
        try:
            for done, future in enumerate(waiting):
                tell("videos", done, len(waiting))
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    tell("videos", len(waiting), len(waiting))
    return names


def _check_database(address: str) -> None:
    """Raise StudyError for a database that cannot be used, before the long work."""
    engine = open_engine(address)
    if engine.dialect.name != "postgresql":
        raise StudyError("--database: takes PostgreSQL's addresses; SQLite in the folder needs none")
    try:
        with _reached(address), engine.connect() as connection:
            _refuse_existing(connection)
    finally:
        engine.dispose()


@contextmanager
def _reached(address: str | None) -> Iterator[None]:
    """Make errors of the database one line, which has no password."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = first_line(getattr(error, "orig", None) or error)
        where = "study.sqlite" if address is None else f"--database {folders.without_password(address)}"
        raise StudyError(f"{where}: {reason}") from error


def _refuse_existing(connection: Connection) -> None:
    tables = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
    if tables:
        raise StudyError(
            f"--database {connection.engine.url}: has tables of a study already ({', '.join(sorted(tables))})"
            "; make another database (createdb)"
        )


def _write_database(
    definition: StudyDefinition,
    design: Design,
    material: Material,
    names: Names,
    building: Path,
    folder: Path,
    database: str | None,
) -> None:
    """Write the tables, and give the folder its name; PostgreSQL's are committed after that, all at once."""
    settings = definition.model_dump(mode="json")
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_bytes(building / folders.DEFINITION, text.encode())
    folders.write_settings(building, database)
    study = StudyRow(id=1, definition=settings, created=now(), secret=secrets.token_hex(32))
    engine = open_engine(database or folders.sqlite_address(building))
    renamed = False
    try:
        with _reached(database), engine.execution_options(**WRITE).begin() as connection:
            if database is not None:
                _refuse_existing(connection)
            Base.metadata.create_all(connection)
            with Session(connection) as session:
                session.add(study)
                for rows in (_items(material, names), _comparisons(design, names), _trials(design)):
                    session.add_all(rows)
                    session.flush()
            if database is not None:
                _rename(building, folder)
                renamed = True
    except BaseException:
        if renamed:  # and not committed
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        engine.dispose()
    if database is None:
        _rename(building, folder)


def _rename(building: Path, folder: Path) -> None:
    try:
        building.rename(folder)
    except OSError as error:
        raise StudyError(f"--out {folder}: {error.strerror}") from error
    sync(folder.parent)


def _items(material: Material, names: Names) -> list[ItemRow]:
    """Those that are compared."""
    rows = []
    for subject in material.subjects:
        if subject.id in names:
            item = material.items[subject.id]
            rows.append(
                ItemRow(
                    id=item.id,
                    text=item.prompts.get("instruction") or instruction_of(item.text),
                    category=subject.category,
                    orientation=subject.orientation,
                    cluster=subject.cluster,
                    media=names[item.id][SOURCE, False],
                )
            )
    return rows


def _comparisons(design: Design, names: Names) -> list[ComparisonRow]:
    """All, numbered from 1."""
    rows = []
    for number, comparison in enumerate(design.comparisons, start=1):
        files = names[comparison.item]
        rows.append(
            ComparisonRow(
                id=number,
                kind=comparison.kind,
                item_id=comparison.item,
                first_method=comparison.first,
                second_method=comparison.second,
                first=files[comparison.first, False],
                second=files[comparison.second, comparison.kind == "gold_loss"],
                expected=comparison.expected,
            )
        )
    return rows


def _trials(design: Design) -> list[TrialRow]:
    """All lists; the names of trials are random."""
    rows = []
    for seat, trials in enumerate(design.seats):
        ids = [secrets.token_urlsafe(16) for _ in trials]
        for position, trial in enumerate(trials):
            rows.append(
                TrialRow(
                    id=ids[position],
                    seat=seat,
                    position=position,
                    comparison_id=trial.comparison + 1,
                    flipped=trial.flipped,
                    repeats=None if trial.repeats is None else ids[trial.repeats],
                )
            )
    return rows
