"""A row of a run as something to hand in: scores, hashes and a card of the method, and no videos.

A submission is a folder or a zip of three files: `submission.json` (suite, row, card, hashes), `items.json`
and `summary.json` as a run writes them, cut to the row and the copied source. `check` believes none of the
means: they are computed again from the items.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from benchmark.analysis.compare import ItemEntry, Number, read_items
from benchmark.core.item import SOURCE, BenchmarkError
from benchmark.core.score_cache import number_out
from benchmark.statistics.intervals import Mean, choose_clusters, mean_interval
from benchmark.suites import AnySuite, names
from shards.errors import EditVerseError
from shards.files import atomic_path, sha256_of, write_bytes
from shards.hashing import digest
from shards.limits import MAX_JSON_BYTES, parse_json, read_bytes, read_json, read_yaml

FORMAT = 1
MANIFEST, ITEMS, SUMMARY = "submission.json", "items.json", "summary.json"
LARGEST = 1e12  # of a finite score
CLOSE = 1e-9  # relative: a mean that was copied right


class Card(BaseModel):
    """What a method is; a YAML file with these fields, of which `name` alone must be there.

    Attributes:
        name: of the method, as the leaderboard calls it.
        base: the weights that it starts from.
        steps: of its solver.
        prompt_enhancer: what rewrites its instructions, "none" where nothing does.
        judge: that scored it, where a metric asks one.
        code, weights, paper: addresses.
        notes: whatever else a reader must know.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=80)
    base: str = Field("", max_length=200)
    steps: int | None = Field(None, ge=1)
    prompt_enhancer: str = Field("", max_length=200)
    judge: str = Field("", max_length=200)
    code: str = Field("", max_length=300)
    weights: str = Field("", max_length=300)
    paper: str = Field("", max_length=300)
    notes: str = Field("", max_length=2000)


class SuiteFacts(BaseModel):
    """Which items, and what they mean."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """`submission.json`; `results` are sha256 of the edited files by path, empty where none were there."""

    model_config = ConfigDict(extra="forbid")

    format: int
    suite: SuiteFacts
    row: str
    card: Card
    files: dict[str, str]
    results: dict[str, str]
    made: dict[str, str]


class MetricEntry(BaseModel):
    """A metric in `summary.json`."""

    model_config = ConfigDict(extra="ignore")

    version: int
    higher_is_better: bool
    unit: str = ""
    range: tuple[Number, Number]
    settings: Any = None

    @field_validator("range")
    @classmethod
    def _in_order(cls, value: tuple[Any, Any]) -> tuple[Any, Any]:
        if None in value or not value[0] < value[1]:
            raise ValueError("should be the lowest and the highest value possible")
        return value

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value possible."""
        return float(self.range[0]), float(self.range[1])

    def identity(self) -> str:
        """Scores of two submissions compare where this is the same."""
        return digest([self.version, self.settings])


class _Mean(BaseModel):
    model_config = ConfigDict(extra="ignore")

    value: Number = None
    scored: int


class _Summary(BaseModel):
    model_config = ConfigDict(extra="ignore")

    suite: SuiteFacts
    metrics: dict[str, MetricEntry]
    table: dict[str, dict[str, dict[str, _Mean]]]


class _Items(BaseModel):
    model_config = ConfigDict(extra="ignore")

    items: list[ItemEntry] = Field(min_length=1)


@dataclass(frozen=True)
class Submission:
    """One that has been checked.

    Attributes:
        place: where it was read.
        manifest: see there.
        metrics: by name.
        items: entries by id.
        means: of the row by metric, computed again.
    """

    place: str
    manifest: Manifest
    metrics: dict[str, MetricEntry]
    items: dict[str, ItemEntry]
    means: dict[str, Mean]

    def scores(self, row: str) -> dict[str, dict[str, float | None]]:
        """Of a row, by item and metric."""
        return {id: item.scores.get(row, {}) for id, item in self.items.items()}


