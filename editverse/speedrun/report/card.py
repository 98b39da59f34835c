"""The sections of a model's card that a speedrun fills: data, licences, what was left out, bill, scores."""

from __future__ import annotations

from typing import Any

from editverse.speedrun.report.data import Facts
from editverse.speedrun.report.words import duration, number, words_of
from model.inference.model_card import table

MOST_METRICS = 8  # columns of the table of scores


def render_card(facts: Facts) -> str:
    """Markdown with level-2 headings, for `python -m model push --about`."""
    sections = (
        ("The run", _run(facts)),
        ("Data sets", _data(facts["result"])),
        ("Scores of its stages", _scores(facts["result"])),
        ("What it took", _costs(facts["costs"])),
    )
    return "\n".join(f"## {heading}\n\n{text.strip()}\n" for heading, text in sections if text.strip())


def _run(facts: Facts) -> str:
    result, made = facts["result"], facts["made"]
    machine = "" if made.get("gpus") is None else f" on {made['gpus']} GPU(s)" if made["gpus"] else " on CPUs"
    stages = []
    for one in result["training"]:
        start = one["init_from"] or "random weights"
        stages.append(f"{one['folder']} ({one['steps'] or one['planned_steps']} steps from {start})")
    return f"Made by the speedrun of size {result['size']}{machine}: {', then '.join(stages)}.\n"


def _data(result: Facts) -> str:
    made = [(one, f"curated, {one['task']}", one["candidates"]) for one in result["curation"]]
    made += [(one, f"imported, {one['format']}", one["rows"]) for one in result["imports"]]
    rows = [(one["folder"], how, before, one["accepted"]) for one, how, before in made]
    text = table(("data", "from", "candidates", "accepted pairs"), rows) if rows else ""
    for gate in result["gates"]:
        total = gate["total"]
        kept = f"{total['retained']} of {total['candidates']} samples"
        text += f"\nOf {gate['source']} the gates kept {kept}.\n"
    ledger = result["ledger"]
    if ledger:
        licences = [(name, count) for name, count in ledger["clip_licenses"].items()]
        text += "\n" + table(("licence of the clips", "samples"), licences)
        models = [(one["model"], one["license"], one["samples"]) for one in ledger["models"]]
        text += "\n" + table(("model or program", "licence", "samples"), models)
        uses = [(one["use"], one["reason"] or "-", one["samples"]) for one in ledger["commercial_use"]]
        text += "\nCommercial use of the data, read conservatively:\n\n"
        text += table(("use", "why", "samples"), uses)
    if result["left_out"]:
        out = [(one["name"], one["license"], one["reason"]) for one in result["left_out"]]
        text += "\nLeft out:\n\n" + table(("data set", "licence", "why"), out)
    return text


def _scores(result: Facts) -> str:
    text = ""
    for suite in result["scores"]:
        metrics = list(suite["metrics"])[:MOST_METRICS]
        rows = [
            (label, *(_mean(suite["groups"]["all"].get(row, {}).get(name)) for name in metrics))
            for row, label in suite["rows"].items()
        ]
        text += f"\n{suite['folder']}, {suite['items']} held-out items:\n\n"
        text += table(("", *(words_of(name) for name in metrics)), rows)
    if result["findings"]:
        text += "\n" + "".join(f"- {one['text']}\n" for one in result["findings"])
    return text


def _mean(mean: dict[str, Any] | None) -> str:
    if not mean or mean.get("value") is None:
        return "-"
    ends = "" if mean.get("low") is None else f" [{number(mean['low'])}, {number(mean['high'])}]"
    return f"{number(mean['value'])}{ends}"


def _costs(costs: Facts) -> str:
    rows = [
        (
            stage["stage"],
            duration(stage["took"]["seconds"]),
            duration(stage["billed"]["seconds"]),
            "-" if stage["ratio"]["seconds"] is None else f"{stage['ratio']['seconds']:.2f}",
            stage["basis"] or "-",
        )
        for stage in costs["stages"]
    ]
    return table(("stage", "took", "bill", "ratio", "bill is"), rows) if rows else ""
