"""What a calibration leaves: rules.yaml, calibration.json, a plot of every score, and printed tables."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.table import Table

from curation.quality.selection.calibration import Calibration, Labelled, SignalReport
from curation.quality.selection.rules import Rule, Rules
from shards.files import write_bytes, write_json
from shards.terminal import print_table

RULES, REPORT, PLOT = "rules.yaml", "calibration.json", "calibration.svg"
BINS = 24
ROW, LEFT, WIDTH = 64, 190, 760  # pixels of the plot: height of a score, room for names, whole width
CLEAN, BAD = "#1f5fbf", "#d9822b"


def write_calibration(out: Path, calibration: Calibration, labelled: Labelled) -> None:
    """Write the rules, the report and the plot into a folder."""
    write_json(out / REPORT, calibration.model_dump(mode="json"))
    write_bytes(out / PLOT, plot(calibration, labelled).encode())
    write_bytes(out / RULES, rules_yaml(calibration).encode())


def rules_yaml(calibration: Calibration) -> str:
    """The proposed rules as a file for `python -m curation filter`, with what is expected of them."""
    counts, outcome = calibration.labelled, calibration.outcome
    lines = [
        f"# Proposed by `python -m curation calibrate` for {calibration.target}",
        f"# from {counts['clean']} clean and {counts['bad']} bad samples of {calibration.source}.",
        "# On samples that had no part in it (cross-validation, intervals of 95 %):",
        f"# clean ones kept {outcome.recall.words()}, bad ones dropped {outcome.caught.words()},",
        f"# of the kept ones clean {outcome.precision.words()}. It keeps {100 * calibration.retained:.1f} %.",
    ]
    value = calibration.rules.model_dump(exclude_defaults=True)
    body = yaml.safe_dump(value, sort_keys=True, allow_unicode=True)
    return "\n".join(lines) + "\n" + body


def print_calibration(calibration: Calibration) -> None:
    """Print the report to stdout."""
    labelled = ", ".join(f"{count:,} {name}" for name, count in calibration.labelled.items() if count)
    print(f"labelled: {labelled}")
    for fault, count in calibration.faults.items():
        print(f"{count} lines are no label: {fault}")
    for pair in calibration.agreement:
        kappa = "no kappa" if pair["kappa"] is None else f"Cohen's kappa {pair['kappa']:.2f}"
        print(
            f"{pair['first']} and {pair['second']}: {pair['samples']} samples, "
            f"{100 * pair['share']:.0f} % alike, {kappa}"
        )
    table = Table(title="Each score by itself (cross-validated, 95 % intervals)", title_justify="left")
    for name in ("score", "AUC", "rule", "precision", "recall", "bad dropped", "retained"):
        table.add_column(name, justify="left" if name in ("score", "rule") else "right", no_wrap=True)
    blind = []
    for name, one in calibration.signals.items():
        if one.outcome is None:
            blind.append((name, one))
            continue
        own = one.rules.rules.get(name)
        words = own.words("").strip() if own else f"of {len(one.rules.tasks)} tasks"
        outcome = (one.outcome.precision, one.outcome.recall, one.outcome.caught)
        kept = f"{100 * (one.retained or 0):.0f} %"
        mark = "*" * one.chosen
        table.add_row(name + mark, _number(one.auc), words, *(share.words() for share in outcome), kept)
    print_table(table)
    for name, one in blind:
        print(f"{name}: does not tell clean from bad ({one.samples} measured, AUC {_number(one.auc)})")
    if calibration.caught_by_reason:
        table = Table(title="Bad samples that the proposed rules drop", title_justify="left")
        table.add_column("reason")
        for name in ("labelled", "dropped"):
            table.add_column(name, justify="right")
        for reason, share in calibration.caught_by_reason.items():
            table.add_row(reason, str(share.samples), share.words())
        print_table(table)
    if calibration.unfiltered:
        print(f"no rules, too few are labelled: {', '.join(calibration.unfiltered)}")
    outcome_ = calibration.outcome
    print(
        f"proposed rules, {calibration.target}{'' if calibration.reached else ' (NOT reached)'}: "
        f"{len(calibration.rules.scores)} scores (*), clean kept {outcome_.recall.words()}, "
        f"bad dropped {outcome_.caught.words()}, of the kept clean {outcome_.precision.words()}, "
        f"retained {100 * calibration.retained:.1f} % of all"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def plot(calibration: Calibration, labelled: Labelled) -> str:
    """An SVG with a row per score: histograms of clean and bad samples, and the rule as a line.

    Written by hand: drawing needs no more than rectangles, and matplotlib is no dependency of curation.
    """
    shown = {name: one for name, one in calibration.signals.items() if one.samples}
    height = 60 + ROW * len(shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<rect x="{LEFT}" y="14" width="12" height="12" fill="{CLEAN}" fill-opacity=".55"/>',
        f'<text x="{LEFT + 18}" y="24">clean ({calibration.labelled["clean"]})</text>',
        f'<rect x="{LEFT + 110}" y="14" width="12" height="12" fill="{BAD}" fill-opacity=".55"/>',
        f'<text x="{LEFT + 128}" y="24">bad ({calibration.labelled["bad"]})</text>',
        f'<text x="{LEFT + 210}" y="24" fill="#60666d">dashed: proposed; dotted: by itself</text>',
    ]
    for number, (name, one) in enumerate(shown.items()):
        drawn = [(rule, "5 3") for rule in _of_score(calibration.rules, name)]
        drawn = drawn or [(rule, "1 3") for rule in _of_score(one.rules, name)]
        values = labelled.values[name].astype(np.float64)
        parts += _row(40 + ROW * number, name, one, values, labelled.clean)
        low, high = _range(values)
        for rule, dash in drawn:
            for bound in (rule.min, rule.max):
                if bound is not None:
                    x = LEFT + (WIDTH - LEFT - 20) * float(np.clip((bound - low) / (high - low), 0, 1))
                    y = 40 + ROW * number
                    parts.append(
                        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + ROW - 22}" stroke="#111" '
                        f'stroke-width="1.5" stroke-dasharray="{dash}"/>'
                    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _of_score(rules: Rules, name: str) -> list[Rule]:
    """All rules of a score, the common one and those of tasks."""
    found = [rules.rules.get(name), *(own.get(name) for own in rules.tasks.values())]
    return [rule for rule in found if rule is not None]


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """What the axis of a score shows: all but the outermost hundredths."""
    low, high = (float(q) for q in np.nanquantile(values, [0.01, 0.99]))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _row(
    top: int, name: str, one: SignalReport, values: NDArray[np.float64], clean: NDArray[np.bool_]
) -> list[str]:
    low, high = _range(values)
    base, tall, wide = top + ROW - 22, ROW - 28, WIDTH - LEFT - 20
    shown = name if len(name) <= 26 else name[:25] + "…"
    parts = [
        f'<text x="{LEFT - 10}" y="{base - 18}" text-anchor="end">{escape(shown)}</text>',
        f'<text x="{LEFT - 10}" y="{base - 3}" text-anchor="end" fill="#60666d">'
        f"AUC {_number(one.auc)}</text>",
        f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{base}" y2="{base}" stroke="#9aa2ab"/>',
        f'<text x="{LEFT}" y="{base + 13}" fill="#60666d" font-size="11">{low:.4g}</text>',
        f'<text x="{LEFT + wide}" y="{base + 13}" text-anchor="end" fill="#60666d" font-size="11">'
        f"{high:.4g}</text>",
    ]
    for which, colour in ((clean, CLEAN), (~clean, BAD)):
        some = np.clip(values[which & np.isfinite(values)], low, high)
        counts = np.histogram(some, bins=BINS, range=(low, high))[0]
        most = max(1, int(counts.max()))
        for at, count in enumerate(counts.tolist()):
            if count:
                bar = tall * count / most
                parts.append(
                    f'<rect x="{LEFT + wide * at / BINS:.1f}" y="{base - bar:.1f}" '
                    f'width="{wide / BINS - 1:.1f}" height="{bar:.1f}" fill="{colour}" fill-opacity=".55"/>'
                )
    return parts
