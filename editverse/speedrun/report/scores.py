"""What a run says of its editors: how they were trained, their held-out scores, and which differences count.

A difference is of the same items by two editors, with a 95 % interval over clips or pairs
(`benchmark.statistics.paired`). It counts where the interval excludes zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.analysis.compare import Items, MetricFacts, compare, read_items, read_metric_facts
from benchmark.core.item import MODEL, MODEL_RAW, SOURCE, TARGET
from curation.quality.selection.retention import REPORT
from editverse.speedrun.report.data import Facts, folders_with, read_object, relative
from editverse.speedrun.report.words import words_of
from shards.files import sha256_of
from shards.hashing import digest
from shards.location import ShardError
from shards.manifest import read_manifest

REFERENCES = (SOURCE, TARGET)
CURVE = "curve.csv"
TRAININGS = ("stage1", "stage2", "distill")
WEIGHTS = "*.safetensors"
VERDICTS = ("better", "worse", "undecided", "unknown")
SHORT_ID = 12  # hexadecimal digits of a sha256 that are shown


def training_facts(run: Path) -> list[Facts]:
    """Of each training: what it started from, its data, steps, losses and weights.

    Losses are float, from the training's summary; weights are sha256 by file.
    """
    found = []
    for folder in sorted(folders_with(run, "run.json"), key=lambda one: _rank(one.name)):
        record = read_object(folder / "run.json")
        config = record.get("config")
        if not isinstance(config, dict):
            continue  # a run of curation: its configuration is named by a hash
        train = config.get("train") or {}
        summary = read_object(folder / "summary.json")
        names = ("steps", "samples", "tokens", "parameters", "train_samples", "heldout_samples")
        facts = {name: summary.get(name) for name in (*names, "first_loss", "last_loss", "heldout")}
        data = read_object(folder / "provenance.json").get("data") or {}
        facts |= {
            "folder": relative(run, str(folder)),
            "init_from": relative(run, str(train.get("init_from") or "")),
            "planned_steps": train.get("steps"),
            "seed": train.get("seed"),
            "adapter": bool(config.get("lora")),
            "distill": config.get("distill"),
            "data": {
                name: {
                    "folders": [relative(run, one) for one in (data.get(name) or {}).get("shards", [])],
                    "visits": row.get("ratio"),
                    "tasks": row.get("tasks") or [],
                    "sha256": _content(run, (data.get(name) or {}).get("shards", []))
                    or str(row.get("shards", "")),
                }
                for name, row in (record.get("data") or {}).items()
            },
            "weights": {
                str(path.relative_to(folder)): sha256_of(path)
                for path in sorted((folder / "checkpoint").rglob(WEIGHTS))
            },
        }
        found.append(facts)
    return found


def _content(run: Path, folders: Sequence[str]) -> str:
    """Sha256 of the shards' own sha256, whatever they are called; "" where a folder has no manifest to read.

    Names of imported shards come from the time of the file that they were made of, so they tell nothing.
    """
    parts = []
    for folder in folders:
        try:
            parts.append(sorted(row.sha256 for row in read_manifest(run / folder)))
        except ShardError:
            return ""
    return digest(parts) if parts else ""


def data_folders(run: Path) -> list[str]:
    """The shard folders that the trainings read; of what a filter left, the folder that was filtered."""
    found: dict[str, None] = {}
    for folder in sorted(folders_with(run, "provenance.json"), key=lambda one: _rank(one.name)):
        for row in (read_object(folder / "provenance.json").get("data") or {}).values():
            for name in row.get("shards", []):
                before = read_object(run / name / REPORT).get("source")
                found[relative(run, str(before or name))] = None
    return list(found)


def _rank(name: str) -> tuple[int, str]:
    return (TRAININGS.index(name) if name in TRAININGS else len(TRAININGS), name)


def score_facts(run: Path) -> list[Facts]:
    """Of each suite that was run: means by group, row and metric, and paired differences between its editors.

    Raises:
        BenchmarkError: a file of the benchmark is damaged.
    """
    found = []
    for folder in folders_with(run, "items.json"):
        summary = read_object(folder / "summary.json")
        if not isinstance(summary.get("suite"), dict) or not isinstance(summary.get("table"), dict):
            continue
        items, about = read_items(folder), read_metric_facts(folder)
        labels = row_labels(run, summary)
        editors = [row for row in labels if row not in REFERENCES]
        groups = {"all": items} | _by_task(items)
        found.append(
            {
                "folder": relative(run, str(folder)),
                "suite": summary["suite"].get("name"),
                "items": summary.get("items"),
                "clustered_by": summary.get("clustered_by"),
                "rows": labels,
                "metrics": {
                    name: {one: of.get(one) for one in ("unit", "higher_is_better", "range")}
                    for name, of in summary.get("metrics", {}).items()
                },
                "groups": {
                    group: {row: of[row] for row in labels if row in of}
                    for group, of in summary["table"].items()
                    if group in groups
                },
                "differences": [
                    difference_facts(group, some, pair, labels, about)
                    for group, some in groups.items()
                    for pair in pairs_to_compare(editors)
                ],
                "failures": len(summary.get("failures", [])),
                "remarks": summary.get("remarks", []),
            }
        )
    return found


def row_labels(run: Path, summary: Mapping[str, Any]) -> dict[str, str]:
    """What the report calls the rows of a suite's table, in its order: source, base, stages, student, target.

    The row of `--checkpoint` is called by the folder of the run that it names.
    """
    rows = [row for row in next(iter(summary["table"].values()), {}) if row != MODEL_RAW]
    config = summary.get("config") or {}
    named = Path(relative(run, str(config.get("checkpoint") or MODEL))).parts[0]
    labels = {row: named if row == MODEL else row for row in rows}
    order = [SOURCE, "base", *TRAININGS, *sorted(labels.values()), TARGET]
    ranked = sorted(labels.items(), key=lambda item: (item[0] == TARGET, order.index(item[1])))
    return dict(ranked)


def pairs_to_compare(editors: Sequence[str]) -> list[tuple[str, str]]:
    """The base against each other editor, then each stage against the one before it."""
    with_base = [(editors[0], other) for other in editors[1:]]
    return list(dict.fromkeys([*with_base, *itertools.pairwise(editors)]))


def _by_task(items: Items) -> dict[str, Items]:
    """Items by task; nothing where all are of one."""
    tasks = sorted({item["task"] for item in items.values()})
    if len(tasks) < 2:
        return {}
    return {task: {key: item for key, item in items.items() if item["task"] == task} for task in tasks}


def difference_facts(
    group: str,
    items: Items,
    rows: tuple[str, str],
    labels: Mapping[str, str],
    about: Mapping[str, MetricFacts],
) -> Facts:
    """The second of two rows less the first, by metric, and what that means in a word."""
    compared = compare(items, items, rows[0], rows[1], about)
    metrics = {}
    for name, of in compared["metrics"].items():
        mean = of["mean"]
        higher = about[name].higher_is_better if name in about else True
        metrics[name] = {
            "first": of["first"],
            "second": of["second"],
            "difference": mean["value"],
            "low": mean["low"],
            "high": mean["high"],
            "p": of["p"],
            "items": mean["scored"],
            "clusters": mean["clusters"],
            "verdict": verdict(mean["low"], mean["high"], higher),
        }
    return {"group": group, "first": labels[rows[0]], "second": labels[rows[1]], "metrics": metrics}


def verdict(low: float | None, high: float | None, higher_is_better: bool) -> str:
    """In a word: better or worse where the interval excludes zero, else undecided; unknown without one."""
    if low is None or high is None:
        return "unknown"
    if low <= 0 <= high:
        return "undecided"
    return "better" if (low > 0) == higher_is_better else "worse"


def findings(scores: Sequence[Facts]) -> list[Facts]:
    """The differences in sentences: which stage is better than which, by what, on what.

    Each has "suite" and "group" ("all" or a task) and its "text"; a group with too few clips for intervals
    has one sentence that says so.
    """
    found = []
    for suite in scores:
        for group, some in itertools.groupby(suite["differences"], key=lambda one: one["group"]):
            about = {"suite": suite["folder"], "group": group}
            texts = [_sentence(suite, one) for one in some]
            found += [about | {"text": text} for text in dict.fromkeys(texts) if text]
    return found


def _sentence(suite: Facts, difference: Facts) -> str:
    metrics = difference["metrics"]
    counted = [of["items"] for of in metrics.values()]
    if not counted or not max(counted):
        return ""
    where = "all items" if difference["group"] == "all" else difference["group"]
    clusters = max(of["clusters"] for of in metrics.values())
    by = suite["clustered_by"]
    amount = f"{max(counted)} items of {clusters} {by}{'' if clusters == 1 else 's'}"
    where = f"{suite['folder']}, {where} ({amount})"
    verdicts = {kind: [n for n, of in metrics.items() if of["verdict"] == kind] for kind in VERDICTS}
    if not (verdicts["better"] or verdicts["worse"] or verdicts["undecided"]):
        return f"{where}: too few clips for an interval, so no editor is told apart from another."
    parts = []
    for kind, words in (("better", "is better than"), ("worse", "is worse than")):
        told = [_amount(name, metrics[name], suite) for name in verdicts[kind]]
        if told:
            parts.append(f"{words} {difference['first']} by {', '.join(told)}")
    if verdicts["undecided"]:
        than = "it" if parts else difference["first"]
        names = ", ".join(words_of(name) for name in verdicts["undecided"])
        parts.append(f"is not told apart from {than} by {names}")
    return f"{where}: {difference['second']} {'; '.join(parts)}."


def _amount(name: str, of: Facts, suite: Facts) -> str:
    unit = suite["metrics"].get(name, {}).get("unit") or ""
    ends = f"[{of['low']:+.3g}, {of['high']:+.3g}]"
    return f"{words_of(name)} ({of['difference']:+.3g} {ends}{' ' + unit if unit else ''})"