def make(run: Path, row: str, card: Path, out: Path, results: Path | None = None) -> Submission:
    """Write a submission from a run's folder, and check it.

    Args:
        run: output folder of a run, with `items.json`, `summary.json` and `config.json`.
        row: which row of its table.
        card: YAML file, see `Card`.
        out: a new .zip, or a new folder.
        results: folder of the edited files, which are hashed; the run's own folder of the row if not given.

    Raises:
        BenchmarkError: what is missing or wrong, by file and field.
    """
    if out.exists():
        raise BenchmarkError(f"--out {out}: is there already; choose another, or remove it")
    items = read_items(run)
    summary = _json(run / SUMMARY)
    if not all(row in item["scores"] for item in items.values()):
        known = list(dict.fromkeys(r for item in items.values() for r in item["scores"]))
        raise BenchmarkError(f"--row {row}: the run has {', '.join(known)}")
    try:
        about = Card.model_validate(read_yaml(card))
    except (OSError, EditVerseError, ValidationError) as error:
        raise BenchmarkError(f"--card {card}: {_reason(error)}") from None
    if results is None:
        results = _own_results(run, row)
    elif not results.is_dir():
        raise BenchmarkError(f"--results {results}: is no folder")
    rows = [r for r in (SOURCE, row) if r in next(iter(items.values()))["scores"]]
    held = {
        ITEMS: _json_bytes({"items": [_cut_item(item, rows) for item in items.values()]}),
        SUMMARY: _json_bytes(_cut_summary(summary, rows)),
    }
    manifest = {
        "format": FORMAT,
        "suite": summary.get("suite"),
        "row": row,
        "card": about.model_dump(),
        "files": {name: _sha256(data) for name, data in held.items()},
        "results": {} if results is None else _hashes(results),
        "made": summary.get("made", {}),
    }
    held[MANIFEST] = _json_bytes(manifest)
    checked = _check(held, str(out), None)  # what would be refused is not written
    if out.suffix == ".zip":
        with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in sorted(held.items()):
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    else:
        out.mkdir(parents=True)
        for name in (ITEMS, SUMMARY, MANIFEST):  # the last one makes it a submission
            write_bytes(out / name, held[name])
    return checked


def check(place: Path, suite: AnySuite | None = None, results: Path | None = None) -> Submission:
    """Read a submission, folder or zip, and recompute what it says.

    Args:
        place: the folder or zip.
        suite: opened on its data, to compare the items with; without it, their ids are believed.
        results: folder of the edited files, to compare the hashes with.

    Raises:
        BenchmarkError: a file, hash, item, score or mean that is not as it should be.
    """
    checked = _check(_read(place), str(place), suite)
    if results is not None:
        told, found = checked.manifest.results, _hashes(results)
        for name in sorted(told.keys() | found.keys()):
            if told.get(name) != found.get(name):
                what = "is missing" if name not in found else "is not in the submission" * (name not in told)
                raise BenchmarkError(f"{results}: {name} {what or 'has another sha256 than was submitted'}")
    return checked


def _read(place: Path) -> dict[str, bytes]:
    names_of = (MANIFEST, ITEMS, SUMMARY)
    try:
        if place.is_dir():
            return {name: read_bytes(place / name) for name in names_of}
        with zipfile.ZipFile(place) as archive:
            held = {}
            for name in names_of:
                if archive.getinfo(name).file_size > MAX_JSON_BYTES:
                    raise BenchmarkError(f"{place}: {name} is larger than {MAX_JSON_BYTES} bytes")
                with archive.open(name) as handle:  # the header's size may lie
                    held[name] = handle.read(MAX_JSON_BYTES + 1)
            return held
    except KeyError as error:
        raise BenchmarkError(f"{place}: no submission: {error.args[0]}") from None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EditVerseError) as error:
        if isinstance(error, BenchmarkError):
            raise
        raise BenchmarkError(f"{place}: no submission: {error}") from None


def _check(held: dict[str, bytes], place: str, suite: AnySuite | None) -> Submission:
    def read(name: str, kind: type[BaseModel]) -> Any:
        try:
            return kind.model_validate(parse_json(held[name], name))
        except (EditVerseError, ValidationError) as error:
            raise BenchmarkError(f"{place}: {name}: {_reason(error)}") from None

    manifest: Manifest = read(MANIFEST, Manifest)
    if manifest.format != FORMAT:
        raise BenchmarkError(f"{place}: {MANIFEST}: format {manifest.format}; this version reads {FORMAT}")
    for name in (ITEMS, SUMMARY):
        if manifest.files.get(name) != _sha256(held[name]):
            raise BenchmarkError(f"{place}: {name}: not the file whose sha256 {MANIFEST} has")
    summary: _Summary = read(SUMMARY, _Summary)
    if summary.suite != manifest.suite:
        raise BenchmarkError(f"{place}: {SUMMARY}: suite: another than in {MANIFEST}")
    if manifest.suite.name not in names():
        raise BenchmarkError(
            f"{place}: {MANIFEST}: suite: {manifest.suite.name} is not one of {', '.join(names())}"
        )
    listed: _Items = read(ITEMS, _Items)
    items = {item.id: item for item in listed.items}
    if len(items) != len(listed.items):
        raise BenchmarkError(f"{place}: {ITEMS}: an item is there twice")
    if suite is not None:
        _compare_with_suite(place, manifest, items, suite)
    return Submission(place, manifest, summary.metrics, items, _means(place, manifest, summary, items))


