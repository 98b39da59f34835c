"""`editverse speedrun report` and `card`: what a run made, as facts, as a page and in the model's card."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editverse.speedrun.bill.costs import STAGES, UNKNOWN
from editverse.speedrun.report.card import render_card
from editverse.speedrun.report.data import (
    LEDGER,
    Facts,
    commercial_use,
    curation_facts,
    gate_facts,
    import_facts,
    ledger_facts,
    left_out,
    pair_costs,
    read_object,
)
from editverse.speedrun.report.page import write_page
from editverse.speedrun.report.scores import data_folders, findings, score_facts, training_facts
from shards.errors import ConfigError
from shards.files import write_bytes, write_json
from shards.reports.costs import checked_prices, money
from shards.reports.ledger import Totals, rows, write_file

DATA_STAGES = ("clips", "curation", "imports", "gates")  # what accepted pairs cost
TAKEN = ("seconds", "cpu_seconds", "gpu_seconds", "disk_bytes")  # by a stage
VERSION = 1
HOUR, GIB = 3600.0, float(2**30)


def report(run: Path, prices: dict[str, float] | None = None) -> None:
    """Write report.json and report.html of a run, of all stages that are done.

    Args:
        run: folder of the run, e.g. runs/speedrun-tiny
        prices: of an hour, for what it cost: '{cpu_hour: 0.04, gpu_hour: 2.5}'
    """
    hours = checked_prices(prices)
    run = _checked(run)
    facts = gather(run, hours)
    write_json(run / "report.json", facts)
    write_page(run / "report.html", run, facts)
    for finding in facts["result"]["findings"]:
        if finding["group"] == "all":
            print(finding["text"])
    print(f"report: {run / 'report.html'}")


def card(run: Path, out: Path | None = None) -> None:
    """Write the sections on data, bill and scores that `python -m model push --about` puts into a card.

    Args:
        run: folder of the run
        out: file to write; card.md in the run's folder when not given
    """
    run = _checked(run)
    path = out or run / "card.md"
    write_bytes(path, render_card(gather(run, {})).encode())
    print(path)


def ledger(run: Path) -> None:
    """Write ledger.csv: a line for every sample that the run's trainings read, with its origin and licences.

    It is `python -m shards ledger` of their folders; for one that gates have filtered, of the one before.

    Args:
        run: folder of the run
    """
    run = _checked(run)
    folders = data_folders(run)
    if not folders:
        raise ConfigError(f"{run}: nothing was trained yet, so no data are known; `stage1` comes first")
    totals = Totals()
    with contextlib.chdir(run):  # the file names folders as the run does, wherever it lies
        write_file(rows(folders, totals), Path(LEDGER))
    print(f"{run / LEDGER}: {totals.samples} samples of {', '.join(folders)}")


def _checked(run: Path) -> Path:
    """The folder, absolute; ConfigError where it is no speedrun's."""
    run = run.resolve()
    if not (run / "stages").is_dir():
        raise ConfigError(f"{run}: no folder of a speedrun (no stages/); `make speedrun` makes one")
    return run


def gather(run: Path, prices: Mapping[str, float]) -> Facts:
    """All that is known of a run, as JSON values.

    Returns:
        "result": what was made, without times or places, the same for two runs of the same recipe;
        "costs": seconds, disk, bill and money; "made": where and by which code.

    Raises:
        ConfigError, BenchmarkError: a file of the run is damaged.
    """
    bill = read_object(run / "bill.json")
    records = {name: record for name in STAGES if (record := read_object(run / "stages" / f"{name}.json"))}
    curated, licences = curation_facts(run), ledger_facts(run)
    trained, scored = training_facts(run), score_facts(run)
    result = {
        "size": Path(str(bill.get("size") or "")).name,  # of one's own size without its place
        "stages": [  # the report is a stage itself, which is done or not when it is written
            {"stage": name, "line": record.get("line", "")}
            for name, record in records.items()
            if name != STAGES[-1]
        ],
        "curation": curated,
        "imports": import_facts(run),
        "left_out": left_out(run),
        "gates": gate_facts(run),
        "ledger": licences,
        "commercial_use": commercial_use(licences),
        "training": trained,
        "scores": scored,
        "findings": findings(scored),
    }
    made = {"gpus": bill.get("gpus"), "machine": bill.get("machine")}
    for facts in trained[-1:]:
        made["code"] = read_object(run / facts["folder"] / "provenance.json").get("code")
    for name, first in (("started", min), ("finished", max)):
        times = [str(record[name]) for record in records.values() if record.get(name)]
        made[name] = first(times, default=None)
    return {
        "version": VERSION,
        "result": result,
        "costs": cost_facts(run, bill, records, result, prices),
        "made": made,
    }


