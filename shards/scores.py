"""Scores of samples beside their shards: a column per score, so that nobody reads all samples to choose some.

A folder `scores-<16 digits of the manifest's sha256>` beside the shards holds `<score>.npy`, float32 by
sample in the order of `ShardSet(directory).keys`, NaN where a score could not be measured (`null`), and
`scores.json`: what each score is, what made it, and the sha256 of its values. Where the folder cannot be
written to it lies in the cache of this machine. The samples' own `scores` are read out of the shards once and
become columns too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError

from shards.column_writer import alone, open_columns
from shards.errors import SettingError, first_line
from shards.limits import MAX_JSON_BYTES
from shards.location import WEB, Location, ShardError
from shards.reader import ShardSet
from shards.resources import cache_root
from shards.sample import Sha256, Strict, explain

log = logging.getLogger(__name__)

PREFIX, HEADER = "scores-", "scores.json"
OWN = "sample"  # what made the samples' own scores
LONGEST = 100  # characters of a score's name
SAMPLE_NUMBER = "number of a sample"  # unit of what names another sample and measures nothing
AGAIN = "remove the folder and grade again"
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
Floats = NDArray[np.float32]


class ScoreError(ShardError):
    """A score that is not there or cannot be read; the message names the folder and what to do."""


class About(Strict):
    """What a score is.

    Attributes:
        made_by: the stage and version that measured it, e.g. "grade psnr_outside 1"; "sample" for the
            samples' own.
        config: `sha256:` of the settings that it depends on; "" where it depends on none.
        unit: e.g. "dB"; "" for a pure number; `SAMPLE_NUMBER` for the place of another sample among the keys.
        better: which values are of better samples.
        what: what it measures, in one sentence.
    """

    made_by: str
    config: str = ""
    unit: str = ""
    better: Literal["higher", "lower", "neither"] = "neither"
    what: str = ""


class _Entry(About):
    """A score in the header; `sha256` is that of its values."""

    sha256: Sha256


class _Header(Strict):
    """`scores.json`. `own` says that the samples' own scores were read out of the shards."""

    version: Literal[1] = 1
    manifest: Sha256
    samples: Annotated[int, Field(ge=0)]
    own: bool = False
    scores: dict[str, _Entry] = Field(default_factory=dict)


def scores_name(manifest: str) -> str:
    """The folder of the scores of a manifest of this sha256."""
    return f"{PREFIX}{manifest[:16]}"


def _file(name: str) -> str:
    return f"{quote(name, safe='')}.npy"


class Scores:
    """The scores of a shard folder or URL, as `open_scores` gives them.

    Attributes:
        samples: how many there are, over all splits.
    """

    def __init__(self, directory: str | Path) -> None:
        columns = open_columns(directory)
        self.directory, self.samples, self._manifest = directory, columns.samples, columns.manifest
        self._places = _places(directory, self._manifest)
        self._opened: dict[str, Floats] = {}  # by the checksum with which it was compared
        self._load()

    def _load(self) -> None:
        self._headers = [_read_header(place, self._manifest, self.samples) for place in self._places]

    @property
    def stored(self) -> tuple[str, ...]:
        """Names of the scores that have a column already, sorted; reads no sample."""
        return tuple(sorted({name for header in self._headers for name in header.scores}))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all scores, sorted, with the samples' own, which are read out of the shards once."""
        self._gather()
        return self.stored

    def __contains__(self, name: str) -> bool:
        return name in self.stored or name in self.names

    def about(self, name: str) -> About:
        """What a score is; raises ScoreError where there is none of this name."""
        entry = self._find(name)[1]
        return About(**entry.model_dump(exclude={"sha256"}))

    def sha256(self, name: str) -> str:
        """Hexadecimal sha256 of a score's values; raises ScoreError where there is none of this name."""
        return self._find(name)[1].sha256

    def column(self, name: str) -> Floats:
        """A score of every sample: float32 [samples], NaN where it could not be measured; mapped, read-only.

        Raises:
            ScoreError: there is none of this name, or its file is missing or damaged.
        """
        place, entry = self._find(name)
        if entry.sha256 not in self._opened:
            try:
                column = _open_column(place, name, entry, self.samples)
            except ScoreError:
                self._load()  # another process may have measured it anew in between
                place, entry = self._find(name)
                column = _open_column(place, name, entry, self.samples)
            self._opened[entry.sha256] = column
        return self._opened[entry.sha256]

    def _find(self, name: str) -> tuple[Location, _Entry]:
        if name not in self:
            known = ", ".join(self.names) or "none"
            raise ScoreError(
                f"{self.directory}: no score {name!r}, there are: {known}; "
                f"`python -m curation grade {self.directory}` measures more"
            )
        return next(
            (place, header.scores[name])
            for place, header in zip(self._places, self._headers, strict=True)
            if name in header.scores
        )

    def _gather(self) -> None:
        """Store the samples' own scores, once; what was measured later under the same name counts more."""
        if any(header.own for header in self._headers):
            return
        with alone(cache_root() / "scores" / f"reading-{self._manifest[:16]}"):
            self._load()
            if any(header.own for header in self._headers):  # another process has read them
                return
            own: dict[str, Floats] = {}
            samples = ShardSet(self.directory)
            for number in range(len(samples)):
                for name, value in samples.sample(number).scores.items():
                    if name not in own:
                        own[name] = np.full(self.samples, np.nan, np.float32)
                    own[name][number] = np.nan if value is None else value
            about = About(made_by=OWN, what="the samples' own score")
            missing = {name: (own[name], about) for name in sorted(own) if name not in self.stored}
            places = self._places[1:] if self._places[0].remote else self._places
            _write(places, self._manifest, self.samples, missing, own=True)
        self._load()


