"""The paper's Figure 5: how often a method wins, ties and loses against each rival, as stacked bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmark.votes.ballots import MAJORITY
from benchmark.votes.tables import ends, percent, titles

OUTCOMES = ("win", "tie", "loss")
COLOURS = {"win": ("#1f5fbf", "#fff"), "tie": ("#c9ced6", "#1c2024"), "loss": ("#d9822b", "#1c2024")}
NARROW = 0.03  # a share below it has no room for its number
WIDTH, NAME, ROW, BAR = 720, 200, 30, 20  # pixels of the picture


@dataclass(frozen=True)
class Bar:
    """A rival's bar.

    Attributes:
        shares: of wins, ties and losses of the method at the center; sum to 1.
        interval: of the wins, in percent; empty where there is none.
        n: votes, or comparisons.
    """

    rival: str
    shares: tuple[float, float, float]
    interval: str
    n: int


@dataclass(frozen=True)
class Bars:
    """Bars of one criterion or one reading; `unit` is what `n` counts."""

    title: str
    unit: str
    bars: list[Bar]


def bar_groups(analysis: Mapping[str, Any], results: Mapping[str, Any]) -> list[Bars]:
    """Both readings of the majority rule, then each criterion; rivals in the definition's order."""
    center = analysis["center"]
    made = []
    for reading, what in analysis["readings"].items():
        title = f"Majority: {what}"
        bars = _bars(center, results["majority"][reading], "comparisons")
        made.append(Bars(title, "comparisons", bars))
    for criterion, title in titles(analysis).items():
        if criterion != MAJORITY:
            made.append(Bars(title, "votes", _bars(center, results["preferences"][criterion]["pairs"], None)))
    return [group for group in made if group.bars]


def _bars(center: str, pairs: list[dict[str, Any]], count: str | None) -> list[Bar]:
    bars = []
    for of in pairs:
        if center not in (of["first"], of["second"]):
            continue
        n = of[count] if count else of["net"]["n"]
        if n:
            outcomes = [of[name] for name in (OUTCOMES if of["first"] == center else OUTCOMES[::-1])]
            rival = of["second"] if of["first"] == center else of["first"]
            win, tie, loss = (outcome["value"] for outcome in outcomes)
            interval = ends(outcomes[0]["low"], outcomes[0]["high"], 0, 100)
            bars.append(Bar(rival, (win, tie, loss), interval, n))
    return bars


def html(center: str, group: Bars) -> str:
    """Bars that wrap their names and grow with the page."""
    parts = [f'<div class="stacks" role="group" aria-label="{escape(group.title)}">']
    for bar in group.bars:
        spoken = ", ".join(f"{name} {percent(s)} %" for name, s in zip(OUTCOMES, bar.shares, strict=True))
        label = f"{center} against {bar.rival}: {spoken}; {bar.n} {group.unit}"
        parts.append(f'<div class="name">{escape(bar.rival)}</div>')
        parts.append(f'<div class="stack" role="img" aria-label="{escape(label)}" title="{escape(label)}">')
        for name, share in zip(OUTCOMES, bar.shares, strict=True):
            if share > 0:
                shown = percent(share) if share >= NARROW else ""
                parts.append(f'<span class="{name}" style="flex-grow:{share:.4f}">{shown}</span>')
        note = f"{bar.interval} n = {bar.n}".strip()
        parts.append(f'</div><div class="of">{escape(note)}</div>')
    return "".join(parts) + "</div>"


def svg(center: str, group: Bars) -> str:
    """The same as a picture of its own, for a paper: percent are printed, colours fixed."""
    height = 58 + ROW * len(group.bars)
    inner = WIDTH - NAME - 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="0" y="16" font-weight="bold">{escape(center)}: {escape(group.title)}</text>',
    ]
    for n, (name, word) in enumerate(zip(OUTCOMES, ("win", "tie", "lose"), strict=True)):
        parts.append(f'<rect x="{NAME + 70 * n}" y="26" width="12" height="12" fill="{COLOURS[name][0]}"/>')
        parts.append(f'<text x="{NAME + 70 * n + 18}" y="37">{word}</text>')
    for n, bar in enumerate(group.bars):
        top, x = 48 + ROW * n, float(NAME)
        parts.append(
            f'<text x="{NAME - 10}" y="{top + 15}" text-anchor="end">{escape(bar.rival[:28])}</text>'
        )
        for name, share in zip(OUTCOMES, bar.shares, strict=True):
            fill, ink = COLOURS[name]
            parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{inner * share:.1f}" height="{BAR}" fill="{fill}"/>'
            )
            if share >= NARROW:
                middle = x + inner * share / 2
                parts.append(
                    f'<text x="{middle:.1f}" y="{top + 15}" text-anchor="middle" fill="{ink}">'
                    f"{percent(share)}%</text>"
                )
            x += inner * share
        parts.append(f'<text x="{WIDTH}" y="{top + 15}" text-anchor="end" fill="#60666d">n={bar.n}</text>')
    return "".join(parts) + "</svg>\n"
