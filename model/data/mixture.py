"""Which data sets are trained on, how often each, and which samples a step visits.

Paper section 4 and Table 10: a row's share is its count times its ratio. Every visit has its place in an
endless order that can be entered anywhere, so that a step needs no earlier step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data.lengths import Ints, Lengths, draw_lengths
from shards.errors import ConfigError, EditVerseError, SettingError
from shards.limits import MAX_FPS, MAX_FRAMES, MAX_PIXELS, in_range, read_yaml, shown
from shards.resources import named_in
from shards.serialization import from_dict

MOST_BASES = 16  # of a mixture, one on the other
UNLIMITED = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class DatasetConfig:
    """One data set of a mixture.

    Attributes:
        group: e.g. image_editing; overlays drop whole groups.
        count: its samples, as published; the shards' own number counts where there are shards.
        ratio: visits of each sample per epoch of the mixture, above 0. A fraction is exact over the epochs in
            which it adds up to whole numbers.
        source: where it comes from, or "internal".
        shards: folders or URLs that hold it. tasks: those of its samples that belong to the row; all if none.
        masked: whether its samples give a mask beside the words; either if None.
        min_scores, max_scores: by score, the least and the most that its samples may have
            (`shards.scores`); one whose score is null does not belong to the row.
        fps: frames per second to which its videos are brought, by the nearest frame of each moment, so that
            sources and targets of different rates run together; None leaves each video at its own.
        frames, min_area, max_area: of its clips, in place of the model's (`model.config.MediaConfig`).
        crops: in place of `data.crops`.
        max_visits: most visits of each sample over the whole run. When they are spent the row is silent and
            the others go on in their proportions. None is no limit.
        tokens: for plans without shards.
    """

    group: str = "data"
    count: int = 0
    ratio: float = 1.0
    source: str = ""
    shards: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    masked: bool | None = None
    min_scores: dict[str, float] = field(default_factory=dict)
    max_scores: dict[str, float] = field(default_factory=dict)
    fps: float | None = None
    frames: int | None = None
    min_area: int | None = None
    max_area: int | None = None
    crops: int | None = None
    max_visits: int | None = None
    tokens: tuple[Lengths, ...] = ()

    def __post_init__(self) -> None:
        if not self.ratio > 0 or math.isinf(self.ratio):
            raise SettingError(f"ratio {self.ratio} must be above 0; drop the row to leave it out")
        if self.count < 0:
            raise SettingError(f"count {self.count} is negative")
        in_range("ratio", self.ratio, 1e-9, 1e9)
        in_range("count", self.count, 0, 1 << 40)
        for name, bounds in (("min_scores", self.min_scores), ("max_scores", self.max_scores)):
            for score, bound in bounds.items():
                if not isinstance(score, str):
                    raise SettingError(f"{name}: {shown(score)}: a score's name is a text")
                in_range(f"{name}.{score}", bound, -1e30, 1e30)
        for name, most in (
            ("fps", MAX_FPS),
            ("frames", MAX_FRAMES),
            ("min_area", MAX_PIXELS),
            ("max_area", MAX_PIXELS),
            ("crops", MAX_FRAMES),
            ("max_visits", 1 << 30),
        ):
            if (value := getattr(self, name)) is not None:
                in_range(name, value, 0.01 if name == "fps" else 1, most)

    @property
    def media_limits(self) -> dict[str, int]:
        """The fields of `MediaConfig` that the row sets."""
        fields = {name: getattr(self, name) for name in ("frames", "min_area", "max_area")}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def clip_settings(self) -> dict[str, float]:
        """What the row sets of how its clips are taken, by field."""
        fields = {"fps": self.fps, **self.media_limits, "crops": self.crops}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores that its samples are chosen by, sorted."""
        return tuple(sorted({*self.min_scores, *self.max_scores}))

    def holds(self, task: str, text: str) -> bool:
        """Whether a sample of its shards belongs to the row, as far as its scores allow."""
        return (not self.tasks or task in self.tasks) and self.masked in (None, "<mask" in text)


@dataclass(frozen=True)
class Mixture:
    """Rows by name."""

    rows: dict[str, DatasetConfig] = field(default_factory=dict)


