"""The report of a study: one page that can be published, its tables, its figure, and every raw answer.

The page depends on its study alone, so writing it again gives the same bytes. Its content security policy
allows no script and no request.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.report.templating import environment, joined
from benchmark.study.definition import Exclusion, StudyDefinition
from benchmark.study.folder import REPORT
from benchmark.study.records import Vote
from benchmark.votes import tables
from benchmark.votes.ballots import MAJORITY
from benchmark.votes.export import write_votes
from benchmark.votes.figures import bar_groups, html, svg
from benchmark.votes.raters import rule_text
from shards.files import write_bytes, write_json

TEMPLATES = Path(__file__).parent / "templates"
NUMBERS, TABLES = "analysis.json", "tables"
KINDS = ("csv", "md", "tex")


def write_analysis(
    folder: Path,
    definition: StudyDefinition,
    votes: Sequence[Vote],
    analysis: Mapping[str, Any],
    texts: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write all there is to publish, each file atomically; returns their paths, the page first.

    Args:
        folder: of this alone; tables of an analysis before that are no longer made are removed.
        votes: all of them.
        analysis: of `analyse`.
        texts: what raters read beside the questions, by name.
    """
    page = folder / REPORT
    write_bytes(page, report_page(analysis, texts or {}).encode())
    write_json(folder / NUMBERS, analysis)
    paths = [page, folder / NUMBERS, *write_votes(folder, definition, votes)]
    for number, group in enumerate(bar_groups(analysis, analysis["results"]["included"]), 1):
        paths.append(folder / f"figure_{number}.svg")
        write_bytes(paths[-1], svg(analysis["center"], group).encode())
    for table in tables.all_tables(analysis):
        for kind, text in (("csv", table.csv()), ("md", table.markdown()), ("tex", table.latex())):
            paths.append(folder / TABLES / f"{table.name}.{kind}")
            write_bytes(paths[-1], text.encode())
    stale = itertools.chain(folder.glob("figure_*.svg"), *((folder / TABLES).glob(f"*.{k}") for k in KINDS))
    for path in set(stale) - set(paths):
        path.unlink()
    return paths


def report_page(analysis: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The page as HTML."""
    results = analysis["results"]["included"]
    criteria = sorted(tables.titles(analysis), key=lambda criterion: criterion != MAJORITY)
    style = joined("page.css", "report.css") + (TEMPLATES / "study_report.css").read_text("utf-8")
    return (
        environment(TEMPLATES)
        .get_template("study_report.html.j2")
        .render(
            analysis=analysis,
            study=analysis["study"],
            results=results,
            everyone=analysis["results"].get("all"),
            facts=facts(analysis),
            rule=rule_text(Exclusion.model_validate(analysis["study"]["exclusion"])),
            bars=[
                {"title": group.title, "html": html(analysis["center"], group)}
                for group in bar_groups(analysis, results)
            ],
            strengths=[tables.strength_table(analysis, results, criterion) for criterion in criteria],
            pairs=[tables.pair_table(analysis, results, criterion) for criterion in criteria],
            majority=[tables.majority_table(analysis, results, r) for r in analysis["readings"]],
            agreement=tables.agreement_table(analysis, results),
            raters=tables.rater_table(analysis),
            exclusions=tables.exclusion_table(analysis) if "all" in analysis["results"] else None,
            power=[tables.power_table(analysis, results, criterion) for criterion in criteria],
            metrics=tables.metric_tables(analysis, results),
            texts=texts,
            style=style,
            policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
            "form-action 'none'",
        )
    )


def facts(analysis: Mapping[str, Any]) -> dict[str, str]:
    """What the study was, for the head of its page."""
    study, results = analysis["study"], analysis["results"]["included"]
    kinds = analysis["votes"]["by_kind"]
    left_out = f", {len(analysis['left_out'])} of them left out" if analysis["left_out"] else ""
    seconds = results["seconds"]
    made = {
        "raters": f"{len(analysis['raters'])}{left_out}",
        "votes that count": f"{results['votes']} on {results['comparisons']} comparisons",
        "items": f"{results['items']} of {results['source_videos']} source videos",
        "all votes": ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in kinds.items()),
        "design": "star, center " + study["center"] if study["design"] == "star" else study["design"],
        "first and last vote": f"{_time(analysis['first_vote'])} to {_time(analysis['last_vote'])}",
        "closed": _time(analysis["closed"]) if analysis["closed"] else "not yet: results may change",
    }
    if seconds["median"] is not None:
        quartiles = f"quartiles {seconds['lower']:.0f} and {seconds['upper']:.0f}"
        made["time for a pair"] = f"{seconds['median']:.0f} s ({quartiles})"
    return made


def _time(text: str) -> str:
    """A time as `analysis.json` has it, to be read."""
    return text.replace("T", " ") + " UTC"
