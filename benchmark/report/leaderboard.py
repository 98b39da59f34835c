"""A leaderboard over many submissions: a static site, one page per suite.

Every page is one file. Its Content-Security-Policy allows its own style and script by their hashes and
nothing else, so that it can be served from anywhere and opened from a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.analysis.published_rows import published_suites, spreads
from benchmark.analysis.submission import MetricEntry, Submission
from benchmark.core.item import SOURCE
from benchmark.report.templating import environment, joined, policy_hash
from benchmark.statistics.groups import Ranking, all_pairs
from benchmark.statistics.intervals import Mean, choose_clusters, mean_interval
from shards.files import write_bytes

FLOOR = "Copy the source"


def write_site(out: Path, submissions: Sequence[Submission], refused: Sequence[str] = ()) -> list[Path]:
    """Write `index.html` and a page per suite, and per list of items where submissions have different ones.

    Args:
        out: folder of the site; files there of the same names are replaced.
        submissions: that have been checked.
        refused: what was wrong with others, one line each; shown on the index.

    Returns:
        The files written, the index first.
    """
    boards: dict[tuple[str, int, str], list[Submission]] = {}
    for one in submissions:
        suite = one.manifest.suite
        boards.setdefault((suite.name, suite.version, suite.sha256), []).append(one)
    alike = Counter(name for name, *_ in boards)
    pages, links = [], []
    for (name, version, sha256), some in sorted(boards.items()):
        file = f"{name}.html" if alike[name] == 1 else f"{name}-{sha256[:8]}.html"
        board = board_of(some)
        title = f"{name}, version {version}"
        pages.append((file, "leaderboard.html.j2", {"title": title, "sha256": sha256, **board}))
        links.append({"file": file, "title": title, "rows": len(some), "items": board["items"]})
    index = ("index.html", "leaderboard_index.html.j2", {"links": links, "refused": refused})
    written = []
    for file, template, values in (index, *pages):
        write_bytes(out / file, _render(template, values).encode())
        written.append(out / file)
    return written


def board_of(submissions: Sequence[Submission]) -> dict[str, Any]:
    """What the page of one suite shows: columns, rows, published values.

    A metric's column is of the settings that most submissions have; scores by others are left out and said.
    """
    labels = _labels(submissions)
    ids = sorted({id for one in submissions for id in one.items})
    first = {id: next(one.items[id] for one in submissions if id in one.items) for id in ids}
    clip, pair = [first[id].clip for id in ids], [first[id].pair for id in ids]
    by, clusters = choose_clusters(clip, pair)
    columns: list[dict[str, Any]] = []
    cells: dict[str, list[dict[str, Any]]] = {label: [] for label in [*labels, FLOOR]}
    for name in dict.fromkeys(metric for one in submissions for metric in one.metrics):
        having = [one for one in submissions if name in one.metrics]
        common = Counter(one.metrics[name].identity() for one in having).most_common(1)[0][0]
        metric = next(o.metrics[name] for o in having if o.metrics[name].identity() == common)
        scores: dict[str, list[float | None]] = {}
        others = set()
        for label, one in zip(labels, submissions, strict=True):
            if name not in one.metrics or one.metrics[name].identity() != common:
                others |= {label} if name in one.metrics else set()
                continue
            scores[label] = _column(one, one.manifest.row, name, ids)
            if FLOOR not in scores and any(v is not None for v in _column(one, SOURCE, name, ids)):
                scores[FLOOR] = _column(one, SOURCE, name, ids)
        ranking = all_pairs(
            scores, clusters, higher_is_better=metric.higher_is_better, bounds=metric.bounds, resamples=1000
        )
        arrow = "↑" if metric.higher_is_better else "↓"
        columns.append(
            {"name": name, "unit": f"{metric.unit} {arrow}".strip(), "down": not metric.higher_is_better}
        )
        for label in cells:
            mean = mean_interval(scores[label], clusters, bounds=metric.bounds) if label in scores else None
            cells[label].append(_cell(mean, metric, ranking, label, label in others))
    rows: list[dict[str, Any]] = [
        {"label": label, "card": _card(one), "cells": cells[label], "floor": False}
        for label, one in zip(labels, submissions, strict=True)
    ]
    if any(cell["sort"] for cell in cells[FLOOR]):
        rows.append({"label": FLOOR, "card": [], "cells": cells[FLOOR], "floor": True})
    rows.sort(key=lambda row: (row["cells"][0]["sort"] == "", _order(row, columns[0]["down"])))
    return {
        "items": len(ids),
        "clusters": len(set(clusters)),
        "clustered_by": by,
        "columns": columns,
        "rows": rows,
        "published": _published(submissions[0].manifest.suite.name),
    }


def _labels(submissions: Sequence[Submission]) -> list[str]:
    """Names of methods; of two that are equal, the later ones with the file that they came from."""
    labels: list[str] = []
    for one in submissions:
        name = one.manifest.card.name
        labels.append(name if name not in labels else f"{name} ({Path(one.place).name})")
    return labels


def _column(one: Submission, row: str, metric: str, ids: Sequence[str]) -> list[float | None]:
    scores = one.scores(row)
    return [scores[id].get(metric) if id in scores else None for id in ids]


def _cell(
    mean: Mean | None, metric: MetricEntry, ranking: Ranking, label: str, other: bool
) -> dict[str, Any]:
    if mean is None or mean.value is None:
        why = "scored with other settings" if other else ""
        return {"value": "-", "interval": why, "letters": "", "sort": "", "failed": 0}
    decimals = 3 if metric.bounds[1] <= 1 else 2
    ends = "n/a" if mean.low is None else f"[{mean.low:.{decimals}f}, {mean.high:.{decimals}f}]"
    return {
        "value": f"{mean.value:.{decimals}f}".replace("inf", "∞"),
        "interval": ends,
        "letters": ranking.letters.get(label, ""),
        "sort": repr(mean.value).replace("inf", "Infinity"),
        "failed": mean.failed,
    }


def _order(row: dict[str, Any], down: bool) -> float:
    value = float(row["cells"][0]["sort"] or 0.0)
    return value if down else -value


def _card(one: Submission) -> list[tuple[str, str]]:
    facts = [
        (k.replace("_", " "), str(v)) for k, v in one.manifest.card.model_dump().items() if v and k != "name"
    ]
    facts += [(k, v) for k, v in one.manifest.made.items()]
    return [*facts, ("hashed results", str(len(one.manifest.results)))]


def _published(suite: str) -> dict[str, Any] | None:
    known = published_suites().get(suite)
    if known is None:
        return None
    rows = []
    for spread in spreads(suite):
        values = dict(spread.values)
        rows.append(
            {
                "model": spread.model,
                "cells": [f"{values[n]:.2f}" if n in values else "" for n in range(len(known.reports))],
                "spread": f"{spread.high - spread.low:.2f}" if len(values) > 1 else "",
            }
        )
    return {"what": known.columns[known.headline], "reports": known.reports, "rows": rows}


def _render(template: str, values: dict[str, Any]) -> str:
    style, script = joined("page.css", "leaderboard.css"), joined("leaderboard.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{policy_hash(style)}'; "
        f"script-src '{policy_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    return environment().get_template(template).render(style=style, script=script, policy=policy, **values)
