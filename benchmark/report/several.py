"""Several finished runs of a suite as one, for a page that shows all their rows, named run/row."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.core.fingerprint import fingerprint
from benchmark.core.item import SOURCE, TARGET, BenchmarkError, Unscored
from benchmark.core.order import natural
from benchmark.evaluation.results import Outcome, Run
from benchmark.metrics import Metric
from shards.files import atomic_path, is_unused

PAGE = "report.html"


def names_of(folders: Sequence[Path]) -> list[str]:
    """A short name of each folder: its own, with as much of the path before it as tells it from the others.

    Raises BenchmarkError for a folder that is named twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    for folder in folders:
        if parts.count(folder.resolve().parts) > 1:
            raise BenchmarkError(f"{folder}: is named twice")
    depth = 1
    while len({of[-depth:] for of in parts}) < len(parts):
        depth += 1
    return ["/".join(of[-depth:]) for of in parts]


def joined(runs: Mapping[str, Run]) -> Run:
    """One run with the rows of all, by their names.

    The rows `source` and `target` stand once where all runs that have them give the same scores. Metrics are
    those that all runs have with the same settings; what is left out, and in what the sets of items differ,
    is among the remarks. An item that a run lacks is unscored in its rows.

    Raises BenchmarkError for runs of different suites or lists of items, or without a common metric.
    """
    first = next(iter(runs.values()))
    for name, run in runs.items():
        if (run.suite.name, run.suite.sha256) != (first.suite.name, first.suite.sha256):
            raise BenchmarkError(
                f"{name}: is a run of {run.suite.name} (list {run.suite.sha256[:12]}), "
                f"{next(iter(runs))} one of {first.suite.name} ({first.suite.sha256[:12]}); "
                "a page shows runs of one suite and list"
            )
    metrics, remarks = _common_metrics(runs)
    by_id = {name: {o.item.id: o for o in run.outcomes} for name, run in runs.items()}
    ids = sorted({id for of in by_id.values() for id in of}, key=natural)
    for name, of in by_id.items():
        if lacking := [id for id in ids if id not in of]:
            remarks.append(f"{name} lacks {len(lacking)} of {len(ids)} items, such as {lacking[0]}")
    rows = _rows(runs, by_id, metrics)
    outcomes = [_outcome(id, rows, by_id, metrics) for id in ids]
    remarks += [f"{name}: {remark}" for name, run in runs.items() for remark in run.remarks]
    config = replace(first.config, data=", ".join(dict.fromkeys(run.config.data for run in runs.values())))
    told = list(dict.fromkeys(line for run in runs.values() for line in run.unlike_published))
    return Run(config, first.suite, metrics, outcomes, list(rows), None, {}, remarks, unlike_published=told)


def _common_metrics(runs: Mapping[str, Run]) -> tuple[list[Metric], list[str]]:
    known = {name: {m.name: (m.version, fingerprint(m)) for m in run.metrics} for name, run in runs.items()}
    metrics, remarks = [], []
    for metric in {m.name: m for run in runs.values() for m in run.metrics}.values():
        settings = [of.get(metric.name) for of in known.values()]
        lacking = [name for name, of in known.items() if metric.name not in of]
        if lacking:
            remarks.append(f"{metric.label} is left out: {', '.join(lacking)} has not computed it")
        elif any(one != settings[0] for one in settings):
            remarks.append(f"{metric.label} is left out: the runs computed it with different settings")
        else:
            metrics.append(metric)
    if not metrics:
        raise BenchmarkError(
            f"{', '.join(runs)}: no metric that all runs computed alike: {'; '.join(remarks)}"
        )
    return metrics, remarks


def _rows(
    runs: Mapping[str, Run], by_id: Mapping[str, Mapping[str, Outcome]], metrics: Sequence[Metric]
) -> dict[str, list[tuple[str, str]]]:
    """The joined rows: name -> where its scores are, as (run, row), the first that has an item counts."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for shared in (SOURCE, TARGET):
        places = [(name, shared) for name, run in runs.items() if shared in run.rows]
        if places and _alike(places, by_id, metrics):
            rows[shared] = places
    for name, run in runs.items():
        rows |= {f"{name}/{row}": [(name, row)] for row in run.rows if row not in rows}
    order = sorted(rows, key=lambda row: (row != SOURCE, row == TARGET))  # stable: the runs keep their order
    return {row: rows[row] for row in order}


def _alike(
    places: Sequence[tuple[str, str]],
    by_id: Mapping[str, Mapping[str, Outcome]],
    metrics: Sequence[Metric],
) -> bool:
    seen: dict[tuple[str, str], Any] = {}
    for name, row in places:
        for id, outcome in by_id[name].items():
            for metric in metrics:
                score = outcome.scores[row][metric.name]
                if seen.setdefault((id, metric.name), score) != score:
                    return False
    return True


def _outcome(
    id: str,
    rows: Mapping[str, Sequence[tuple[str, str]]],
    by_id: Mapping[str, Mapping[str, Outcome]],
    metrics: Sequence[Metric],
) -> Outcome:
    there = [of[id] for of in by_id.values() if id in of]
    made = Outcome(there[0].item, {})
    for row, places in rows.items():
        found = next(((by_id[name][id], old) for name, old in places if id in by_id[name]), None)
        if found is None:
            reason = Unscored(f"{places[0][0]} lacks this item")
            made.scores[row] = {m.name: reason for m in metrics}
            continue
        outcome, old = found
        made.scores[row] = {m.name: outcome.scores[old][m.name] for m in metrics}
        for part in ("geometries", "notes", "videos", "seconds", "peak_bytes", "sources"):
            ours, theirs = getattr(made, part, None), getattr(outcome, part, None)
            if isinstance(ours, dict) and isinstance(theirs, dict) and old in theirs:
                ours[row] = theirs[old]
    source = next((o.videos[SOURCE] for o in there if SOURCE in o.videos), None)
    if source is not None and made.videos:
        made.videos = {SOURCE: source} | made.videos
    return made


def check_place(out: Path, runs: Sequence[Path]) -> None:
    """Raise BenchmarkError unless the page of several runs can be written to `out`."""
    if any(out.resolve() == folder.resolve() for folder in runs):
        raise BenchmarkError(f"--out {out}: is one of the runs; the page of several has a folder of its own")
    if out.exists() and not out.is_dir():
        raise BenchmarkError(f"--out {out}: is not a folder")
    if not is_unused(out) and (not (out / PAGE).is_file() or (out / "config.json").exists()):
        raise BenchmarkError(f"--out {out}: holds something else than a page of several runs; choose another")


def beside(run: Run, out: Path) -> None:
    """Put the videos and posters of a joined run into `out`, by links where the disk allows."""
    for outcome in run.outcomes:
        for row, video in outcome.videos.items():
            for file in (video, video.with_suffix(".jpg")):
                place = out / "videos" / file.name
                if file.is_file() and not place.exists():
                    _put(file, place)
            outcome.videos[row] = out / "videos" / video.name


def _put(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, place)
    except OSError:  # another disk, or one without links
        with atomic_path(place) as temporary:
            shutil.copyfile(file, temporary)