def open_scores(directory: str | Path) -> Scores:
    """The scores of the samples of a shard folder or URL.

    Raises:
        ShardError: the folder's manifest or index is missing or damaged, or its scores are.
    """
    return Scores(directory)


def write_scores(directory: str | Path, name: str, values: ArrayLike, about: About) -> None:
    """Store a score of every sample, in place of what was stored under its name; atomic.

    Args:
        name: 1 to 100 printable characters.
        values: [samples] in the order of `ShardSet(directory).keys`; NaN for null.

    Raises:
        SettingError: the name cannot be used, a value is infinite, or there are too few or too many.
        ShardError: the folder is no shard folder.
    """
    write_all_scores(directory, {name: (values, about)})


def write_all_scores(
    directory: str | Path, scores: Mapping[str, tuple[ArrayLike, About]], own: bool = False
) -> None:
    """Store several scores at once, see `write_scores`.

    Args:
        own: the samples' own are all among them, and need not be read out of the shards.
    """
    columns = open_columns(directory)
    checked: dict[str, tuple[Floats, About]] = {}
    for name, (values, about) in scores.items():
        if not 1 <= len(name) <= LONGEST or not name.isprintable():
            raise SettingError(f"score {name[:LONGEST]!r}: a name has 1 to {LONGEST} printable characters")
        with np.errstate(over="ignore"):
            column = np.asarray(values, np.float32)
        if column.shape != (columns.samples,):
            raise SettingError(
                f"score {name!r}: values of shape {column.shape}, {directory} has {columns.samples} samples"
            )
        if np.isinf(column).any():
            number = int(np.isinf(column).argmax())
            raise SettingError(f"score {name!r}: infinite at sample {number}; cap it, or give NaN for null")
        checked[name] = column, about
    _write(_places(directory, columns.manifest), columns.manifest, columns.samples, checked, own)


def scores_faults(directory: str | Path) -> Iterator[str]:
    """What is wrong with the stored scores of a folder, one line per fault."""
    try:
        scores = Scores(directory)
    except ShardError as error:
        yield str(error)
        return
    for name in scores.stored:
        try:
            scores.column(name)
        except ShardError as error:
            yield str(error)


def _places(directory: str | Path, manifest: str) -> list[Location]:
    """Where scores may lie: beside the shards, then in the cache of this machine."""
    location, name = Location(directory), scores_name(manifest)
    return [Location(location.path(name)), Location(cache_root() / "scores" / name)]


def _read_header(place: Location, manifest: str, samples: int) -> _Header:
    try:
        header = _Header.model_validate_json(place.read(HEADER, limit=MAX_JSON_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return _Header(manifest=manifest, samples=samples)
    except ValidationError as error:
        raise ScoreError(f"{place.path(HEADER)}: {explain(error)}; {AGAIN}") from None
    if (header.manifest, header.samples) != (manifest, samples):
        raise ScoreError(f"{place.path(HEADER)}: of another manifest; {AGAIN}")
    return header


def _open_column(place: Location, name: str, entry: _Entry, samples: int) -> Floats:
    path = place.path(_file(name))
    again = "remove it and run `python -m curation grade` again"
    try:
        local = _copied(place, name, entry) if place.remote else Path(path)
        column: Floats = np.load(local, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ScoreError(f"{path}: missing; {again}") from None
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        raise ScoreError(f"{path}: damaged ({first_line(error)}); {again}") from None
    if column.dtype != np.float32 or column.shape != (samples,) or _sha256(column) != entry.sha256:
        raise ScoreError(f"{path}: damaged, it is not what {HEADER} says; {again}")
    return column


def _copied(place: Location, name: str, entry: _Entry) -> Path:
    """A copy on this machine of a column that lies behind a URL."""
    path = cache_root() / "scores" / "copies" / f"{entry.sha256}.npy"
    if not path.is_file():
        place.fetch(_file(name), path)
    return path


def _sha256(column: Floats) -> str:
    """Of the values alone: the header of the file is numpy's affair."""
    return hashlib.sha256(np.ascontiguousarray(column).data).hexdigest()


def _write(
    places: list[Location],
    manifest: str,
    samples: int,
    scores: Mapping[str, tuple[Floats, About]],
    own: bool = False,
) -> None:
    """Write beside the shards, or into the cache where that cannot be written to.

    A reader or a crash never sees a column under what was said of an older one: a score that is replaced is
    taken out of the header first.
    """
    for number, place in enumerate(places):
        last = number + 1 == len(places)
        if place.protocol in WEB and not last:  # which takes no files
            log.info("%s: cannot be written to; its scores go to %s", place, places[-1])
            continue
        try:
            with contextlib.nullcontext() if place.remote else alone(Path(place.folder)):
                _replace(place, _read_header(place, manifest, samples), scores, own)
            return
        except OSError as error:
            if error.errno not in READ_ONLY or last:
                raise
            log.info("%s: cannot be written to; its scores go to %s", place, places[-1])


def _replace(place: Location, header: _Header, scores: Mapping[str, tuple[Floats, About]], own: bool) -> None:
    kept = {name: entry for name, entry in header.scores.items() if name not in scores}
    if len(kept) < len(header.scores):
        _put_header(place, header.model_copy(update={"scores": kept}))
    for name, (column, about) in scores.items():
        buffer = io.BytesIO()
        np.save(buffer, column)
        place.put(_file(name), buffer.getvalue())
        kept[name] = _Entry(**about.model_dump(), sha256=_sha256(column))
    ordered = dict(sorted(kept.items()))
    _put_header(place, header.model_copy(update={"scores": ordered, "own": header.own or own}))


def _put_header(place: Location, header: _Header) -> None:
    place.put(HEADER, (header.model_dump_json(indent=2) + "\n").encode())
