"""The report: one HTML file with its tables, figures and videos, which works from a file:// address.

The page depends on the run alone, so writing it again gives the same bytes.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import jinja2

from benchmark.core.item import MODEL, SOURCE, TARGET, Item, Unscored, Worded
from benchmark.core.score_cache import number_out
from benchmark.evaluation.results import ROW_NOTES, Outcome, Run, label_of
from benchmark.report import bar_charts
from benchmark.report.tables import heading, interval, number, spread, unit_and_arrow
from benchmark.report.training_curves import Curve, svg
from benchmark.statistics.intervals import Mean
from shards.files import write_bytes
from shards.reports.pages import ASSETS

VIDEO_LABELS = {SOURCE: "Source", MODEL: "Model's edit", TARGET: "Curated target"}
TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    path: Path, run: Run, curves: list[Curve], made: dict[str, str], inside: bool = True
) -> None:
    """Write the page, atomically.

    Args:
        path: the HTML file.
        run: what is shown; items whose `videos` are empty are left out of the gallery, and counted.
        curves: training curves, may be empty.
        inside: the page holds its videos; else it names the files beside it, which go with it to a web host.
        made: what the page says about where the numbers come from (commit, date ...), in this order.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, ASSETS]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [o for o in run.outcomes if o.videos]
    page = environment.get_template("report.html.j2").render(
        suite=run.suite.name,
        facts=facts(run) | made,
        tables=[table(run, name, members) for name, members in run.groups()],
        headings=[(m.label, unit_and_arrow(m)) for m in run.metrics],
        clustered_by=run.clusters[0],
        edited=MODEL in run.rows,
        remarks=[*run.all_remarks, *run.unlike_published],
        metric_notes=[(m.label, note(m)) for m in run.metrics],
        curves=[{"name": c.name, "svg": svg(c), "window": c.window, "points": len(c.values)} for c in curves],
        cards=[card(run, o, None if inside else path.parent) for o in shown],
        bars=bar_charts.figures(run),
        left_out=len(run.outcomes) - len(shown) - sum(o.geometry is None for o in run.outcomes),
        tasks=sorted({o.item.task for o in shown}),
        categories=sorted({category(o.item) for o in shown}),
        category_label="Category" if any(o.item.category for o in shown) else "Orientation",
        sortable=[(m.name, heading(m)) for m in run.metrics],
        sort_row=label_of(scored_row(run)),
        failures=[(item, label_of(row), metric, reason) for item, row, metric, reason in run.failures()],
    )
    write_bytes(path, page.encode())


def scored_row(run: Run) -> str:
    """The row that the gallery sorts by: the first system's, or the floor where there is none."""
    own = [row for row in run.rows if row not in (SOURCE, TARGET)]
    return own[0] if own else run.rows[0]


def facts(run: Run) -> dict[str, str]:
    """What ran, for the head of the page."""
    edit = run.config.edit
    out = {"suite": f"{run.suite.name} (version {run.suite.version}), {len(run.outcomes)} items"}
    out["data"] = run.config.data
    out["list of items"] = f"sha256 {run.suite.sha256[:12]}"
    if run.config.metrics:
        out["metrics"] = f"{run.config.metrics}, {run.config.mode}"
    if run.config.add_metrics:
        out["more metrics"] = f"{run.config.add_metrics}, {run.config.mode}"
    if run.checkpoint_sha256:
        out["checkpoint"] = f"{run.config.checkpoint} (sha256 {run.checkpoint_sha256[:12]})"
        out["solver steps"] = "the checkpoint's own" if edit.steps is None else str(edit.steps)
        if edit.guidance is not None:
            out["guidance"] = f"{edit.guidance:g}"
        out["seed"] = str(edit.seed)
    sizes = sorted(
        {
            f"{o.geometry.frames} frames of {o.geometry.width}x{o.geometry.height}"
            for o in run.outcomes
            if o.geometry
        }
    )
    if sizes:
        out["scored at"] = ", ".join(sizes[:4]) + (" ..." if len(sizes) > 4 else "")
    peaks = run.peak_bytes()
    for row, seconds in run.seconds_per_edit().items():
        memory = f", {peaks[row] / 2**30:.2f} GiB of memory" if row in peaks else ""
        out[f"an edit by {label_of(row)}"] = f"{seconds:.2f} s{memory}"
    return out


def note(metric: Any) -> str:
    """A metric's own documentation, first paragraph, with its version."""
    text = " ".join((type(metric).__doc__ or "").split("\n\n")[0].split())
    return f"{text} (version {metric.version})"


def table(run: Run, name: str, members: list[int]) -> dict[str, Any]:
    """One score table as the template prints it."""
    rows = []
    for row in run.rows:
        means: list[Mean] = [run.mean(row, m, members) for m in run.metrics]
        cells = [
            {"value": number(mean.value, m), "interval": interval(mean, m), "sort": sortable(mean)}
            for mean, m in zip(means, run.metrics, strict=True)
        ]
        rows.append(
            {
                "label": label_of(row),
                "note": ROW_NOTES.get(row, ""),
                "model": row not in (SOURCE, TARGET),
                "cells": cells,
                "scored": spread([m.scored for m in means]),
                "failed": spread([m.failed for m in means]),
            }
        )
    clusters = {run.clusters[1][n] for n in members if run.outcomes[n].geometry is not None}
    return {"name": name, "items": len(members), "clusters": len(clusters), "rows": rows}


def category(item: Item) -> str:
    """What the gallery is filtered by beside the task: the finer group, or the orientation."""
    return item.category or item.facets.get("orientation", "")


def sortable(mean: Mean) -> str:
    """A mean as JavaScript reads it; empty where there is none."""
    if mean.value is None:
        return ""
    return repr(mean.value) if math.isfinite(mean.value) else "Infinity" if mean.value > 0 else "-Infinity"


def card(run: Run, outcome: Outcome, root: Path | None) -> dict[str, Any]:
    """One item of the gallery; its videos are named relative to `root`, or in it where that is None."""
    geometry = outcome.geometry
    assert geometry is not None  # a card has videos, and those have a size
    row = scored_row(run)
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
    keys: dict[str, float | str | None] = {}
    for metric in run.metrics:
        score = outcome.scores[row][metric.name]
        keys[metric.name] = None if isinstance(score, Unscored) else number_out(score)
    return {
        "id": outcome.item.id,
        "task": outcome.item.task,
        "category": category(outcome.item),
        "text": outcome.item.text,
        "fps": geometry.fps,
        "frames": geometry.frames,
        "width": geometry.width,
        "height": geometry.height,
        "small": geometry.width < 300,
        "sort": keys,
        "scores": scores,
        "columns": [label_of(name) for name in run.rows],
        "words": [
            (label_of(name), metric.label, score.words)
            for name in run.rows
            for metric in run.metrics
            if isinstance(score := outcome.scores[name][metric.name], Worded) and score.words
        ],
        "videos": [
            {
                "label": VIDEO_LABELS.get(name, name),
                "data": base64.b64encode(path.read_bytes()).decode() if root is None else "",
                "src": "" if root is None else path.relative_to(root).as_posix(),
            }
            for name, path in outcome.videos.items()
        ],
    }
