"""Two systems on the same items, all pairs of several, and metrics against each other: from files of runs.

`python -m benchmark compare a b`, `rank` and `power` read the `items.json` of runs, and the ranges of metrics
from the `summary.json` beside it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from benchmark.core.item import SOURCE, TARGET, BenchmarkError
from benchmark.core.score_cache import number_in
from benchmark.statistics.correlation import Correlation, correlation
from benchmark.statistics.groups import Ranking, all_pairs
from benchmark.statistics.intervals import Bounds, choose_clusters
from benchmark.statistics.paired import difference
from benchmark.statistics.power import Power, power
from shards.errors import EditVerseError
from shards.limits import read_json

Items = dict[str, dict[str, Any]]
Number = Annotated[Any, AfterValidator(number_in)]


class ItemEntry(BaseModel):
    """One item of `items.json`; what else it holds is kept as it is."""

    model_config = ConfigDict(extra="allow")

    id: str
    clip: str
    pair: str
    scores: dict[str, dict[str, Number]]


class ItemsFile(BaseModel):
    """`items.json`, as far as it is compared."""

    items: list[ItemEntry]


def read_items(folder: Path) -> Items:
    """A run's items by id, as `items.json` has them; BenchmarkError says what is wrong with the file."""
    path = folder / "items.json"
    try:
        listed = ItemsFile.model_validate(read_json(path)).items
    except FileNotFoundError:
        raise BenchmarkError(f"{path}: not found; `python -m benchmark run` writes it") from None
    except (OSError, EditVerseError, ValidationError) as error:
        raise BenchmarkError(
            f"{path}: damaged ({_reason(error)}); run the benchmark again into this folder"
        ) from None
    return {item.id: item.model_dump() for item in listed}


@dataclass(frozen=True)
class MetricFacts:
    """What `summary.json` says of a metric; without the file nothing is known of the range."""

    higher_is_better: bool = True
    range: Bounds | None = None


class _Metric(BaseModel):
    model_config = ConfigDict(extra="ignore")

    higher_is_better: bool
    range: tuple[Number, Number] | None = None


class _Summary(BaseModel):
    model_config = ConfigDict(extra="ignore")

    metrics: dict[str, _Metric]


def read_metric_facts(folder: Path) -> dict[str, MetricFacts]:
    """Direction and range of a run's metrics by name; none where the folder has no `summary.json`."""
    path = folder / "summary.json"
    if not path.is_file():
        return {}
    try:
        read = _Summary.model_validate(read_json(path))
    except (OSError, EditVerseError, ValidationError) as error:
        raise BenchmarkError(
            f"{path}: damaged ({_reason(error)}); run the benchmark again into this folder"
        ) from None
    return {
        name: MetricFacts(
            of.higher_is_better, None if of.range is None or None in of.range else (of.range[0], of.range[1])
        )
        for name, of in read.metrics.items()
    }


def compare(
    first: Items,
    second: Items,
    row: str = "model",
    second_row: str | None = None,
    facts: Mapping[str, MetricFacts] | None = None,
) -> dict[str, Any]:
    """Differences by metric between a row of a run and a row of another, or of the same run.

    `second_row` is of `second`, and called as `row` if it is not given. `facts` tell the ranges of metrics,
    which bound intervals.

    Raises BenchmarkError when the runs are not over the same items, or have no such row.
    """
    _same_items((first, second))
    rows = row, second_row or row
    for items, name in zip((first, second), rows, strict=True):
        _need_row(items, name)
    ids = sorted(first)
    by, clusters = choose_clusters([first[i]["clip"] for i in ids], [first[i]["pair"] for i in ids])
    known = (
        [of[ids[0]]["scores"][name] for of, name in zip((first, second), rows, strict=True)] if ids else []
    )
    metrics = [m for m in known[0] if m in known[1]] if known else []

    def scores(items: Items, name: str, metric: str) -> list[float | None]:
        return [number_in(items[i]["scores"][name].get(metric)) for i in ids]

    found = {
        m: difference(
            scores(first, rows[0], m),
            scores(second, rows[1], m),
            clusters,
            bounds=_facts_of(m, facts).range,
        )
        for m in metrics
    }
    return {
        "row": row,
        "second_row": rows[1],
        "clustered_by": by,
        "items": len(ids),
        "metrics": {m: asdict(d) for m, d in found.items()},
    }


