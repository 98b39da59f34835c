"""What became of a run: each item's scores, and their means by group, for tables, pages and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.fingerprint import fingerprint
from benchmark.core.item import MODEL, MODEL_RAW, SOURCE, TARGET, Geometry, Item, Mode, Unscored, Worded
from benchmark.core.order import natural
from benchmark.core.score_cache import Score, number_out
from benchmark.metrics import Metric
from benchmark.statistics.intervals import Mean, choose_clusters, mean_interval
from benchmark.suites import Aggregate, AnySuite, aggregates
from benchmark.systems.edit_cache import EditSettings

ROW_LABELS = {
    SOURCE: "Copy the source",
    MODEL: "Model",
    MODEL_RAW: "Model without carry-over",
    TARGET: "Curated target",
}
COMMON = "items scored in every row"
_NONE = Unscored("not scored")
ROW_NOTES = {SOURCE: "floor", TARGET: "ceiling"}


def label_of(row: str) -> str:
    """How tables call a row; a folder of results is called as the caller calls it."""
    return ROW_LABELS.get(row, row)


@dataclass(frozen=True)
class RunConfig:
    """What decides a run's scores; kept as `config.json` in the output folder, which serves no other.

    Attributes:
        data: the suite's data.
        results: folders of finished results by the name of their row.
        metrics: YAML file of metrics; the suite's own choice when None.
        add_metrics: YAML file of metrics beside those.
        mode: see docs/benchmark.md.
        device: of the metrics' networks.
    """

    suite: str
    data: str
    checkpoint: str | None
    edit: EditSettings = field(default_factory=EditSettings)
    limit: int | None = None
    results: dict[str, str] = field(default_factory=dict)
    metrics: str | None = None
    mode: Mode = "corrected"
    device: str = "cpu"
    add_metrics: str | None = None


@dataclass
class Outcome:
    """What became of one item.

    Attributes:
        scores: of each row, by metric.
        geometries: of each row that could be scored.
        notes: by row, in what a result differs from its source.
        seconds: that the editor took.
        videos: by row, what the page shows.
        sources: by row, the source beside the result, where the result is compared with that.
    """

    item: Item
    scores: dict[str, dict[str, Score]]
    geometries: dict[str, Geometry] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    seconds: float | None = None
    videos: dict[str, Path] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)

    def numbers(self, row: str) -> dict[str, float | None]:
        """A row's scores by metric, None for one that is missing."""
        return {m: None if isinstance(s, Unscored) else float(s) for m, s in self.scores[row].items()}

    @property
    def geometry(self) -> Geometry | None:
        """Of the first row that could be scored."""
        return next(iter(self.geometries.values()), None)


