"""The tables of an analysis: for its page, and as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.analysis.paper_tables import escaped
from benchmark.votes.ballots import MAJORITY
from benchmark.votes.export import csv_text

NOTHING = "not enough"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        name: of its files; title: what it shows.
        heads: of its columns; rows: cells, the first of which names the row.
        note: what a reader must know to read it.
    """

    name: str
    title: str
    heads: list[str]
    rows: list[list[str]]
    note: str = ""

    def csv(self) -> str:
        """Heads and rows."""
        return csv_text(self.heads, self.rows)

    def markdown(self) -> str:
        """A table with its title above it and its note below."""
        lines = [self.heads, ["---", *("---:" for _ in self.heads[1:])], *self.rows]
        body = "\n".join(
            "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
        )
        return f"**{self.title}**\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")

    def latex(self) -> str:
        """A booktabs table; the note is part of its caption."""
        caption = ". ".join(escaped(text.rstrip(".")) for text in (self.title, self.note) if text)
        lines = [
            r"\begin{table}",
            rf"\caption{{{caption}.}}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.heads) - 1)}}}",
            r"\toprule",
            *(" & ".join(map(escaped, line)) + r" \\" for line in [self.heads]),
            r"\midrule",
            *(" & ".join(map(escaped, row)) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def titles(analysis: Mapping[str, Any]) -> dict[str, str]:
    """What criteria are called."""
    return {q["id"]: q["title"] for q in analysis["study"]["questions"]} | {MAJORITY: "Majority of criteria"}


def strength_table(analysis: Mapping[str, Any], results: Mapping[str, Any], criterion: str) -> Table:
    """The ranking by one criterion."""
    found = results["strengths"][criterion]
    rows = []
    for method in [*found["order"], *(m for m in found["methods"] if m not in found["order"])]:
        of = found["methods"][method]
        if of is None:
            rows.append([method, "", NOTHING, NOTHING, "", ""])
            continue
        rank = ends(of["rank_low"], of["rank_high"], 0)
        rows.append(
            [
                method,
                f"{of['rank']} {rank}".strip(),
                f"{of['log_odds']:+z.2f} {ends(of['low'], of['high'], 2, sign=True)}".strip(),
                f"{percent(of['win'])} {ends(of['win_low'], of['win_high'], 0, 100)}".strip(),
                found["letters"][method],
                str(of["votes"]),
            ]
        )
    note = "Two methods that share a letter cannot be told apart (Holm, 5 %). Brackets: 95 % intervals"
    if found["why_not"]:
        note = found["why_not"][0].upper() + found["why_not"][1:]
    heads = ["method", "rank", "log-odds", "preferred to the mean, %", "groups", "votes"]
    return Table(f"strengths_{criterion}", titles(analysis)[criterion], heads, rows, note)


def pair_table(analysis: Mapping[str, Any], results: Mapping[str, Any], criterion: str) -> Table:
    """Every two methods, and each against all others, by one criterion."""
    rows, center = [], analysis["study"]["center"]
    for of in [*results["preferences"][criterion]["pairs"], *results["preferences"][criterion]["overall"]]:
        name = f"{of['first']} : {of['second'] or 'all others'}"
        if of["net"]["n"] == 0 and center is not None and center not in (of["first"], of["second"]):
            continue  # a star never shows two rivals
        if of["net"]["n"] == 0:
            rows.append([name, "0", *[NOTHING] * 4, ""])
            continue
        shares = [share(of[outcome]) for outcome in ("win", "tie", "loss")]
        p = of["net"]["p"] if of["second"] is None else of["corrected"]
        net = (
            f"{100 * of['net']['value']:+z.0f} {ends(of['net']['low'], of['net']['high'], 0, 100, sign=True)}"
        )
        rows.append([name, str(of["net"]["n"]), *shares, net.strip(), p_value(p)])
    heads = ["first : second", "votes", "first, %", "same, %", "second, %", "net, %", "p"]
    note = (
        "net: share of the first less that of the second; p after Holm's correction, but against all others"
    )
    return Table(f"pairs_{criterion}", titles(analysis)[criterion], heads, rows, note)


def majority_table(analysis: Mapping[str, Any], results: Mapping[str, Any], reading: str) -> Table:
    """Comparisons by a reading of the paper's majority rule."""
    rows = [
        [
            f"{of['first']} : {of['second']}",
            str(of["comparisons"]),
            *(share(of[outcome]) for outcome in ("win", "tie", "loss")),
        ]
        for of in results["majority"][reading]
    ]
    what = analysis["readings"][reading]
    note = "more than half of all answers, `about the same` being an answer; else a tie"
    heads = ["first : second", "comparisons", "first, %", "same, %", "second, %"]
    return Table(f"majority_{reading}", what[0].upper() + what[1:], heads, rows, note)


def agreement_table(analysis: Mapping[str, Any], results: Mapping[str, Any]) -> Table:
    """Agreement among raters and with themselves, and the share of the left, by criterion."""
    rows = []
    for criterion, of in results["agreement"].items():
        own, left = results["self_agreement"][criterion], results["left"][criterion]
        alphas = [of[level] for level in ("nominal", "ordinal")]
        cells = [
            NOTHING if a["value"] is None else f"{a['value']:z.2f} {ends(a['low'], a['high'], 2)}".strip()
            for a in alphas
        ]
        cells += [
            f"{one} (n = {of['n']})" if of["n"] else one
            for of, one in ((own, share(own)), (left, share(left)))
        ]
        rows.append([titles(analysis)[criterion], *cells])
    heads = ["criterion", "alpha, nominal", "alpha, ordinal", "given again, %", "left, %"]
    note = (
        "alpha: Krippendorff's, 0 as by chance, 1 full. Given again: answers that a rater repeated when a "
        "pair came again. Left: of answers that prefer a side; 50 if sides do not matter"
    )
    return Table("agreement", "Agreement", heads, rows, note)


def rater_table(analysis: Mapping[str, Any]) -> Table:
    """What the exclusion rule looks at."""
    rows = []
    for of in analysis["raters"]:
        cells = [of["rater"], str(of["votes"])]
        for right, answers in (("gold_right", "gold_answers"), ("repeats_equal", "repeats_answers")):
            cells.append(f"{of[right]} / {of[answers]}" if of[answers] else "none")
        seconds = "none" if of["seconds"] is None else f"{of['seconds']:.1f}"
        rows.append(
            [*cells, seconds, "left out: " + "; ".join(of["reasons"]) if of["reasons"] else "counted"]
        )
    heads = ["rater", "votes", "checks right", "repeats equal", "median s", "result"]
    return Table("raters", "Raters", heads, rows)


def exclusion_table(analysis: Mapping[str, Any]) -> Table:
    """Strengths without and with the raters that the rule leaves out."""
    rows = []
    kept, everyone = (analysis["results"][which]["strengths"] for which in ("included", "all"))
    for criterion, name in titles(analysis).items():
        for method in analysis["study"]["methods"]:
            cells = []
            for of in (kept[criterion]["methods"][method], everyone[criterion]["methods"][method]):
                value = (
                    f"{of['log_odds']:+z.2f} {ends(of['low'], of['high'], 2, sign=True)}" if of else NOTHING
                )
                cells += [value.strip(), str(of["rank"]) if of else ""]
            rows.append([f"{name}: {method}", *cells])
    heads = ["criterion: method", "log-odds without", "rank", "log-odds with", "rank"]
    return Table("exclusions", "Without and with the raters that the rule leaves out", heads, rows)


def power_table(analysis: Mapping[str, Any], results: Mapping[str, Any], criterion: str) -> Table:
    """How many more ratings tell two methods apart."""
    rows = []
    for of in results["power"][criterion]:
        more = "beyond all means" if of["more"] is None else str(of["more"]) if of["more"] else "none"
        net, least = f"{100 * of['net']:+z.0f}", f"{100 * of['least']:.0f}"
        cells = [str(of["ratings"]), net, least, f"{of['design_effect']:.1f}", more]
        rows.append([f"{of['first']} : {of['second']}", *cells])
    heads = ["first : second", "ratings", "net, %", "seen at 80 %", "design effect", "more ratings"]
    note = (
        "more ratings: to see, with a chance of 80 % at 5 %, a net preference as large as the observed one, "
        "which is itself uncertain; raters and videos are taken to grow along"
    )
    return Table(f"power_{criterion}", titles(analysis)[criterion], heads, rows, note)


def metric_tables(analysis: Mapping[str, Any], results: Mapping[str, Any]) -> list[Table]:
    """Metrics against votes, over comparisons and over methods; none without a run."""
    found = results["metrics"]
    if found is None:
        return []
    made = []
    for level, what in (
        ("comparisons", "score differences against votes"),
        ("systems", "mean scores against strengths"),
    ):
        rows = []
        for criterion, metrics in found["agreements"].items():
            for metric, of in metrics.items():
                one = of[level]
                values = [
                    NOTHING
                    if one[name] is None
                    else f"{one[name]:z.2f} {ends(one[low], one[high], 2)}".strip()
                    for name, low, high in (
                        ("pearson", "low", "high"),
                        ("spearman", "spearman_low", "spearman_high"),
                        ("kendall", "kendall_low", "kendall_high"),
                    )
                ]
                rows.append([f"{metric}, {titles(analysis)[criterion]}", str(one["n"]), *values])
        heads = ["metric, criterion", "n", "Pearson", "Spearman", "Kendall"]
        note = (
            "Over so few methods intervals are wide: 0.84 over six has 0.09 to 0.98"
            if level == "systems"
            else ""
        )
        made.append(Table(f"metrics_{level}", what[0].upper() + what[1:], heads, rows, note))
    return made


def all_tables(analysis: Mapping[str, Any]) -> list[Table]:
    """Every table that is written to a file."""
    results = analysis["results"]["included"]
    made = [strength_table(analysis, results, criterion) for criterion in titles(analysis)]
    made += [pair_table(analysis, results, criterion) for criterion in titles(analysis)]
    made += [majority_table(analysis, results, reading) for reading in analysis["readings"]]
    made += [agreement_table(analysis, results), rater_table(analysis)]
    made += [power_table(analysis, results, criterion) for criterion in titles(analysis)]
    if "all" in analysis["results"]:
        made.append(exclusion_table(analysis))
    return [*made, *metric_tables(analysis, results)]


def percent(value: float) -> str:
    """A share without its sign."""
    return f"{100 * value:.0f}"


def share(of: Mapping[str, Any]) -> str:
    """A share in percent with its interval."""
    if of["value"] is None:
        return NOTHING
    return f"{percent(of['value'])} {ends(of['low'], of['high'], 0, 100)}".strip()


def ends(
    low: float | None, high: float | None, decimals: int, scale: float = 1, *, sign: bool = False
) -> str:
    """An interval in brackets; nothing where there is none."""
    if low is None or high is None:
        return ""
    form = f"{'+' if sign else ''}z.{decimals}f"
    return f"[{scale * low:{form}}, {scale * high:{form}}]"


def p_value(p: float | None) -> str:
    """Three decimals."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