def read_mixture(path: str | Path, depth: int = 0) -> Mixture:
    """Read a mixture file.

    Its fields: `rows` (name -> `DatasetConfig`); or `base` (another file, relative to this one) and what is
    changed of it: `drop` (names of rows or groups), `keep` (the same, all others go), `change` (name ->
    fields of `DatasetConfig`), and `rows` that are added.

    Args:
        depth: how many mixtures have this one as their base.

    Raises:
        ConfigError: the file cannot be read, or names a row or group that its base does not have.
    """
    path = Path(path)
    if depth > MOST_BASES:
        raise ConfigError(f"{path}: base: more than {MOST_BASES} files on each other; is it its own base?")
    value = _mixture_fields(path)
    rows: dict[str, DatasetConfig] = {}
    if "base" in value:
        rows = dict(read_mixture(named_in(path, str(value["base"])), depth + 1).rows)
    rows = _without_dropped(rows, value, path)
    _change_rows(rows, value, path)
    if not rows:
        raise ConfigError(f"{path}: no rows are left")
    return Mixture(rows)


def _mixture_fields(path: Path) -> dict[str, Any]:
    """What a mixture file holds, each field a list or mapping as it should be."""
    try:
        value = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except EditVerseError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected `rows`, or `base` and changes to it")
    known = ("base", "drop", "keep", "change", "rows")
    unknown = [name for name in value if name not in known]
    if unknown:
        raise ConfigError(f"{path}: unknown field {shown(unknown[0])}; it has {', '.join(known)}")
    for field_name, kind in (("drop", list), ("keep", list), ("change", dict), ("rows", dict)):
        if not isinstance(value.get(field_name) or kind(), kind):
            raise ConfigError(
                f"{path}: {field_name}: expected a {'list' if kind is list else 'mapping'}, "
                f"got {shown(value[field_name])}"
            )
    for name in [*(value.get("change") or {}), *(value.get("rows") or {})]:
        if not isinstance(name, str):
            raise ConfigError(f"{path}: {shown(name)}: a row's name is a text")
    return value


def _without_dropped(
    rows: dict[str, DatasetConfig], value: dict[str, Any], path: Path
) -> dict[str, DatasetConfig]:
    """The base's rows that `drop` and `keep` leave; both name rows or groups."""

    def named(field_name: str) -> set[str]:
        found: set[str] = set()
        for name in value.get(field_name) or []:
            hit = {n for n, row in rows.items() if name in (n, row.group)}
            if not hit:
                groups = sorted({row.group for row in rows.values()})
                raise ConfigError(
                    f"{path}: {field_name}: no row or group {name!r}; rows are {', '.join(rows) or 'none'}; "
                    f"groups {', '.join(groups) or 'none'}"
                )
            found |= hit
        return found

    dropped = named("drop")
    if "keep" in value:
        dropped |= set(rows) - named("keep")
    return {name: row for name, row in rows.items() if name not in dropped}


def _change_rows(rows: dict[str, DatasetConfig], value: dict[str, Any], path: Path) -> None:
    """Apply `change` to the rows that are left, then add the new ones."""
    for name, change in (value.get("change") or {}).items():
        if name not in rows:
            raise ConfigError(f"{path}: change: no row {name!r}; rows are {', '.join(rows) or 'none'}")
        merged = from_dict(DatasetConfig, change, f"{path}: change.{name}")
        try:
            # only the fields that the file names: the others of `merged` are defaults
            rows[name] = replace(rows[name], **{key: getattr(merged, key) for key in change})
        except ValueError as error:
            raise ConfigError(f"{path}: change.{name}: {error}") from error
    for name, row in (value.get("rows") or {}).items():
        if name in rows:
            base = value.get("base")
            raise ConfigError(f"{path}: rows: {name!r} is in {base} already; put it under `change`")
        rows[name] = from_dict(DatasetConfig, row, f"{path}: rows.{name}")


@dataclass(frozen=True)
class Visit:
    """One visit of a sample: its index, and in which pass over its row."""

    index: int
    epoch: int


