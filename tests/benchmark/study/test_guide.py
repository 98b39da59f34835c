"""docs/study.md from its definition to its table, as it is written there, with 20 pairs in place of 1,000."""

from __future__ import annotations

import random
import re
import shlex
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmark.__main__ import main
from benchmark.study.database import ComparisonRow, TrialRow
from benchmark.study.folder import open_study
from benchmark.study.records import Vote
from tests.benchmark import synthetic
from tests.benchmark.study.visitors import Server, Visitor
from tests.model.page_server import free_port

GUIDE = Path(__file__).parents[3] / "docs" / "study.md"
FEWER = {"pairs: 1000": "pairs: 20", "raters: 20": "raters: 4", "--count 20": "--count 4"} | {
    "min_seconds: 3": "min_seconds: 0"  # nobody looks for long here
}
STUDY = Path("runs/mystudy")  # as the guide has it


def blocks(language: str) -> list[str]:
    """The guide's blocks in a language, its numbers made fewer."""
    text = GUIDE.read_text()
    for many, few in FEWER.items():
        assert many in text
        text = text.replace(many, few)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def checks() -> dict[str, str]:
    """What attention checks should be answered, by trial."""
    with Session(open_study(STUDY).engine) as session:
        query = select(TrialRow, ComparisonRow).join(ComparisonRow).where(ComparisonRow.expected.is_not(None))
        return {
            trial.id: "same" if of.expected == "same" else ("right" if trial.flipped else "left")
            for trial, of in session.execute(query)
        }


def vote(links: dict[str, str], port: int) -> int:
    """Send every rater through their list, the last one without looking; returns the number of votes."""
    draw, count, expected = random.Random(0), 0, checks()
    for label, link in links.items():
        looks = label != list(links)[-1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            visitor = Visitor(client, link.rpartition("/")[2])
            visitor.enter()
            while visitor.open():
                side = expected.get(visitor.trial) if looks else None
                answers = {
                    name: side or draw.choice(["left", "right", "same"])
                    for name in ("alignment", "preservation", "aesthetics")
                }
                assert visitor.vote(answers).status_code == 200
                count += 1
    return count


@pytest.mark.slow
def test_the_guide_leads_to_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (definition,) = blocks("yaml")
    Path("study.yaml").write_text(f"{definition}height: 32\n")
    asked = yaml.safe_load(definition)
    synthetic.write_benchmark(Path(asked["data"]), 12, 5, 32)
    for tint, folder in enumerate(asked["methods"].values(), start=1):
        synthetic.write_results(Path(folder), 12, tint / 3, 5, 32)
    Path("password.txt").write_text("correct horse battery\n")
    links: dict[str, str] = {}
    votes: list[Vote] = []
    said: dict[str, str] = {}
    for line in "".join(blocks("bash")).splitlines():
        words = shlex.split(line.replace("rater-07", "rater-03"))
        assert words[:4] == ["python", "-m", "benchmark", "study"]
        words, _, place = (words, "", "") if ">" not in words else (words[:-2], ">", words[-1])
        if words[4] == "serve":
            server = Server(STUDY.absolute(), free_port())
            server.start()
            try:
                count = vote(links, server.port)
            finally:
                server.stop()
            votes = open_study(STUDY).votes()
            assert count == len(votes) == sum(open_study(STUDY).totals.values())
            continue
        monkeypatch.setattr(sys, "argv", ["benchmark", *words[3:]])
        assert not main(), capsys.readouterr().err
        said[words[4]] = capsys.readouterr().out
        if place:
            assert place == "links.csv"
            links = dict(row.split(",") for row in said[words[4]].splitlines()[1:])
            assert len(links) == 4
    assert "20 comparisons of 5 methods on 12 items, each by 3 raters: 60 ratings" in said["create"]
    assert "of 4 seats taken" in said["status"]
    assert "left out: R04: " in said["analyse"]
    tables = [path for path in (STUDY / "analysis" / "tables").iterdir() if path.suffix == ".tex"]
    assert any("first" in table.read_text() for table in tables)
    report = (STUDY / "analysis" / "report.html").read_text()
    assert all(name in report for name in asked["methods"])
    assert (STUDY / "export" / "labels.csv").is_file()
    assert Path("rater-03/rater.json").is_file()
    assert {v.rater for v in open_study(STUDY).votes()} == {v.rater for v in votes} - {"rater-03"}
