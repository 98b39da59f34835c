"""`python -m benchmark study analyse|export`: what a study's votes say, and the votes themselves.

The study's modules are imported late: they need SQLAlchemy, which other commands do without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Column, Table

from benchmark.analysis.compare import read_items, read_metric_facts
from benchmark.core.item import BenchmarkError
from shards.files import exclusive, write_json
from shards.terminal import print_table


def analyse(
    study: str,
    out: str | None = None,
    center: str | None = None,
    run: str | None = None,
    seed: int = 0,
    resamples: int = 400,
) -> None:
    """Analyse a study's votes: preferences, a ranking with intervals, agreement; a report to publish.

    Args:
        study: the study's folder
        out: folder for report.html, analysis.json, tables, figures and raw votes; analysis in the study's
            folder if not given
        center: method that the figure compares with each other one; the definition's center, or its first
            method, if not given
        run: output folder of a benchmark run whose metrics are correlated with the votes; its rows are named
            as the study's methods
        seed: of the bootstraps
        resamples: of each bootstrap
    """
    from benchmark.study.folder import ANALYSIS, open_study  # see above
    from benchmark.study.texts import study_texts  # see above
    from benchmark.votes.report import write_analysis  # see above
    from benchmark.votes.summary import RunScores, analyse  # see above

    if resamples < 50:
        raise BenchmarkError(f"--resamples {resamples}: needs at least 50")
    store, place = open_study(Path(study)), Path(out) if out is not None else Path(study) / ANALYSIS
    scores = None
    if run is not None:
        facts = read_metric_facts(Path(run))
        scores = RunScores(read_items(Path(run)), {m: f.higher_is_better for m, f in facts.items()}, run)
    votes = store.votes()
    found = analyse(
        store.definition,
        votes,
        center=center,
        run=scores,
        closed=store.closed,
        seed=seed,
        resamples=resamples,
    )
    texts = study_texts(Path(study), store.definition.language)
    with exclusive(place, "--out"):
        paths = write_analysis(place, store.definition, votes, found, texts)
    _tell(found)
    print(f"report: {paths[0].resolve()}")


def export(
    study: str,
    out: str | None = None,
    raters: Literal["included", "all"] = "included",
    rater: str | None = None,
) -> None:
    """Write every raw answer, and labels that `calibrate` and `correlate` read; or one rater's data.

    Args:
        study: the study's folder
        out: folder for votes.csv, votes.json and labels.csv; export in the study's folder if not given
        raters: whose votes become labels: all, or included: without those whom the study's rule leaves out
        rater: only rater.json, what is stored of one rater, by their label; it can be given to them: it does
            not say which method was which
    """
    from benchmark.study.folder import open_study  # see above
    from benchmark.votes.export import write_labels, write_votes  # see above
    from benchmark.votes.raters import rater_checks  # see above

    store, place = open_study(Path(study)), Path(out) if out is not None else Path(study) / "export"
    votes = store.votes()
    with exclusive(place, "--out"):
        if rater is not None:
            from benchmark.study.admin import personal_data  # FastAPI, which only this needs

            known = {of.label: of.id for of in store.raters()}
            if rater not in known:
                raise BenchmarkError(f"--rater {rater}: the study has no such rater")
            write_json(place / "rater.json", personal_data(store, known[rater]))
            print(place / "rater.json")
            return
        checks = rater_checks(store.definition, votes) if raters == "included" else []
        left_out = {check.label for check in checks if check.reasons}
        kept = [vote for vote in votes if vote.rater not in left_out]
        count = write_labels(place / "labels.csv", kept)
        for path in write_votes(place, store.definition, votes):
            print(path)
    print(f"{place / 'labels.csv'}: {count} labels of {len({v.rater for v in kept})} raters")


def _tell(found: dict[str, Any]) -> None:
    """The ranking by the majority of criteria, and whom the rule leaves out."""
    from benchmark.votes import tables  # see above

    results = found["results"]["included"]
    shown = tables.strength_table(found, results, tables.MAJORITY)
    table = Table(
        Column(shown.heads[0], no_wrap=True), title=escape(f"{found['study']['name']}: {shown.title}")
    )
    for head in shown.heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    for row in shown.rows:
        table.add_row(*map(escape, row))
    print_table(table)
    print(f"{results['votes']} votes on pairs by {results['raters']} raters. {shown.note}.")
    for rater in found["raters"]:
        if rater["reasons"]:
            print(f"left out: {rater['rater']}: {'; '.join(rater['reasons'])}")
