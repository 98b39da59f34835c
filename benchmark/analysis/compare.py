"""Two systems on the same items: differences with intervals and p-values; and metrics against each other.

`python -m benchmark compare a b` reads the `items.json` of two runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from benchmark.core.item import BenchmarkError
from benchmark.core.score_cache import number_in
from benchmark.statistics.intervals import Mean, choose_clusters, mean_interval
from shards.errors import EditVerseError
from shards.limits import read_json

EXACT = 14  # clusters up to which all sign patterns are gone through
DRAWS = 20_000


@dataclass(frozen=True)
class Difference:
    """The second system less the first, over items that both have a score for.

    Attributes:
        first, second: their means over these items.
        mean: of the differences, with its clustered interval; `failed` counts items without a pair of scores.
        p: chance of a mean difference as large if no system were better (two-sided, signs of whole clusters
            flipped); None with fewer than two clusters.
        effect: mean over standard deviation of the clusters' differences; None where that is zero.
    """

    first: float | None
    second: float | None
    mean: Mean
    p: float | None
    effect: float | None


@dataclass(frozen=True)
class Correlation:
    """Two metrics over n items: Pearson with a 95 % interval, Spearman, Kendall; None if undefined."""

    n: int
    pearson: float | None
    low: float | None
    high: float | None
    spearman: float | None
    kendall: float | None


def difference(
    first: Sequence[float | None], second: Sequence[float | None], clusters: Sequence[str], seed: int = 0
) -> Difference:
    """Compare two systems' scores of the same items; None stands for a score that is missing."""
    gaps: list[float | None] = [
        None if a is None or b is None or not math.isfinite(a - b) else b - a
        for a, b in zip(first, second, strict=True)
    ]
    mean = mean_interval(gaps, clusters, seed=seed)
    kept = [n for n, gap in enumerate(gaps) if gap is not None]
    if not kept:
        return Difference(None, None, mean, None, None)
    ours, theirs = (float(np.mean([scores[n] for n in kept])) for scores in (first, second))
    _, group = np.unique([clusters[n] for n in kept], return_inverse=True)
    values = np.array([gaps[n] for n in kept], dtype=np.float64)
    sums, sizes = np.bincount(group, values), np.bincount(group)
    if len(sums) < 2:
        return Difference(ours, theirs, mean, None, None)
    spread = float((sums / sizes).std(ddof=1))
    effect = float((sums / sizes).mean()) / spread if spread > 0 else None
    return Difference(ours, theirs, mean, sign_flip_p(sums, seed), effect)


def sign_flip_p(sums: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of a sum of independent parts that are as likely positive as negative.

    All sign patterns for few parts, else `DRAWS` of them and the observed one.
    """
    observed = abs(float(sums.sum()))
    close = observed * (1 - 1e-12)  # the observed pattern itself must count, whatever the order of a sum
    if len(sums) <= EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(sums))))
        return float((np.abs(signs @ sums) >= close).mean())
    random = np.random.default_rng([seed, len(sums)])
    signs = random.integers(0, 2, (DRAWS, len(sums))) * 2.0 - 1
    return float((1 + (np.abs(signs @ sums) >= close).sum()) / (1 + DRAWS))


def correlation(a: Sequence[float | None], b: Sequence[float | None]) -> Correlation:
    """How two metrics go together over the items for which both are finite."""
    from scipy import stats

    pairs = [
        (x, y)
        for x, y in zip(a, b, strict=True)
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]
    n = len(pairs)
    if n < 3 or len({x for x, _ in pairs}) < 2 or len({y for _, y in pairs}) < 2:
        return Correlation(n, None, None, None, None, None)
    x, y = (np.array(values) for values in zip(*pairs, strict=True))
    pearson = stats.pearsonr(x, y)
    low, high = pearson.confidence_interval(0.95) if n > 3 else (None, None)
    return Correlation(
        n,
        float(pearson.statistic),
        None if low is None else float(low),
        None if high is None else float(high),
        float(stats.spearmanr(x, y).statistic),
        float(stats.kendalltau(x, y).statistic),
    )


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
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))[:80]}: {first['msg'][:200]}"
        raise BenchmarkError(
            f"{path}: damaged ({reason}); run the benchmark again into this folder"
        ) from None
    return {item.id: item.model_dump() for item in listed}


def compare(first: Items, second: Items, row: str = "model", second_row: str | None = None) -> dict[str, Any]:
    """Differences by metric between a row of a run and a row of another, or of the same run.

    `second_row` is of `second`, and called as `row` if it is not given.

    Raises BenchmarkError when the runs are not over the same items, or have no such row.
    """
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise BenchmarkError(
            f"the runs are not of the same items: {odd[0]} and {len(odd) - 1} more are in one alone"
        )
    rows = row, second_row or row
    for items, name in zip((first, second), rows, strict=True):
        for item in items.values():
            if name not in item["scores"]:
                raise BenchmarkError(f"--row {name}: {item['id']} has {', '.join(item['scores'])}")
    ids = sorted(first)
    by, clusters = choose_clusters([first[i]["clip"] for i in ids], [first[i]["pair"] for i in ids])
    known = (
        [of[ids[0]]["scores"][name] for of, name in zip((first, second), rows, strict=True)] if ids else []
    )
    metrics = [m for m in known[0] if m in known[1]] if known else []

    def scores(items: Items, name: str, metric: str) -> list[float | None]:
        return [number_in(items[i]["scores"][name].get(metric)) for i in ids]

    found = {m: difference(scores(first, rows[0], m), scores(second, rows[1], m), clusters) for m in metrics}
    return {
        "row": row,
        "second_row": rows[1],
        "clustered_by": by,
        "items": len(ids),
        "metrics": {m: asdict(d) for m, d in found.items()},
    }


def correlations(items: Items, row: str = "model") -> dict[tuple[str, str], Correlation]:
    """Of all pairs of metrics in a row of a run."""
    listed = [item["scores"][row] for item in items.values() if row in item["scores"]]
    names = list(dict.fromkeys(name for scores in listed for name in scores))
    values: Mapping[str, list[float | None]] = {
        name: [number_in(scores.get(name)) for scores in listed] for name in names
    }
    return {(a, b): correlation(values[a], values[b]) for a, b in itertools.combinations(names, 2)}
