"""What the gallery of the page shows: a card per item, and the scores as data for the page's script."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.item import MODEL, SOURCE, TARGET, Item, Unscored, Worded
from benchmark.core.posters import poster_of
from benchmark.core.score_cache import number_out
from benchmark.evaluation.results import Outcome, Run, label_of
from benchmark.metrics import Metric
from benchmark.report.tables import heading, number, unit_and_arrow

VIDEO_LABELS = {SOURCE: "Source", MODEL: "Model's edit", TARGET: "Curated target"}


def scored_row(run: Run) -> str:
    """The row that the gallery sorts by at first: the first system's, or the floor where there is none."""
    own = [row for row in run.rows if row not in (SOURCE, TARGET)]
    return own[0] if own else run.rows[0]


def category(item: Item) -> str:
    """What the gallery is filtered by beside the task: the finer group, or the orientation."""
    return item.category or item.facets.get("orientation", "")


def video_label(row: str) -> str:
    """What a row's video is called."""
    return VIDEO_LABELS.get(row, label_of(row))


def shown_rows(run: Run) -> list[str]:
    """The rows of the page's data: the source, whose video is shown even where it has no scores, and all."""
    return [*([] if SOURCE in run.rows else [SOURCE]), *run.rows]


def card(run: Run, place: int, root: Path | None) -> dict[str, Any]:
    """One item of the gallery as the template prints it.

    Args:
        place: of the item in the run.
        root: folder that posters are named relative to; None for a page that holds them.
    """
    outcome = run.outcomes[place]
    geometry = outcome.geometry
    assert geometry is not None  # a card has videos, and those have a size
    scores = []
    for metric in run.metrics:
        values = []
        for name in run.rows:
            score = outcome.scores[name][metric.name]
            missing = isinstance(score, Unscored)
            values.append(
                {
                    "text": "unscored" if isinstance(score, Unscored) else number(score, metric),
                    "why": score.reason if isinstance(score, Unscored) else "",
                    "missing": missing,
                }
            )
        scores.append({"label": metric.label, "unit": unit_and_arrow(metric), "values": values})
    rows = shown_rows(run)
    return {
        "place": place,
        "id": outcome.item.id,
        "task": outcome.item.task,
        "category": category(outcome.item),
        "text": outcome.item.text,
        "fps": geometry.fps,
        "frames": geometry.frames,
        "width": geometry.width,
        "height": geometry.height,
        "scores": scores,
        "columns": [label_of(name) for name in run.rows],
        "words": [
            (label_of(name), metric.label, score.words)
            for name in run.rows
            for metric in run.metrics
            if isinstance(score := outcome.scores[name][metric.name], Worded) and score.words
        ],
        "videos": [
            {"label": video_label(name), "row": rows.index(name), "poster": _poster(path, root)}
            for name, path in outcome.videos.items()
        ],
    }


def _poster(video: Path, root: Path | None) -> str:
    path = poster_of(video)
    if root is not None:
        return path.relative_to(root).as_posix()
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def blocks(run: Run, shown: Sequence[int]) -> Iterator[tuple[str, str]]:
    """(name, base64) of every video, for a page that holds them; the script finds them by name."""
    rows = shown_rows(run)
    for place in shown:
        for row, path in run.outcomes[place].videos.items():
            yield f"v{place}-{rows.index(row)}", base64.b64encode(path.read_bytes()).decode()


def page_data(run: Run, root: Path | None) -> dict[str, Any]:
    """Every item and its scores for the page's script: sorting, two rows side by side, the CSV.

    `scores` of an item are a list per row of `rows`, of a value per metric: null where it is missing, "inf"
    or "-inf" for infinity.
    """
    rows = shown_rows(run)
    judges = [m for m in run.metrics if getattr(m, "waits", False)]
    spreads = [disagreement(outcome, run.rows, judges) for outcome in run.outcomes]
    return {
        "suite": run.suite.name,
        "rows": [
            {
                "name": row,
                "label": video_label(row),
                "table": label_of(row),
                "scored": row in run.rows,
            }
            for row in rows
        ],
        "first": scored_row(run),
        "metrics": [
            {
                "name": m.name,
                "label": heading(m),
                "decimals": 3 if m.range[1] <= 1 else 2,
                "higher": m.higher_is_better,
            }
            for m in run.metrics
        ],
        "judged": any(spread is not None for spread in spreads),
        "items": [
            _item_data(run, outcome, rows, spread, root)
            for outcome, spread in zip(run.outcomes, spreads, strict=True)
        ],
    }


def _item_data(
    run: Run, outcome: Outcome, rows: Sequence[str], spread: float | None, root: Path | None
) -> dict[str, Any]:
    item, videos = outcome.item, {}
    for row, path in outcome.videos.items():
        videos[rows.index(row)] = "" if root is None else path.relative_to(root).as_posix()
    scores = [[_value(outcome.scores.get(row, {}).get(m.name)) for m in run.metrics] for row in rows]
    told = {"id": item.id, "task": item.task, "category": category(item), "scores": scores, "videos": videos}
    return told | ({} if spread is None else {"spread": spread})


def _value(score: float | Unscored | None) -> float | str | None:
    return None if score is None or isinstance(score, Unscored) else number_out(float(score))


def disagreement(outcome: Outcome, rows: Sequence[str], judges: Sequence[Metric]) -> float | None:
    """How much judges disagree about an item, from 0; None where there are no two opinions to compare.

    The standard deviation (of the population) of the judges' scores of a result, each as a share of its
    range and turned so that more is better; of repeats of one judge, the standard deviation of its answers,
    as a share of the range. The largest over results.
    """
    found = []
    for row in rows:
        shares = []
        for metric in judges:
            score = outcome.scores[row][metric.name]
            low, high = metric.range
            if isinstance(score, Unscored) or not math.isfinite(high - low) or not math.isfinite(score):
                continue
            share = (float(score) - low) / (high - low)
            shares.append(share if metric.higher_is_better else 1 - share)
            repeats = getattr(score, "repeats", ())
            if len(repeats) > 1:
                found.append(float(np.std(repeats)) / (high - low))
        if len(shares) > 1:
            found.append(float(np.std(shares)))
    return round(max(found), 6) if found else None