@dataclass
class Run:
    """A finished run, for the table, `summary.json` and the page."""

    config: RunConfig
    suite: AnySuite
    metrics: list[Metric]
    outcomes: list[Outcome]
    rows: list[str]
    checkpoint_sha256: str | None
    counts: dict[str, int]
    remarks: list[str] = field(default_factory=list)
    stopped: BaseException | None = None  # what ended it before its last item
    unlike_published: list[str] = field(default_factory=list)  # of the official mode, see docs/benchmark.md
    _means: dict[tuple[str, str, tuple[int, ...]], Mean] = field(default_factory=dict, repr=False)

    @cached_property
    def clusters(self) -> tuple[str, list[str]]:
        """What intervals are clustered by, and each outcome's cluster."""
        items = [o.item for o in self.outcomes]
        return choose_clusters([i.clip for i in items], [i.pair for i in items])

    def groups(self) -> list[tuple[str, list[int]]]:
        """("all", every outcome), then one per task, task's category and facet where there are several.

        Where rows were scored on different items, `COMMON` comes second: the items on which they were not.
        """
        groups = [("all", list(range(len(self.outcomes))))]
        if self.uneven:
            odd = {n for of in self.uneven.values() for n in of}
            groups.append((COMMON, [n for n in groups[0][1] if n not in odd]))
        keys: list[Callable[[Item], str]] = [lambda i: i.task, lambda i: f"{i.task}, {i.category}"]
        facets = sorted({name for o in self.outcomes for name in o.item.facets})
        keys += [lambda i, f=f: f"{f}: {i.facets.get(f, 'unknown')}" for f in facets]  # type: ignore[misc]
        for key in keys:
            names = sorted({key(o.item) for o in self.outcomes}, key=natural)
            known = [set(members) for _, members in groups]
            for name in names:
                members = [n for n, o in enumerate(self.outcomes) if key(o.item) == name]
                if set(members) not in known:
                    groups.append((name, members))
        return groups

    @cached_property
    def uneven(self) -> dict[str, list[int]]:
        """By metric, the outcomes on which some rows have a score and others do not.

        A row without any score by a metric does not count, nor does an outcome that no row has a score on.
        """
        found: dict[str, list[int]] = {}
        for metric in self.metrics:
            scored = {
                row: {
                    n
                    for n, o in enumerate(self.outcomes)
                    if not isinstance(o.scores.get(row, {}).get(metric.name, _NONE), Unscored)
                }
                for row in self.rows
            }
            live = [of for of in scored.values() if of]
            odd = set().union(*live) - set(live[0]).intersection(*live) if live else set()
            if odd:
                found[metric.name] = sorted(odd)
        return found

    @property
    def all_remarks(self) -> list[str]:
        """The suite's, the run's, and where rows were scored on different items, that they were."""
        return [*self.suite.remarks, *self.remarks, *self._uneven_remarks()]

    def _uneven_remarks(self) -> list[str]:
        if not self.uneven:
            return []
        members = dict(self.groups())[COMMON]
        parts = []
        for metric in self.metrics:
            if metric.name in self.uneven:
                every = list(range(len(self.outcomes)))
                counts = [f"{label_of(r)} {self.mean(r, metric, every).scored}" for r in self.rows]
                parts.append(f"{metric.label} ({', '.join(counts)})")
        return [
            "rows were scored on different items, so that means over all do not compare: "
            f"{'; '.join(parts)}; the {len(members)} items on which they were not are the group '{COMMON}'"
        ]

    def mean(self, row: str, metric: Metric, members: list[int]) -> Mean:
        """A cell of the table; computed once, since terminal, page and summary all show it."""
        key = (row, metric.name, tuple(members))
        if key not in self._means:
            scores = [self.outcomes[n].scores[row][metric.name] for n in members]
            labels = [self.clusters[1][n] for n in members]
            self._means[key] = mean_interval(
                [None if isinstance(s, Unscored) else s for s in scores], labels, bounds=metric.range
            )
        return self._means[key]

    def aggregates(self) -> dict[str, list[Aggregate]]:
        """By row, what the suite itself makes of the scores; rows are missing where it makes nothing."""
        made = {}
        for row in self.rows:
            scores = {o.item.id: o.numbers(row) for o in self.outcomes}
            if found := aggregates(self.suite, scores):
                made[row] = found
        return made

    def failures(self) -> list[tuple[str, str, str, str]]:
        """(item, row, metric, reason) of every score that is missing; a row that fails whole is one line."""
        found = []
        for outcome in self.outcomes:
            for row in self.rows:
                reasons = {m: s.reason for m, s in outcome.scores[row].items() if isinstance(s, Unscored)}
                if len(reasons) == len(self.metrics) and len(set(reasons.values())) == 1:
                    found.append((outcome.item.id, row, "all", next(iter(reasons.values()))))
                else:
                    found += [(outcome.item.id, row, m, reason) for m, reason in reasons.items()]
        return found

    def summary(self) -> dict[str, Any]:
        """Everything that the table and the page show, as JSON values."""
        table = {
            group: {
                row: {m.name: _mean_out(self.mean(row, m, members)) for m in self.metrics}
                for row in self.rows
            }
            for group, members in self.groups()
        }
        return {
            "config": asdict(self.config),
            "suite": {"name": self.suite.name, "version": self.suite.version, "sha256": self.suite.sha256},
            "checkpoint_sha256": self.checkpoint_sha256,
            "items": len(self.outcomes),
            "clustered_by": self.clusters[0],
            "metrics": {
                m.name: {
                    "version": m.version,
                    "higher_is_better": m.higher_is_better,
                    "unit": m.unit,
                    "range": [number_out(v) for v in m.range],
                    "settings": fingerprint(m),
                }
                for m in self.metrics
            },
            "table": table,
            "aggregates": {
                row: [a._asdict() | {"value": number_out(a.value)} for a in made]
                for row, made in self.aggregates().items()
            },
            "failures": [
                dict(zip(("item", "row", "metric", "reason"), f, strict=True)) for f in self.failures()
            ],
            "differences": [
                {"item": o.item.id, "row": row, "note": note}
                for o in self.outcomes
                for row, notes in o.notes.items()
                for note in notes
            ],
            "remarks": self.all_remarks,
            "unlike_published": self.unlike_published,
            "usage": self.usage(),
            "failed_by_kind": self.failed_by_kind(),
            "judges": self.judges(),
            "stopped": str(self.stopped) or type(self.stopped).__name__ if self.stopped else None,
            "seconds_per_edit": self.seconds_per_edit(),
        }

    def items_out(self) -> dict[str, Any]:
        """Every item and its scores as JSON values: null for one that is missing, "inf" for infinity."""
        listed = []
        for outcome in self.outcomes:
            item = outcome.item
            scores = {
                row: {m: None if isinstance(s, Unscored) else number_out(s) for m, s in of.items()}
                for row, of in outcome.scores.items()
            }
            about = {n: getattr(item, n) for n in ("id", "task", "category", "clip", "pair")}
            words = {
                row: {m: s.words for m, s in of.items() if isinstance(s, Worded)}
                for row, of in outcome.scores.items()
            }
            told: dict[str, Any] = {"words": words} if any(words.values()) else {}
            repeats = {
                row: {m: list(s.repeats) for m, s in of.items() if isinstance(s, Worded) and s.repeats}
                for row, of in outcome.scores.items()
            }
            told |= {"repeats": repeats} if any(repeats.values()) else {}
            listed.append({**about, "facets": dict(item.facets), "scores": scores, **told})
        return {"suite": self.suite.name, "version": self.suite.version, "items": listed}

    def failed_by_kind(self) -> dict[str, int]:
        """How many scores are missing by failures that the next run asks again, by kind; see `Unscored`."""
        every = [s for o in self.outcomes for of in o.scores.values() for s in of.values()]
        counted = Counter(s.kind or "other" for s in every if isinstance(s, Unscored) and s.retry)
        return dict(sorted(counted.items()))

    def judges(self) -> dict[str, dict[str, dict[str, float]]]:
        """By row and metric that asked several times: a judge's own variance, within an item, and its root.

        The variance is the mean over items of the sample variance of the repeats; `items` are those.
        """
        found: dict[str, dict[str, dict[str, float]]] = {}
        for row in self.rows:
            for metric in self.metrics:
                scores = [o.scores[row][metric.name] for o in self.outcomes]
                values = [s.repeats for s in scores if isinstance(s, Worded) and len(s.repeats) > 1]
                if values:
                    own = float(np.mean([np.var(v, ddof=1) for v in values]))
                    told = {"variance": own, "deviation": own**0.5, "items": len(values)}
                    found.setdefault(row, {})[metric.name] = told | {"repeats": len(values[0])}
        return found

    def usage(self) -> dict[str, int]:
        """What asking for all scores took, when they were asked for: requests and tokens."""
        every = [s for o in self.outcomes for of in o.scores.values() for s in of.values()]
        counted = sum((Counter(s.usage) for s in every if isinstance(s, Unscored | Worded)), Counter())
        return dict(sorted(counted.items()))

    def seconds_per_edit(self) -> float | None:
        """Mean seconds that the model took for one item when it was edited."""
        seconds = [o.seconds for o in self.outcomes if o.seconds is not None]
        return float(np.mean(seconds)) if seconds else None


def _mean_out(mean: Mean) -> dict[str, Any]:
    return asdict(mean) | {"value": number_out(mean.value)}
