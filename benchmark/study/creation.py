"""A study out of a definition: its media, its design and its database, all of them or nothing."""

from __future__ import annotations

import secrets
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import yaml
from sqlalchemy.orm import Session

from benchmark.core.item import Item
from benchmark.core.media import geometry_of
from benchmark.study import folder as folders
from benchmark.study.database import Base, ComparisonRow, ItemRow, StudyRow, TrialRow, open_engine
from benchmark.study.definition import StudyDefinition
from benchmark.study.design import Design, Subject, make_design
from benchmark.study.media import clip_frames, corrupted, prepare
from benchmark.study.records import StudyError
from benchmark.study.store import now
from benchmark.suites import instruction_of, open_suite
from benchmark.systems.results_folder import PrecomputedResults


@dataclass(frozen=True)
class Created:
    """A study that was made.

    Attributes:
        items: that it compares.
        remarks: what its author should know.
    """

    folder: Path
    design: Design
    items: int
    remarks: tuple[str, ...] = ()


def create_study(definition: StudyDefinition, folder: Path, database: str | None = None) -> Created:
    """Make a study's folder and its tables.

    Args:
        folder: that does not exist yet.
        database: address of a PostgreSQL database; None for SQLite in the folder.

    Raises:
        StudyError: nothing is left behind.
    """
    if folder.exists():
        raise StudyError(f"--out {folder}: exists already; choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        (building / folders.MEDIA).mkdir(parents=True)
        created = _build(definition, building, folder, database)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return created


def _build(definition: StudyDefinition, building: Path, folder: Path, database: str | None) -> Created:
    items = open_suite(definition.suite, Path(definition.data)).items
    found = {
        name: PrecomputedResults(f"methods.{name}", Path(place)) for name, place in definition.methods.items()
    }
    by_id = {item.id: item for item in items}
    design = make_design(definition, [subject_of(item) for item in items])
    media = building / folders.MEDIA
    sources: dict[str, str] = {}
    rows: list[ComparisonRow] = []
    clips: dict[tuple[str, str, bool], str] = {}

    def clip(item: Item, method: str, broken: bool = False) -> str:
        if (item.id, method, broken) not in clips:
            path = Path(definition.data) if method == "" else found[method].path(item)
            if path is None:
                raise StudyError(f"{method}: has no result of item {item.id}")
            assert item.native is not None
            height = definition.height
            size = (height, max(2, round(height * item.native.width / item.native.height / 2) * 2))
            count = item.native.frames if method == "" else geometry_of(path, item.native.fps).frames
            frames = item.load().source if method == "" else clip_frames(path)
            name = f"{secrets.token_hex(16)}.mp4"
            prepare(
                media / name, corrupted(frames, 0) if broken else iter(frames), item.native.fps, size, count
            )
            clips[item.id, method, broken] = name
        return clips[item.id, method, broken]

    for number, comparison in enumerate(design.comparisons, start=1):
        item = by_id[comparison.item]
        sources[item.id] = clip(item, "")
        rows.append(
            ComparisonRow(
                id=number,
                kind=comparison.kind,
                item_id=item.id,
                first_method=comparison.first,
                second_method=comparison.second,
                first=clip(item, comparison.first),
                second=clip(item, comparison.second, broken=comparison.kind == "gold_loss"),
                expected=comparison.expected,
            )
        )
    (building / folders.DEFINITION).write_text(
        yaml.safe_dump(definition.model_dump(mode="json"), sort_keys=False)
    )
    folders.write_settings(building, database)
    engine = open_engine(database or folders.sqlite_address(building))
    with engine.execution_options(write=True).begin() as connection, Session(connection) as session:
        Base.metadata.create_all(connection)
        session.add(
            StudyRow(
                id=1,
                definition=definition.model_dump(mode="json"),
                created=now(),
                secret=secrets.token_hex(32),
                admin_hash=None,
                closed=None,
            )
        )
        for name, source in sources.items():
            subject = subject_of(by_id[name])
            text = by_id[name].prompts.get("instruction") or instruction_of(by_id[name].text)
            session.add(
                ItemRow(
                    id=name,
                    text=text,
                    category=subject.category,
                    orientation=subject.orientation,
                    cluster=subject.cluster,
                    media=source,
                )
            )
        session.flush()
        session.add_all(rows)
        session.flush()
        session.add_all(trial_rows(design))
        session.flush()
        session.commit()
    engine.dispose()
    building.rename(folder)
    return Created(folder, design, len(sources))


def trial_rows(design: Design) -> list[TrialRow]:
    """The rows of all lists, with random names."""
    rows = []
    for seat, trials in enumerate(design.seats):
        ids = [secrets.token_hex(16) for _ in trials]
        for position, trial in enumerate(trials):
            rows.append(
                TrialRow(
                    id=ids[position],
                    seat=seat,
                    position=position,
                    comparison_id=trial.comparison + 1,
                    flipped=trial.flipped,
                    repeats=None if trial.repeats is None else ids[trial.repeats],
                    shown=None,
                )
            )
    return rows


def subject_of(item: Item) -> Subject:
    """What the design needs to know of an item."""
    native = item.native
    shape = "unknown" if native is None else "horizontal" if native.width >= native.height else "vertical"
    return Subject(item.id, item.task, item.facets.get("orientation", shape), item.clip)
