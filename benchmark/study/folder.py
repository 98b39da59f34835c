"""A study's folder, and the database that belongs to it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from benchmark.study.database import open_engine
from benchmark.study.records import StudyError
from benchmark.study.store import Store
from shards.errors import EditVerseError, first_line
from shards.files import write_json
from shards.limits import read_json

DEFINITION = "study.yaml"
SETTINGS = "study.json"
MEDIA = "media"
SQLITE = "study.sqlite"
ANALYSIS, REPORT = "analysis", "report.html"  # what `study analyse` writes, if nowhere else


def open_study(folder: Path) -> Store:
    """The database of a study; StudyError where the folder holds none, or its database cannot be reached.

    `study.json` says where it is: an address without a password (PostgreSQL's client has that of PGPASSWORD
    or of ~/.pgpass), or nothing, for `study.sqlite` in the folder, which may therefore be moved.
    """
    try:
        settings = read_json(folder / SETTINGS)
        address = settings.get("database") or sqlite_address(folder)
    except FileNotFoundError:
        raise StudyError(f"{folder}: holds no study; `python -m benchmark study create` makes one") from None
    except (OSError, EditVerseError, AttributeError) as error:
        raise StudyError(f"{folder / SETTINGS}: cannot be read: {first_line(error)}") from None
    if address == sqlite_address(folder) and not (folder / SQLITE).is_file():
        raise StudyError(f"{folder / SQLITE}: is missing, and with it the study's raters and votes")
    try:
        return Store(open_engine(address))
    except SQLAlchemyError as error:
        raise StudyError(f"{folder}: its database cannot be opened: {first_line(error)}") from error


def sqlite_address(folder: Path) -> str:
    """The address of the database in a study's folder."""
    return URL.create("sqlite", database=str(folder.absolute() / SQLITE)).render_as_string()


def write_settings(folder: Path, database: str | None) -> None:
    """Write `study.json`; a password in the address is left out."""
    address = None if database is None else without_password(database)
    write_json(folder / SETTINGS, {"version": 1, "database": address})


def without_password(address: str) -> str:
    """An address that may be stored and shown."""
    url = make_url(address).difference_update_query(["password"])
    return url._replace(password=None).render_as_string()  # `set` takes None for no change