def _compare_with_suite(place: str, manifest: Manifest, items: dict[str, ItemEntry], suite: AnySuite) -> None:
    ours = SuiteFacts(name=suite.name, version=suite.version, sha256=suite.sha256)
    for field in ("name", "version", "sha256"):
        theirs, own = getattr(manifest.suite, field), getattr(ours, field)
        if theirs != own:
            raise BenchmarkError(f"{place}: {MANIFEST}: suite.{field} is {theirs}; --data has {own}")
    known = {item.id: item for item in suite.items}
    for id in sorted(items.keys() - known.keys()):
        raise BenchmarkError(f"{place}: {ITEMS}: {id}: the suite has no such item")
    missing = sorted(known.keys() - items.keys())
    if missing:
        raise BenchmarkError(f"{place}: {ITEMS}: {missing[0]} and {len(missing) - 1} more items are missing")
    for id, item in items.items():
        if (item.clip, item.pair) != (known[id].clip, known[id].pair):
            raise BenchmarkError(f"{place}: {ITEMS}: {id}: clip or pair is not the suite's")


def _means(place: str, manifest: Manifest, summary: _Summary, items: dict[str, ItemEntry]) -> dict[str, Mean]:
    row = manifest.row
    clusters = choose_clusters([i.clip for i in items.values()], [i.pair for i in items.values()])[1]
    told = summary.table.get("all", {}).get(row)
    if told is None:
        raise BenchmarkError(f"{place}: {SUMMARY}: table: no means of {row}")
    found = {}
    for name, metric in summary.metrics.items():
        low, high = metric.bounds
        scores = []
        for id, item in items.items():
            if row not in item.scores or name not in item.scores[row]:
                raise BenchmarkError(f"{place}: {ITEMS}: {id}: no score of {row} by {name}, not even null")
            score = item.scores[row][name]
            if score is not None and LARGEST < abs(score) < math.inf:
                raise BenchmarkError(f"{place}: {ITEMS}: {id}: {name} {score:g} is no score")
            if score is not None and not low <= score <= high:
                raise BenchmarkError(
                    f"{place}: {ITEMS}: {id}: {name} {score:g} is outside of [{low:g}, {high:g}]"
                )
            scores.append(score)
        mean = found[name] = mean_interval(scores, clusters, bounds=metric.bounds)
        said = told.get(name)
        if said is None or said.scored != mean.scored or not _same(said.value, mean.value):
            shown = "none" if said is None else f"{said.value} over {said.scored}"
            raise BenchmarkError(
                f"{place}: {SUMMARY}: {name}: mean {shown}; the items have {mean.value} over {mean.scored}"
            )
    return found


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return a == b or math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)


def _cut_item(item: dict[str, Any], rows: list[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        name: item[name] for name in ("id", "task", "category", "clip", "pair") if name in item
    }
    scores = {
        row: {metric: number_out(score) for metric, score in item["scores"][row].items()}
        for row in rows
        if row in item["scores"]
    }
    return {**kept, "scores": scores}


def _cut_summary(summary: dict[str, Any], rows: list[str]) -> dict[str, Any]:
    table = summary.get("table")
    if not isinstance(table, dict) or not all(isinstance(of, dict) for of in table.values()):
        raise BenchmarkError(f"{SUMMARY}: has no table; run the benchmark again into this folder")
    kept: dict[str, Any] = {
        name: summary[name] for name in ("suite", "metrics", "clustered_by", "remarks") if name in summary
    }
    return {**kept, "table": {group: {r: of[r] for r in rows if r in of} for group, of in table.items()}}


def _own_results(run: Path, row: str) -> Path | None:
    """The folder that a run's row was scored from, where its configuration says one that is still there."""
    path = run / "config.json"
    config = _json(path) if path.is_file() else {}
    given = config.get("results")
    place = given.get(row) if isinstance(given, dict) else None
    folder = Path(place) if isinstance(place, str) else run / "edits"
    return folder if folder.is_dir() else None


def _json(path: Path) -> dict[str, Any]:
    try:
        read = read_json(path)
    except (OSError, EditVerseError) as error:
        raise BenchmarkError(f"{path}: cannot be read ({error}); run the benchmark again into it") from None
    if not isinstance(read, dict):
        raise BenchmarkError(f"{path}: should be an object; run the benchmark again into it")
    return read


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in files}


def _json_bytes(value: Any) -> bytes:
    """In the order of its fields: a run's metrics are listed with the headline first."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))[:80]}: {first['msg'][:200]}"
    return str(error)


def mean_out(mean: Mean) -> dict[str, Any]:
    """A mean as JSON values."""
    return asdict(mean) | {"value": number_out(mean.value)}
