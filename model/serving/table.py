"""A table of edits: its rows, checked together before any of them is made."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.serving.media import check_files, check_text
from model.serving.settings import EditSettings, read_settings
from shards.errors import EditVerseError, SettingError
from shards.files import inside, sha256_of
from shards.limits import MAX_FRAMES, MAX_ROWS, parse_json, read_text
from shards.sample import MEDIA_NAME

MAX_TOLD = 10  # further rows at fault that are named


@dataclass(frozen=True)
class Row:
    """One edit of a table.

    Attributes:
        number: of the row, 1 being the first below the names of the columns.
        text: instruction with tags.
        media: files by the names of their tags.
        settings: keywords of `Editor.__call__`.
        out: mp4 or png to write, relative to the batch's folder.
        fingerprint: of all that the result depends on, in hexadecimal digits.
    """

    number: int
    text: str
    media: dict[str, str]
    settings: dict[str, Any]
    out: str
    fingerprint: str


def read_table(path: Path, folder: Path, editor: dict[str, Any]) -> list[Row]:
    """The rows of a table, each checked, with its files opened.

    Args:
        path: a CSV in UTF-8, its first line the columns' names.
        folder: that results are written to.
        editor: what of the editor a result depends on, for the fingerprints.

    Raises:
        SettingError: naming the rows that cannot be made, and why the first cannot; a column that is none.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        _check_columns(path, list(columns))
        raw = [row for row, _ in zip(reader, range(MAX_ROWS + 1), strict=False)]
    except csv.Error as error:
        raise SettingError(f"{path}: line {reader.line_num}: {error}") from None
    if not raw or len(raw) > MAX_ROWS:
        raise SettingError(f"{path}: needs from 1 to {MAX_ROWS} rows")
    rows: list[Row] = []
    faults: list[tuple[int, Exception]] = []
    outs: dict[Path, int] = {}
    hashes: dict[str, str] = {}
    for number, values in enumerate(raw, 1):
        try:
            row = _read_row(number, values, path.parent, editor, hashes)
            target = inside(folder, row.out)
            first = outs.setdefault(target, number)
            if first != number:
                raise SettingError(f"out {row.out}: is that of row {first} too")
            rows.append(row)
        except (EditVerseError, OSError) as error:
            faults.append((number, error))
    if faults:
        others = ", ".join(str(number) for number, _ in faults[1 : 1 + MAX_TOLD])
        more = f"; wrong too: rows {others}{' ...' if len(faults) > 1 + MAX_TOLD else ''}" if others else ""
        raise SettingError(f"{path}: row {faults[0][0]}: {faults[0][1]}{more} (nothing was made)")
    return rows


def _check_columns(path: Path, columns: list[str]) -> None:
    if len(set(columns)) < len(columns):
        raise SettingError(f"{path}: a column is there twice")
    for needed in ("text", "out"):
        if needed not in columns:
            raise SettingError(f"{path}: has no column {needed}")
    for name in columns:
        if name not in ("text", "out", *EditSettings.model_fields) and not MEDIA_NAME.match(name):
            known = ", ".join(EditSettings.model_fields)
            raise SettingError(
                f"{path}: column {name!r}: is no medium (video1, image1, mask), and none of {known}"
            )


def _read_row(
    number: int, values: dict[str, Any], beside: Path, editor: dict[str, Any], hashes: dict[str, str]
) -> Row:
    if None in values or None in values.values():
        raise SettingError("has another number of fields than the first line")
    given = {name: value.strip() for name, value in values.items() if value.strip()}
    text, out = given.pop("text", ""), given.pop("out", "")
    if not out:
        raise SettingError("out: is empty")
    files = {name: beside / given.pop(name) for name in list(given) if MEDIA_NAME.match(name)}
    settings = read_settings({name: _value(value) for name, value in given.items()})
    suffix = check_text(text, list(files), settings)
    if Path(out).suffix.lower() != suffix:
        raise SettingError(f"out {out}: this edit makes a {suffix}")
    check_files(files, settings, MAX_FRAMES)
    keywords = settings.keywords()
    for file in files.values():
        if str(file) not in hashes:
            hashes[str(file)] = sha256_of(file)
    contents = {name: hashes[str(file)] for name, file in files.items()}
    content = {"text": text, "media": contents, "settings": keywords, "editor": editor}
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    return Row(number, text, {n: str(f) for n, f in files.items()}, keywords, out, fingerprint)


def _value(cell: str) -> Any:
    """A cell as JSON where it is that (`7`, `true`, `[10, 250]`), `10:250` as a stretch, else as text."""
    first, colon, last = cell.partition(":")
    if colon and first.isdecimal() and last.isdecimal():
        return [int(first), int(last)]
    try:
        return parse_json(cell, "cell")
    except EditVerseError:
        return cell
