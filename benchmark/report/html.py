"""The report: one HTML file with its tables, figures and videos, which works from a file:// address.

The page depends on the run alone, so writing it again gives the same bytes. Its content security policy names
its own script by hash and forbids requests to any host, so nothing that an item or a judge says can run.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmark.core.item import MODEL, SOURCE, TARGET
from benchmark.core.order import natural
from benchmark.evaluation.results import ROW_NOTES, Run, label_of
from benchmark.report import bar_charts, gallery
from benchmark.report.notes import notes
from benchmark.report.tables import heading, interval, number, spread, unit_and_arrow
from benchmark.report.templating import environment, joined, policy_hash
from benchmark.report.training_curves import Curve, svg
from benchmark.statistics.intervals import Mean
from shards.files import write_bytes

SCRIPTS = ("player.js", "live.js", "pair.js", "report.js")


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
    shown = [n for n, o in enumerate(run.outcomes) if o.videos]
    root = None if inside else path.parent
    categories = {gallery.category(run.outcomes[n].item) for n in shown}
    script = joined(*SCRIPTS)
    template = environment().get_template("report.html.j2")
    page = template.render(
        suite=run.suite.name,
        facts=facts(run) | made,
        tables=[table(run, name, members) for name, members in run.groups()],
        headings=[(m.label, unit_and_arrow(m)) for m in run.metrics],
        clustered_by=run.clusters[0],
        edited=MODEL in run.rows,
        remarks=[*run.all_remarks, *run.unlike_published],
        notes=notes(run),
        metric_notes=[(m.label, note(m)) for m in run.metrics],
        curves=[{"name": c.name, "svg": svg(c), "window": c.window, "points": len(c.values)} for c in curves],
        cards=[gallery.card(run, n, root) for n in shown],
        blocks=gallery.blocks(run, shown) if inside else (),
        data=gallery.page_data(run, root),
        bars=bar_charts.figures(run),
        colours=bar_charts.COLOURS,
        left_out=len(run.outcomes) - len(shown) - sum(o.geometry is None for o in run.outcomes),
        tasks=sorted({run.outcomes[n].item.task for n in shown}, key=natural),
        categories=sorted(categories, key=natural),
        category_label="Category" if any(run.outcomes[n].item.category for n in shown) else "Orientation",
        sortable=[(m.name, heading(m)) for m in run.metrics],
        rows=[label_of(row) for row in run.rows],
        sort_row=label_of(gallery.scored_row(run)),
        failures=[(item, label_of(row), metric, reason) for item, row, metric, reason in run.failures()],
        script=script,
        script_hash=policy_hash(script),
    )
    write_bytes(path, page.encode())


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


def sortable(mean: Mean) -> str:
    """A mean as JavaScript reads it; empty where there is none."""
    if mean.value is None:
        return ""
    return repr(mean.value) if math.isfinite(mean.value) else "Infinity" if mean.value > 0 else "-Infinity"
