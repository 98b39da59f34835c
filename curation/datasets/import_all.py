"""`python -m curation import-all`: the data sets of a list, each by `import`, as far as their licences allow.

What forbids commercial use, or may, is left out unless it is asked for. A data set that fails does not cost
the others. `imports.json` in the folder says what was used, what was not, and why.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from curation.datasets.layouts.formats import open_layout
from curation.datasets.layouts.mapping import mapping_of
from curation.datasets.layouts.rows import LayoutOptions
from shards.command import nearest
from shards.errors import EditVerseError, SettingError
from shards.files import write_json
from shards.limits import read_yaml, shown
from shards.reports.licenses import UNKNOWN, Verdict, verdict_of
from shards.resources import config_file, named_in

RECORD = "imports.json"
KEYS = ("name", "format", "source", "mapping", "license", "commercial")
GIVEN = ("format", "source", "out", "mapping", "license", "workers", "retry")  # of `import`, no options here
BY_ROW = "stated by its rows"
Import = Callable[..., None]


class ImportsFailed(EditVerseError):
    """Some data sets of a list were not imported; the message names them and where the reasons are."""


@dataclass(frozen=True)
class ListedDataSet:
    """An entry of a list of imports.

    Attributes:
        name: of its folder.
        format, source: as `import` takes them.
        mapping: a YAML file of roles and columns.
        license: that the list states; the data set's own as published when "".
        commercial: whether its licence allows commercial use, where its words do not say; None to go by them.
        options: more of `import`'s, which stand beside these.
    """

    name: str
    format: str
    source: str
    mapping: Path | None = None
    license: str = ""
    commercial: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ImportRecord:
    """What became of the data sets of a list, as `imports.json` has it.

    Attributes:
        commercial: whether those that forbid commercial use, or may, were left out.
        used: name, format, source, license, commercial ("yes", "no" or "unknown"), and what came of it.
        left_out: name, license and reason.
        failed: name and error.
    """

    commercial: bool
    used: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)


def read_list(path: Path, run: Import) -> list[ListedDataSet]:
    """The entries of a YAML list, checked as far as that is possible without the data.

    Args:
        run: `import`'s own function, whose arguments may be options.

    Raises:
        SettingError: naming the file, the entry and the fault; no list, an unknown format or key, a name that
            is there twice, or a licence that nobody states.
    """
    path = config_file(path)
    try:
        rows = read_yaml(path)
    except OSError as error:
        raise SettingError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(rows, list) or not rows:
        raise SettingError(f"{path}: needs a list of data sets, each with name, format and source")
    known = [name for name in inspect.signature(run).parameters if name not in GIVEN]
    found: list[ListedDataSet] = []
    for number, row in enumerate(rows, 1):
        entry = _entry(row, path, f"{path}, entry {number}", known)
        if entry.name in {other.name for other in found}:
            raise SettingError(f"{path}: {entry.name} is there twice")
        if license_of(entry) == UNKNOWN:
            raise SettingError(
                f"{path}: {entry.name}: its licence is unknown; state `license`, or take the entry out"
            )
        found.append(entry)
    return found


def _entry(row: Any, path: Path, where: str, known: list[str]) -> ListedDataSet:
    """One row of the list as an entry."""
    if not isinstance(row, dict):
        raise SettingError(f"{where}: needs name, format and source, got {shown(row)}")
    for key in row:
        if key not in KEYS and key not in known:
            raise SettingError(f"{where}: no key {shown(key)}{nearest(str(key), [*KEYS, *known])}")
    for key in ("name", "format", "source"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise SettingError(f"{where}: needs `{key}` as text")
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", row["name"]) or row["name"].startswith("."):
        raise SettingError(
            f"{where}: the name {shown(row['name'])} is that of a folder: letters, digits, _ . -"
        )
    mapping = row.get("mapping")
    if mapping is not None and not named_in(path, str(mapping)).is_file():
        raise SettingError(f"{where}: mapping: {named_in(path, str(mapping))} is no file")
    if not isinstance(row.get("commercial"), bool | None) or not isinstance(row.get("license", ""), str):
        raise SettingError(f"{where}: `commercial` is true or false, and `license` a text")
    return ListedDataSet(
        row["name"],
        row["format"],
        row["source"],
        None if mapping is None else named_in(path, str(mapping)),
        row.get("license", "").strip(),
        row.get("commercial"),
        {key: value for key, value in row.items() if key in known},
    )


def license_of(entry: ListedDataSet) -> str:
    """The licence of a data set: the list's word, else its own as published; "unknown" where none is stated.

    Raises SettingError for an unknown format, or a mapping that does not fit.
    """
    mapping = mapping_of(entry.mapping, str(entry.options.get("columns", "")))
    layout = open_layout(entry.format, LayoutOptions(mapping, str(entry.options.get("task", ""))))
    if entry.license:
        return entry.license
    return BY_ROW if entry.format == "table" and "license" in mapping else layout.license


def verdict_on(entry: ListedDataSet, license: str) -> Verdict:
    """Whether a data set may be used commercially: as the list says, else by the words of its licence."""
    if entry.commercial is not None:
        return Verdict("yes" if entry.commercial else "no", "as the list says")
    return verdict_of(license)


def import_all(
    entries: list[ListedDataSet], out: Path, commercial: bool, workers: int, retry: bool, run: Import
) -> ImportRecord:
    """Import the data sets of a list, one after the other, each into a folder of its name.

    Args:
        commercial: leave out what forbids commercial use, or may.
        run: `import`'s own function.

    Raises:
        ImportsFailed: after all, where some failed or none is used.
    """
    console, record = Console(stderr=True), ImportRecord(commercial)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    for entry in entries:
        license = license_of(entry)
        verdict = verdict_on(entry, license)
        if commercial and verdict.use != "yes":
            why = (
                verdict.reason
                if verdict.use == "no"
                else f"it is not known to allow commercial use: {verdict.reason}"
            )
            record.left_out.append({"name": entry.name, "license": license, "reason": why})
            say(f"{entry.name}: left out, {license}: {why}")
            _write(out, record)
            continue
        folder = out / entry.name
        given = {"mapping": entry.mapping, "license": entry.license, "workers": workers, "retry": retry}
        try:
            run(entry.format, entry.source, str(folder), **given, **entry.options)
        except EditVerseError as error:
            record.failed.append({"name": entry.name, "error": str(error)})
            say(f"{entry.name}: failed: {error}")
        else:
            summary = json.loads((folder / "summary.json").read_bytes())
            counts = {key: summary[key] for key in ("rows", "accepted", "samples")}
            about = {key: getattr(entry, key) for key in ("name", "format", "source")}
            use = {"license": license, "commercial": verdict.use}
            record.used.append({**about, **use, **counts})
        _write(out, record)
    if record.failed:
        names = ", ".join(f"{row['name']} ({row['error']})" for row in record.failed)
        raise ImportsFailed(f"not imported: {names}; the others are there, see {out / RECORD}")
    if not record.used:
        raise ImportsFailed(
            f"every data set is left out, see {out / RECORD}; --no_commercial takes what forbids it"
        )
    return record


def _write(out: Path, record: ImportRecord) -> None:
    write_json(out / RECORD, asdict(record))