def cost_facts(
    run: Path,
    bill: Mapping[str, Any],
    records: Mapping[str, Mapping[str, Any]],
    result: Facts,
    prices: Mapping[str, float],
) -> Facts:
    """What each stage took beside what the bill said, and what an accepted pair cost.

    Seconds are float; `ratio` is what was taken over what was billed, None where nothing was billed.
    """
    listed = {row["stage"]: row for row in bill.get("stages", [])}
    assumptions = [
        {"stage": name, "text": text} for name, row in listed.items() for text in row.get("assumptions", [])
    ]
    billed = {name: row for name, row in listed.items() if row["basis"] != UNKNOWN}
    stages: list[Facts] = []
    for name in STAGES:
        record, row = records.get(name), billed.get(name)
        if record is None and name not in listed:
            continue
        taken = {key: (record or {}).get(key) for key in TAKEN}
        said = {
            "seconds": _times(row, "hours", HOUR),
            "cpu_seconds": _times(row, "cpu_hours", HOUR),
            "gpu_seconds": _times(row, "gpu_hours", HOUR),
            "disk_bytes": _times(row, "disk_gib", GIB),
        }
        stages.append(
            {
                "stage": name,
                "took": taken,
                "billed": said,
                "ratio": {key: _ratio(taken[key], said[key]) for key in taken},
                "basis": (row or {}).get("basis"),
                "attempts": (record or {}).get("attempts"),
                "price": _price(taken, prices),
            }
        )
    took = {key: sum(stage["took"][key] or 0 for stage in stages) for key in TAKEN}
    # a stage that is not done yet (the report is being written) has taken nothing: it is not compared
    done = [stage for stage in stages if stage["stage"] in records]
    said = {key: sum(stage["billed"][key] or 0 for stage in done) for key in took}
    return {
        "stages": stages,
        "total": {
            "took": took,
            "billed": said,
            "ratio": {key: _ratio(took[key], said[key]) for key in took},
            "price": _price(took, prices),
        },
        "per_pair": _per_pair(run, records, result, prices),
        "assumptions": assumptions,
        "prices": dict(prices),
    }


def _per_pair(
    run: Path, records: Mapping[str, Mapping[str, Any]], result: Facts, prices: Mapping[str, float]
) -> Facts:
    """Seconds for each pair that was accepted, over all stages of the data, and by curated folder."""
    pairs = sum(facts["accepted"] or 0 for facts in (*result["curation"], *result["imports"]))
    kept = sum(facts["total"]["retained"] for facts in result["gates"])
    spent = {
        key: sum(float(records.get(name, {}).get(key) or 0) for name in DATA_STAGES)
        for key in ("seconds", "cpu_seconds", "gpu_seconds")
    }
    folders = {}
    for costs in pair_costs(run, result["curation"]):
        each = costs.per_pair()
        folders[str(Path(costs.directory).relative_to(run))] = {
            "accepted": costs.accepted,
            "cpu_seconds": None if each is None else each[0],
            "gpu_seconds": None if each is None else each[1],
        }
    known = pairs and any(name in records for name in DATA_STAGES)
    price = _price(spent, prices) if known else None
    return {
        "pairs": pairs,
        "kept_samples": kept,
        **{key: value / pairs if known else None for key, value in spent.items()},
        "price": None if price is None else price / pairs,
        "folders": folders,
    }


def _times(row: Mapping[str, Any] | None, key: str, factor: float) -> float | None:
    return None if row is None or row.get(key) is None else float(row[key]) * factor


def _ratio(taken: float | None, said: float | None) -> float | None:
    return None if taken is None or not said else taken / said


def _price(taken: Mapping[str, float | None], prices: Mapping[str, float]) -> float | None:
    """Money for seconds of cores and of GPUs; None without prices."""
    if not prices:
        return None
    return money((taken.get("cpu_seconds") or 0.0, taken.get("gpu_seconds") or 0.0), prices)
