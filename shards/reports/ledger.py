"""Receipts: where every sample of some folders comes from, what it may be used for, and what it cost.

Samples are read one after the other and never held: of a million of them memory has only the counts.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rich.table import Table
from rich.text import Text

from shards.errors import SettingError
from shards.files import atomic_path
from shards.reader import ShardSet
from shards.reports.costs import Costs, costs_of, money
from shards.reports.licenses import UNKNOWN, Verdict, commercial_use, license_of_step, verdict_of
from shards.sample import Sample
from shards.terminal import print_table

Row = dict[str, Any]  # of one sample, JSON values


@dataclass
class Totals:
    """What all samples of some folders add up to.

    Attributes:
        clips: licence of the clip -> samples.
        models: (name, licence) -> samples that went through it.
        uses: (yes, no or unknown; why) -> samples.
        tasks: (task, use) -> samples.
    """

    samples: int = 0
    clips: Counter[str] = field(default_factory=Counter)
    models: Counter[tuple[str, str]] = field(default_factory=Counter)
    uses: Counter[Verdict] = field(default_factory=Counter)
    tasks: Counter[tuple[str, str]] = field(default_factory=Counter)
    costs: list[Costs] = field(default_factory=list)
    unpriced: list[str] = field(default_factory=list)  # folders that no run noted anything of

    def to_json(self, prices: Mapping[str, float]) -> dict[str, Any]:
        """As JSON values."""
        return {
            "samples": self.samples,
            "clip_licenses": dict(self.clips.most_common()),
            "models": [
                {"model": name, "license": license, "samples": count}
                for (name, license), count in self.models.most_common()
            ],
            "commercial_use": [
                {"use": verdict.use, "reason": verdict.reason, "samples": count}
                for verdict, count in self.uses.most_common()
            ],
            "costs": [_cost_row(one, self.by_task, prices) for one in self.costs],
        }

    @property
    def by_task(self) -> dict[str, Costs]:
        """The costs of each task; of a task in two folders, those of the first."""
        return {one.task: one for one in reversed(self.costs)}


def row_of(sample: Sample, directory: str) -> Row:
    """The receipt of one sample.

    `models` has every step that used a model or program, with the licence and who states it; `commercial` is
    "yes", "no" or "unknown", `reason` why.
    """
    provenance, verdict = sample.provenance, commercial_use(sample.provenance)
    models = []
    for step in provenance.steps:
        license, source = license_of_step(step)
        models.append(
            {
                "stage": step.stage,
                "backend": step.backend,
                "model": step.model,
                "revision": step.revision,
                "config": step.config,
                "license": license,
                "license_from": source,
            }
        )
    return {
        "folder": directory,
        "key": sample.key,
        "task": sample.task,
        "split": sample.split,
        "text": sample.text,
        "clip": provenance.clip.name,
        "clip_sha256": provenance.clip.sha256,
        "clip_span": list(provenance.clip.span),
        "clip_license": provenance.clip.license or UNKNOWN,
        "mended": list(provenance.clip.mended),
        "models": models,
        "given": {stage: one.model_dump(mode="json") for stage, one in sorted(provenance.given.items())},
        "parents": list(provenance.parents),
        "commercial": verdict.use,
        "reason": verdict.reason,
    }


def rows(directories: Sequence[str], totals: Totals) -> Iterator[Row]:
    """The receipts of all samples in order, which are counted into `totals` as they go by.

    Raises:
        ShardError: a folder cannot be read. SettingError: none is given.
    """
    if not directories:
        raise SettingError("no shard folder is given; name at least one")
    for directory in directories:
        shards, costs = ShardSet(directory), costs_of(directory)
        if costs is None:
            totals.unpriced.append(directory)
        else:
            totals.costs.append(costs)
        for number in range(len(shards)):
            sample = shards.sample(number)
            row = row_of(sample, directory)
            _count(totals, sample, row)
            if costs is not None:
                costs.chains[_parents_of(sample, costs.task)] += 1
            yield row


def _parents_of(sample: Sample, task: str) -> tuple[str, ...]:
    """The tasks whose pairs a sample of this task was made from, the first ones first."""
    recipes = [step.stage for step in sample.provenance.steps if step.backend == "recipe"]
    return tuple(recipes[: recipes.index(task)]) if task in recipes else ()


def _count(totals: Totals, sample: Sample, row: Row) -> None:
    totals.samples += 1
    totals.clips[row["clip_license"]] += 1
    names = {(one["model"] or one["backend"], one["license"]) for one in row["models"]}
    totals.models.update(names)
    totals.uses[Verdict(row["commercial"], row["reason"])] += 1
    totals.tasks[sample.task, row["commercial"]] += 1


def write_rows(found: Iterator[Row], out: IO[str], format: str) -> None:
    """Write receipts as JSON Lines, or as CSV with lists and objects as JSON in their cells."""
    writer: Any = None
    for row in found:
        if format == "jsonl":
            out.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
            continue
        if writer is None:
            writer = csv.DictWriter(out, list(row))
            writer.writeheader()
        nested = {k: json.dumps(v, ensure_ascii=False) for k, v in row.items() if isinstance(v, list | dict)}
        writer.writerow(row | nested)


def write_file(found: Iterator[Row], path: Path) -> None:
    """Write receipts to a file whose name ends in .jsonl or .csv, whole or not at all.

    Raises:
        SettingError: it ends otherwise.
    """
    format = path.suffix.removeprefix(".")
    if format not in ("jsonl", "csv"):
        raise SettingError(f"--out {path}: a receipt of all samples is a .jsonl or a .csv")
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        write_rows(found, out, format)


# ---- tables ------------------------------------------------------------------------------------------------


def print_totals(totals: Totals, prices: Mapping[str, float]) -> None:
    """Tables on stdout: licences of clips and of models, what may be used, what pairs cost."""
    title = f"clips of {totals.samples} samples"
    clips = Table("licence of the clip", "commercial use", "samples", title=title)
    for license, count in totals.clips.most_common():
        clips.add_row(Text(license), _in_words(verdict_of(license)), str(count))
    models = Table("model or program", "licence", "commercial use", "samples", title="models")
    for (name, license), count in sorted(totals.models.items(), key=lambda item: (-item[1], item[0])):
        models.add_row(Text(name), Text(license), verdict_of(license).use, str(count))
    title = "what may be used commercially, read conservatively"
    uses = Table("commercial use", "why", "samples", title=title)
    for verdict, count in totals.uses.most_common():
        uses.add_row(verdict.use, Text(verdict.reason), str(count))
    tasks = Table("task", "yes", "no", "unknown", title="by task")
    for task in sorted({task for task, _ in totals.tasks}):
        tasks.add_row(task, *(str(totals.tasks[task, use]) for use in ("yes", "no", "unknown")))
    for table in (clips, models, uses, tasks):
        print_table(table)
    if totals.costs:
        print_costs(totals, prices)
    for directory in totals.unpriced:
        print(f"{directory}: no summary.json of a run, so nothing is known of its costs")


def print_costs(totals: Totals, prices: Mapping[str, float]) -> None:
    """What a pair cost in each folder, and the stages that took it."""
    heads = ["task", "candidates", "pairs", "core-s", "core-s a pair", "with its parents'", "GPU-s a pair"]
    heads += ["price of a pair"] if prices else []
    table = Table(*heads, title="cost of accepted pairs")
    stages = Table("task", "stage", "results", "core-s", "GPU-s", "core-s a pair", title="by stage")
    for one in totals.costs:
        row = _cost_row(one, totals.by_task, prices)
        cells = [row["core_seconds"], row["core_seconds_per_pair"], row["core_seconds_with_parents"]]
        cells.append(row["gpu_seconds_per_pair"])
        told = [_number(cell) for cell in cells]
        told += [_number(row["price_per_pair"], 5)] if prices else []
        table.add_row(one.task, str(one.candidates), str(one.accepted), *told)
        for stage in one.stages:
            each = stage.cpu_seconds / one.accepted if one.accepted and not stage.unpriced else None
            more = f" ({stage.unpriced} of unknown cost)" if stage.unpriced else ""
            numbers = (_number(n) for n in (stage.cpu_seconds, stage.gpu_seconds, each))
            stages.add_row(one.task, stage.stage, f"{stage.results}{more}", *numbers)
    print_table(table)
    print_table(stages)


def _cost_row(one: Costs, by_task: Mapping[str, Costs], prices: Mapping[str, float]) -> dict[str, Any]:
    alone, whole = one.per_pair(), one.per_pair(by_task)
    return {
        "folder": one.directory,
        "task": one.task,
        "candidates": one.candidates,
        "accepted": one.accepted,
        "samples": one.samples,
        "core_seconds": round(one.cpu_seconds, 3),
        "gpu_seconds": round(one.gpu_seconds, 3),
        "results_of_unknown_cost": one.unpriced,
        "core_seconds_per_pair": None if alone is None else round(alone[0], 3),
        "core_seconds_with_parents": None if whole is None else round(whole[0], 3),
        "gpu_seconds_per_pair": None if whole is None else round(whole[1], 3),
        "price_per_pair": None if whole is None or not prices else round(money(whole, prices), 6),
        "stages": {
            stage.stage: {
                "results": stage.results,
                "core_seconds": round(stage.cpu_seconds, 3),
                "gpu_seconds": round(stage.gpu_seconds, 3),
                "results_of_unknown_cost": stage.unpriced,
            }
            for stage in one.stages
        },
    }


def _number(value: float | None, places: int = 2) -> str:
    return "not known" if value is None else f"{value:.{places}f}"


def _in_words(verdict: Verdict) -> Text:
    return Text(f"{verdict.use}, {verdict.reason}" if verdict.reason else verdict.use)