def rank(
    runs: Mapping[str, Items],
    rows: Sequence[str] = (),
    metrics: Sequence[str] = (),
    facts: Mapping[str, MetricFacts] | None = None,
) -> dict[str, Ranking]:
    """All pairs of the rows of one run or of several over the same items, by metric.

    Args:
        runs: items by the name of their run. With several, a row is called by its run, or `run: row` where
            the run has more than one; the copied source and the target count once, the first run's.
        rows: only these, as the runs call them; all but the target if none is given.
        metrics: only these; all that every row has if none is given.
        facts: directions and ranges of metrics.

    Raises:
        BenchmarkError: the runs are not over the same items; a row or metric is in none; fewer than two rows.
    """
    _same_items(list(runs.values()))
    for name in rows:
        if not any(name in _rows(items) for items in runs.values()):
            known = sorted({row for items in runs.values() for row in _rows(items)})
            raise BenchmarkError(f"--rows {name}: the runs have {', '.join(known)}")
    named: dict[str, tuple[Items, str]] = {}
    for run, items in runs.items():
        here = [row for row in _rows(items) if (row in rows if rows else row != TARGET)]
        own = [row for row in here if row not in (SOURCE, TARGET)]
        for row in here:
            if len(runs) == 1 or row not in own:
                named.setdefault(row, (items, row))
            else:
                named[run if len(own) == 1 else f"{run}: {row}"] = (items, row)
    if len(named) < 2:
        raise BenchmarkError(f"two rows or more are ranked; there is {', '.join(named) or 'none'}")
    first = next(iter(runs.values()))
    ids = sorted(first)
    _, clusters = choose_clusters([first[i]["clip"] for i in ids], [first[i]["pair"] for i in ids])
    shared = [
        m for m in _metrics(*next(iter(named.values()))) if all(m in _metrics(*n) for n in named.values())
    ]
    for name in metrics:
        if name not in shared:
            raise BenchmarkError(f"--metrics {name}: all rows have {', '.join(shared)}")
    found = {}
    for metric in metrics or shared:
        scores = {
            name: [_finite(items[i]["scores"].get(row, {}).get(metric)) for i in ids]
            for name, (items, row) in named.items()
        }
        about = _facts_of(metric, facts)
        found[metric] = all_pairs(
            scores, clusters, higher_is_better=about.higher_is_better, bounds=about.range
        )
    return found


def powers(
    first: Items,
    second: Items,
    row: str,
    second_row: str,
    wanted: Mapping[str, float],
    chance: float = 0.8,
    comparisons: int = 1,
) -> dict[str, Power]:
    """How many items tell two rows apart by each metric that `wanted` names a difference for.

    Args:
        first, second: items of the two rows' runs.
        row, second_row: the two rows.
        wanted: the difference to be seen, by metric.
        chance: to see it.
        comparisons: that are made at once; the size of each test is 0.05 over their number.

    Raises BenchmarkError for other items, an unknown row or metric, or scores that do not vary.
    """
    _same_items((first, second))
    _need_row(first, row)
    _need_row(second, second_row)
    ids = sorted(first)
    _, clusters = choose_clusters([first[i]["clip"] for i in ids], [first[i]["pair"] for i in ids])
    found = {}
    for metric, gap in wanted.items():
        known = [m for m in _metrics(first, row) if m in _metrics(second, second_row)]
        if metric not in known:
            raise BenchmarkError(f"--difference {metric}: the rows have {', '.join(known)}")
        scores = [
            (first[i]["scores"][row].get(metric), second[i]["scores"][second_row].get(metric)) for i in ids
        ]
        pairs = [(_finite(a), _finite(b)) for a, b in scores]
        gaps = [None if a is None or b is None else b - a for a, b in pairs]
        of = power(gaps, clusters, gap, alpha=0.05 / comparisons, wanted=chance)
        if of is None:
            raise BenchmarkError(f"{metric}: the differences of {row} and {second_row} do not vary")
        found[metric] = of
    return found


def correlations(items: Items, row: str = "model") -> dict[tuple[str, str], Correlation]:
    """Of all pairs of metrics in a row of a run."""
    having = [item for item in items.values() if row in item["scores"]]
    listed = [item["scores"][row] for item in having]
    _, clusters = choose_clusters([item["clip"] for item in having], [item["pair"] for item in having])
    names = list(dict.fromkeys(name for scores in listed for name in scores))
    values: Mapping[str, list[float | None]] = {
        name: [number_in(scores.get(name)) for scores in listed] for name in names
    }
    return {(a, b): correlation(values[a], values[b], clusters) for a, b in itertools.combinations(names, 2)}


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))[:80]}: {first['msg'][:200]}"
    return str(error)


def _same_items(runs: Sequence[Items]) -> None:
    for other in runs[1:]:
        if runs[0].keys() != other.keys():
            odd = sorted(runs[0].keys() ^ other.keys())
            raise BenchmarkError(
                f"the runs are not of the same items: {odd[0]} and {len(odd) - 1} more are in one alone"
            )


def _need_row(items: Items, name: str) -> None:
    for item in items.values():
        if name not in item["scores"]:
            raise BenchmarkError(f"--row {name}: {item['id']} has {', '.join(item['scores'])}")


def _rows(items: Items) -> list[str]:
    return list(dict.fromkeys(row for item in items.values() for row in item["scores"]))


def _metrics(items: Items, row: str) -> list[str]:
    return list(dict.fromkeys(m for item in items.values() for m in item["scores"].get(row, {})))


def _facts_of(metric: str, facts: Mapping[str, MetricFacts] | None) -> MetricFacts:
    return (facts or {}).get(metric, MetricFacts())


def _finite(value: Any) -> float | None:
    number = number_in(value)
    return number if number is not None and math.isfinite(number) else None