class MixtureSampler:
    """The endless order in which a mixture's samples are visited.

    Row r has its own order: pass after pass over its samples, each pass shuffled anew. Its visits are spread
    evenly over time, so that any stretch of the common order holds every row in its exact proportion, give or
    take one visit. A pass shuffles the shards, then the samples of `open_shards` shards at a time, so that
    reading in this order has few files open. A row whose visits are spent (`max_visits`) has no place in the
    order any more; the others keep theirs and move up.

    Args:
        shards: per row the sizes of its shards; samples are numbered row by row, shard by shard.
        ratios, max_visits: per row, see `DatasetConfig`; no row is limited when `max_visits` is not given.

    Attributes:
        num_visits: of the whole order; None when it has no end.

    Raises:
        ConfigError: no samples.
    """

    def __init__(
        self,
        shards: Sequence[Sequence[int] | Ints],
        ratios: Sequence[float],
        seed: int,
        open_shards: int = 64,
        max_visits: Sequence[int | None] | None = None,
    ) -> None:
        self.seed, self.open_shards = seed, open_shards
        self.sizes = [np.asarray(s, np.int64) for s in shards]
        self.counts = [int(s.sum()) for s in self.sizes]
        if not self.counts or min(self.counts) < 1:
            raise ConfigError("data: no training samples")
        self.offsets = np.concatenate([[0], np.cumsum(self.counts)])
        exact = [Fraction(str(ratio)) * count for ratio, count in zip(ratios, self.counts, strict=True)]
        self.epoch = sum(exact)  # visits of an epoch
        self.rates = np.array([float(e) for e in exact])  # visits per epoch
        self.phases = np.random.default_rng([seed, 0]).uniform(0.05, 0.95, len(exact))
        most = max_visits or [None] * len(exact)
        limits = [UNLIMITED if m is None else m * c for m, c in zip(most, self.counts, strict=True)]
        self.limits = np.array(limits, np.int64)  # visits of each row
        self.num_visits = None if UNLIMITED in limits else sum(limits)
        # when rows are spent, and the rate of those that are left then
        spent = sorted(
            {float(t) for t, n in zip(self.limits / self.rates, limits, strict=True) if n < UNLIMITED}
        )
        self._spent = [(t, float(self.rates[self.limits / self.rates > t].sum())) for t in spent]
        # a pass of each row at a time, and some that end
        self._part = functools.lru_cache(maxsize=len(exact) + 8)(self._shuffled)
        self._shards = functools.lru_cache(maxsize=4 * len(exact))(self._shard_order)

    def draws(self, first: int, count: int) -> list[Visit]:
        """Visits number first to first + count of the order; `Visit.epoch` counts the passes of its row.

        Raises:
            ConfigError: the order ends before.
        """
        self.check(first + count)
        rows, visits, _ = self._visits(first, count)
        turns, places = np.divmod(visits, np.asarray(self.counts)[rows])
        samples = self.offsets[rows]
        for row in np.unique(rows).tolist():
            here = rows == row
            samples[here] += self._samples(row, turns[here], places[here])
        return [Visit(index, turn) for index, turn in zip(samples.tolist(), turns.tolist(), strict=True)]

    def visits_before(self, first: int) -> Ints:
        """Visits of each row among the first so many of the common order, int64 [rows]."""
        return self._visits(first, 0)[2]

    def _visits(self, first: int, count: int) -> tuple[Ints, Ints, Ints]:
        """Row, and number of the row's visit, of a stretch of the common order; each row's visits before it.

        Visit g of a row stands at time (g + phase) / rate; the common order is by time, then row.
        """
        rows = len(self.rates)
        # at time T, row r has had round(rate T + a half at most) visits: `rows` is a safe margin
        moment = max(0.0, self._time(first - rows - 1))
        begin = np.clip(np.floor(self.rates * moment - self.phases).astype(np.int64), 0, self.limits)
        # all visits before `moment` are counted by `begin`, all others are candidates
        while (early := ((begin + self.phases) / self.rates < moment) & (begin < self.limits)).any():
            begin = begin + early
        end = np.ceil(self.rates * self._time(first + count + rows + 1)).astype(np.int64) + 1
        end = np.minimum(end, self.limits)
        # one entry for each candidate: a row's visits from `begin` to `end`, all rows one after the other
        sizes = np.maximum(end - begin, 0)
        row = np.repeat(np.arange(rows), sizes)
        visit = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(begin, sizes)
        time = (visit + self.phases[row]) / self.rates[row]
        order = np.lexsort((row, time))
        # the visits before `moment` were left out, and stand before all candidates
        skip = first - int(begin.sum())
        chosen = order[skip : skip + count]
        return row[chosen], visit[chosen], begin + np.bincount(row[order[:skip]], minlength=rows)

    def check(self, visits: int) -> None:
        """Raise ConfigError where the order ends before so many visits."""
        if self.num_visits is not None and visits > self.num_visits:
            raise ConfigError(
                f"data: max_visits of the mixture's rows allow {self.num_visits:,} visits, {visits:,} are "
                "wanted; lower train.steps, or leave one row without a limit"
            )

    def _time(self, visits: float) -> float:
        """When about so many visits have been, all rows together."""
        time, done, rate = 0.0, 0.0, float(self.rates.sum())
        for end, left in self._spent:
            reached = done + rate * (end - time)
            if visits <= reached:
                break
            time, done, rate = end, reached, left
        # a row's last visit is before it is spent, so that nothing comes after the last of them
        return time + (visits - done) / rate if rate else time

    def _samples(self, row: int, rounds: Ints, places: Ints) -> Ints:
        """Numbers within the row of the samples at `places` of its passes `rounds`."""
        result = np.empty(len(places), np.int64)
        for turn in np.unique(rounds).tolist():
            _, ends = self._shards(row, turn)
            here = rounds == turn
            part = np.searchsorted(ends, places[here], side="right")
            where = np.flatnonzero(here)
            for p in np.unique(part).tolist():
                chosen = where[part == p]
                result[chosen] = self._part_samples(row, turn, p, places[chosen] - (ends[p - 1] if p else 0))
        return result

    def _shard_order(self, row: int, turn: int) -> tuple[Ints, Ints]:
        """The shards of a pass, and where each group of `open_shards` of them ends."""
        order = np.random.default_rng([self.seed, 1, row, turn]).permutation(len(self.sizes[row]))
        ends = np.cumsum(self.sizes[row][order])
        last = np.arange(self.open_shards - 1, len(order) + self.open_shards - 1, self.open_shards)
        return order, ends[np.minimum(last, len(order) - 1)]

    def _part_samples(self, row: int, turn: int, part: int, places: Ints) -> Ints:
        """The samples at some places of one group of shards."""
        order, _ = self._shards(row, turn)
        sizes = self.sizes[row]
        chosen = order[part * self.open_shards : (part + 1) * self.open_shards]
        inside = self._part(row, turn, part)[places].astype(np.int64)
        ends = np.cumsum(sizes[chosen])
        shard = np.searchsorted(ends, inside, side="right")
        starts = np.cumsum(sizes) - sizes
        return starts[chosen[shard]] + inside - (ends - sizes[chosen])[shard]

    def _shuffled(self, row: int, turn: int, part: int) -> NDArray[np.uint16 | np.uint32 | np.uint64]:
        """The order of a pass in one group of shards, as numbers within the group; kept by every process."""
        order, _ = self._shards(row, turn)
        count = int(self.sizes[row][order[part * self.open_shards : (part + 1) * self.open_shards]].sum())
        smallest = np.min_scalar_type(max(count - 1, 256))
        return np.random.default_rng([self.seed, 2, row, turn, part]).permutation(count).astype(smallest)

    def row_of(self, index: int) -> int:
        """The row of a sample."""
        return int(np.searchsorted(self.offsets, index, side="right")) - 1


