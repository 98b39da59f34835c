"""A whole study of raters of known taste, from its design through its database to its report."""

from __future__ import annotations

import json
from pathlib import Path

import krippendorff
import numpy as np
import pytest

from benchmark.study.folder import SQLITE, write_settings
from benchmark.votes.ballots import ballots
from tests.benchmark.study.simulated import MET, Taste, simulate

TRUE = dict(zip(MET, (0.9, 0.45, 0.0, -0.45, -0.9), strict=True))
GUESSING = (3, 8, 17)


@pytest.mark.slow
def test_true_strengths_are_recovered_and_who_guesses_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Five methods, forty comparisons of every two by three raters each, twenty raters of whom three guess.
    study = simulate(Taste(TRUE, guessing=GUESSING), pairs=400, raters=20, raters_per_pair=3)
    write_settings(tmp_path, None)
    store = study.store(f"sqlite:///{tmp_path / SQLITE}")
    stored = {(v.rater, v.position): (v.left, v.right, v.answers) for v in store.votes()}
    assert stored == {(v.rater, v.position): (v.left, v.right, v.answers) for v in study.votes()}

    from benchmark.cli.study_analysis import analyse, export  # after the database is there

    analyse(str(tmp_path))
    export(str(tmp_path))
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "analysis" / "analysis.json").read_text())
    assert found["left_out"] == ["R04", "R09", "R18"]
    assert all(f"left out: {name}: " in said for name in found["left_out"])
    results = found["results"]["included"]
    for criterion in ("alignment", "preservation", "aesthetics"):
        strengths = results["strengths"][criterion]
        assert strengths["order"] == list(MET)
        assert strengths["tie"] == pytest.approx(0.6 / 2.6, abs=0.05)
        for method, of in strengths["methods"].items():
            assert of["low"] <= TRUE[method] <= of["high"], (criterion, method)
            assert of["high"] - of["low"] < 0.7
    counted = ballots(study.definition, [v for v in store.votes() if v.seat not in GUESSING])
    raters = np.unique(counted.raters, return_inverse=True)[1]
    for column, criterion in enumerate(("alignment", "preservation", "aesthetics")):
        table = np.full((raters.max() + 1, counted.units().max() + 1), np.nan)
        table[raters, counted.units()] = counted.outcomes[:, column]
        for level in ("nominal", "ordinal"):
            theirs = krippendorff.alpha(table, level_of_measurement=level)
            assert results["agreement"][criterion][level]["value"] == pytest.approx(theirs)
    assert (tmp_path / "export" / "labels.csv").read_text().count("\n") > 2000
    assert "17 raters" in said
