"""The page of a run: one HTML file that works from a file:// address, without scripts or a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmark.core.item import BenchmarkError
from benchmark.report.templating import environment
from benchmark.report.training_curves import read_curves, svg
from editverse.speedrun.report.data import Facts
from editverse.speedrun.report.pictures import (
    Picture,
    Strip,
    edits,
    pair_pictures,
    refused_by_curation,
    refused_by_gates,
    why_none,
)
from editverse.speedrun.report.scores import CURVE, SHORT_ID
from editverse.speedrun.report.words import duration, number, size, words_of
from shards.errors import EditVerseError
from shards.files import write_bytes

TEMPLATES = Path(__file__).parent / "templates"
CURVES = ("loss", "heldout/loss", "lr", "grad_norm")  # shown, in this order, where a training has them
REASONS = 12  # of a folder's rejections that are listed; the others are one line
VERDICTS = {"better": "better", "worse": "worse", "undecided": "not told apart", "unknown": "too few clips"}


def write_page(path: Path, run: Path, facts: Facts) -> None:
    """Write the page, atomically.

    Args:
        path: the HTML file.
        run: the run's folder, where the pictures, curves and edits are read.
        facts: of `editverse.speedrun.report.command.gather`.
    """
    result, costs = facts["result"], facts["costs"]
    page = (
        environment(TEMPLATES)
        .get_template("speedrun.html.j2")
        .render(
            head=_head(facts),
            result=result,
            costs=costs,
            made=facts["made"],
            stages=_stages(facts),
            sources=_sources(run, result),
            gates=_gates(run, result),
            trainings=_trainings(run, result),
            suites=_suites(run, result),
            following=following(result),
            words_of=words_of,
            number=number,
            duration=duration,
            size=size,
            short=lambda text: str(text)[:SHORT_ID],
            verdicts=VERDICTS,
        )
    )
    write_bytes(path, page.encode())


def _head(facts: Facts) -> dict[str, str]:
    """What the run is, in short."""
    result, costs, made = facts["result"], facts["costs"], facts["made"]
    total, each = costs["total"], costs["per_pair"]
    base = next((one["init_from"] for one in result["training"]), "") or "-"
    head = {"size": str(result["size"] or "-"), "base": base}
    if made.get("machine"):
        head["machine"] = str(made["machine"])
    head["GPUs"] = str(made.get("gpus") if made.get("gpus") is not None else "-")
    head["took"] = duration(total["took"]["seconds"])
    head["the bill said"] = duration(total["billed"]["seconds"] or None)
    if each["pairs"]:
        head["accepted pairs"] = f"{each['pairs']:,}"
    if each["cpu_seconds"] is not None:
        head["cost of one"] = f"{each['cpu_seconds']:.3g} core-s, {each['gpu_seconds']:.3g} GPU-s"
    if each["price"] is not None:
        head["price of one"] = f"{each['price']:.4g}"
    head["commercial use of the data"] = result["commercial_use"]
    code = made.get("code") or {}
    if code.get("commit"):
        head["code"] = f"{code['commit'][:SHORT_ID]}{' with changes' if code.get('modified') else ''}"
    return head


def _stages(facts: Facts) -> list[dict[str, Any]]:
    """The table of stages: what came out, what it took, what the bill said."""
    lines = {one["stage"]: one["line"] for one in facts["result"]["stages"]}
    rows = []
    for cost in facts["costs"]["stages"]:
        took, billed, ratio = cost["took"], cost["billed"], cost["ratio"]
        rows.append(
            {
                "stage": cost["stage"],
                "line": lines.get(cost["stage"], "this page" if cost["stage"] == "report" else "not done"),
                "took": duration(took["seconds"]),
                "billed": duration(billed["seconds"]),
                "ratio": "-" if ratio["seconds"] is None else f"{ratio['seconds']:.2f}",
                "cores": duration(took["cpu_seconds"]),
                "gpus": duration(took["gpu_seconds"]),
                "disk": size(took["disk_bytes"]),
                "basis": cost["basis"] or "-",
                "attempts": cost["attempts"] or "-",
                "price": cost["price"],
            }
        )
    return rows


def _sources(run: Path, result: Facts) -> list[dict[str, Any]]:
    """Each folder of pairs, curated or imported: counts, reasons, pictures of pairs and of refused ones."""
    found = []
    for facts in result["curation"]:
        refused = facts["refused_clips"] | facts["rejected"]
        counts = [
            ("clips", facts["clips"]),
            ("candidates", facts["candidates"]),
            ("accepted pairs", facts["accepted"]),
            ("samples of them", facts["samples"]),
        ]
        found.append(_source(run, facts, f"curated: {facts['task']}", counts, refused))
        found[-1]["quarantined"] = facts["quarantined"][:REASONS]
        found[-1]["refused_pictures"], found[-1]["refused_why"] = _tried(
            run, partial(refused_by_curation, run / facts["folder"])
        )
        page = f"{facts['folder']}/gallery.html"
        found[-1]["link"] = page if (run / page).is_file() else ""
    for facts in result["imports"]:
        counts = [("rows", facts["rows"]), ("accepted pairs", facts["accepted"])]
        counts += [(f"licence {name}", count) for name, count in (facts["licenses"] or {}).items()]
        found.append(_source(run, facts, f"imported: {facts['format']}", counts, facts["refused"] or {}))
    return found


def _source(
    run: Path, facts: Facts, what: str, counts: list[tuple[str, Any]], refused: dict[str, int]
) -> dict[str, Any]:
    ordered = sorted(refused.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[REASONS:])
    pictures, why = _tried(run, partial(pair_pictures, run / facts["folder"]))
    return {
        "folder": facts["folder"],
        "what": what,
        "counts": [(name, number(count)) for name, count in counts],
        "refused": ordered[:REASONS] + ([("other reasons", rest)] if rest else []),
        "quarantined": [],
        "pictures": pictures,
        "why": why,
        "refused_pictures": [],
        "refused_why": "",
        "link": "",
    }


def _gates(run: Path, result: Facts) -> list[dict[str, Any]]:
    """Each filtered folder: what its rules kept, and pictures of what they dropped."""
    found = []
    for facts in result["gates"]:
        pictures, why = _tried(run, partial(refused_by_gates, run / facts["folder"], run / facts["source"]))
        tasks = [
            (task, share["candidates"], share["retained"])
            for tasks in facts["tasks"].values()
            for task, share in tasks.items()
        ]
        found.append({"facts": facts, "tasks": tasks, "pictures": pictures, "why": why})
    return found


def _tried(run: Path, make: Callable[[], list[Picture]]) -> tuple[list[Picture], str]:
    """Pictures, and why there are none where their files are gone or damaged: the rest of the page stands."""
    try:
        return make(), ""
    except (EditVerseError, OSError) as error:
        return [], why_none(error, run)


def _trainings(run: Path, result: Facts) -> list[dict[str, Any]]:
    """Each training: what it is, and its curves."""
    found = []
    for facts in result["training"]:
        why, curves = "", []
        try:
            known = {curve.name: curve for curve in read_curves(run / facts["folder"] / CURVE)}
            curves = [known[name] for name in CURVES if name in known]
        except BenchmarkError as error:
            why = why_none(error, run)
        drawn = [
            {"name": curve.name, "svg": svg(curve), "points": len(curve.values), "window": curve.window}
            for curve in curves
        ]
        found.append({"facts": facts, "curves": drawn, "why": why})
    return found


def _suites(run: Path, result: Facts) -> list[dict[str, Any]]:
    """Each suite: tables of means, of differences, and edits side by side."""
    found = []
    for suite in result["scores"]:
        strips: list[Strip] = []
        why = ""
        try:
            strips = edits(run, suite)
        except (EditVerseError, OSError) as error:
            why = why_none(error, run)
        page = f"{suite['folder']}/report.html"
        link = page if (run / page).is_file() else ""
        found.append({"facts": suite, "strips": strips, "why": why, "link": link})
    return found


def following(result: Facts) -> list[tuple[str, str]]:
    """(what for, command) to go on with, typed in the run's folder."""
    folders = [one["folder"] for one in result["training"]]
    if not folders:
        return []
    last = folders[-1]
    data = [one["folder"] for one in (*result["curation"], *result["imports"])]
    return [
        (
            "Edit a video",
            f"editverse edit --checkpoint {last} --video1 in.mp4 "
            '--text "<video1> Remove the ball." --out out.mp4',
        ),
        ("Edit in a browser", f"editverse app --checkpoint {last}"),
        ("Edit for other programs", f"editverse serve --checkpoint {last}"),
        ("Publish", f"python -m model push --checkpoint {last} --repo owner/name --about card.md"),
        ("Look through the samples", f"editverse shards browse {' '.join(data)}"),
    ]