def synthetic_lengths(mixture: Mixture, most: int, seed: int) -> tuple[MixtureSampler, Ints]:
    """An order and lengths for a mixture without shards, from its rows' counts and `tokens`.

    Args:
        most: counts are scaled down together so that their sum is about this.

    Raises:
        ConfigError: a row says nothing of its count or its lengths.
    """
    for name, row in mixture.rows.items():
        if not row.count or not row.tokens:
            raise ConfigError(
                f"mixture row {name}: a plan reads no shards, so the row needs its count and tokens, "
                "such as [{frame: [40, 50], frames: [3, 3], copies: 2}]"
            )
    scale = min(1.0, most / sum(row.count for row in mixture.rows.values()))
    counts = [max(1, round(row.count * scale)) for row in mixture.rows.values()]
    order = MixtureSampler([[n] for n in counts], [row.ratio for row in mixture.rows.values()], seed)
    random, lengths = np.random.default_rng([seed, 3]), []
    for count, row in zip(counts, mixture.rows.values(), strict=True):
        lengths.append(draw_lengths(row.tokens, count, random))
    return order, np.concatenate(lengths)


def shares(rows: Mapping[str, DatasetConfig]) -> dict[str, float]:
    """Each row's part of all visits, by the published counts."""
    total = sum(row.count * row.ratio for row in rows.values())
    return {name: row.count * row.ratio / total for name, row in rows.items()}
