"""`python -m benchmark study ...`: what its commands print, refuse and leave behind."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path

import pytest
import yaml

from benchmark.cli import study as commands
from benchmark.core.item import BenchmarkError
from benchmark.study.admin import check_password
from benchmark.study.definition import StudyDefinition
from benchmark.study.folder import open_study
from benchmark.study.records import VoteRefused
from benchmark.votes.plan import power_lines

BASE = "https://study.example.org"


def vote_all(folder: Path, label: str, token: str) -> int:
    """Answer everything as the side that was seen on the left; returns how many votes that were."""
    store = open_study(folder)
    rater = store.rater_of(token)
    assert rater is not None
    assert rater.label == label
    while (trial := store.next_trial(rater)) is not None:
        store.record(rater, trial.id, {q.id: "left" for q in store.definition.questions}, 4.0)
    return rater.total


def test_create_prints_what_it_asks_of_raters_and_what_it_can_show(
    definition: StudyDefinition, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(definition.model_dump(mode="json")))
    commands.create(str(tmp_path / "study.yaml"), str(tmp_path / "made"))
    printed = capsys.readouterr().out
    assert "12 comparisons of 3 methods on 6 items, each by 2 raters: 24 ratings, 8 for every two" in printed
    assert "3 raters with 12 pairs each (1 for practice, 2 attention checks, 1 shown again)" in printed
    # 12 pairs, each twice 0.6 to 0.9 s and 15 s for the answers
    assert "about 3 minutes" in printed
    assert open_study(tmp_path / "made").definition == definition


def test_the_power_that_is_printed_is_that_of_the_sign_test() -> None:
    """By hand: (1.960 + 0.842)^2 x (1 - 0.2^2) / 0.2^2 = 188.4 with endless raters."""
    (line,) = power_lines(200, 10_000)
    assert "60:40 with a chance of 80% takes 189 ratings" in line
    assert "200 tell 60:40 (" in line


def test_links_are_printed_once_and_each_opens_a_seat(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("Ann\n\n  Bob, jr \n")
    commands.invite(str(study), labels=str(tmp_path / "names.txt"), base_url=f"{BASE}/")
    commands.invite(str(study), count=1, base_url=BASE)
    text = capsys.readouterr().out
    rows = [row for row in csv.reader(io.StringIO(text)) if row != ["label", "link"]]
    assert [label for label, _ in rows] == ["Ann", "Bob, jr", "rater-01"]
    store = open_study(study)
    for label, link in rows:
        assert link.startswith(f"{BASE}/r/")
        rater = store.rater_of(link.removeprefix(f"{BASE}/r/"))
        assert rater is not None
        assert rater.label == label
        token = link.rpartition("/")[2]
        stored = (study / "study.sqlite").read_bytes() + (study / "study.sqlite-wal").read_bytes()
        assert token.encode() not in stored
    with pytest.raises(BenchmarkError, match="1 raters are more than the 0 seats that are free"):
        commands.invite(str(study), count=1, base_url=BASE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ann\nAnn\n", "Ann is there twice"),
        ("\n \n", "holds no label"),
        ("x" * 81, "at most 80 characters"),
        ("one\x1btwo", "is no label"),
        ("a\nb\nc\nd\n", "4 raters are more than the 3 seats"),
    ],
)
def test_labels_that_do_not_do_invite_nobody(text: str, message: str, study: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(BenchmarkError, match=message):
        commands.invite(str(study), labels=str(tmp_path / "names.txt"), base_url=BASE)
    assert open_study(study).raters() == []


def test_status_says_who_has_answered_what_and_closing_ends_it(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.invite(str(study), count=2, base_url=BASE)
    links = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
    total = vote_all(study, links[0][0], links[0][1].rpartition("/")[2])
    commands.status(str(study))
    printed = capsys.readouterr().out
    lines = {line.split()[1]: line.split() for line in printed.splitlines() if line.startswith("│ ")}
    assert lines["rater-01"][3:9] == [str(total), "│", str(total), "│", "4.0", "│"]
    assert lines["rater-02"][3] == "0"
    assert "left out" in printed  # whoever always takes the left fails the checks
    assert f"2 of 3 seats taken; {total} of {3 * total} votes" in printed
    assert "\nopen\n" in printed
    met = [int(votes) for votes in re.findall(r"│ \w+ - \w+ +│ +(\d+) │", printed)]
    assert len(met) == 3
    assert sum(met) == 8

    commands.close(str(study))
    commands.status(str(study))
    assert "closed since" in capsys.readouterr().out
    with pytest.raises(VoteRefused, match="closed"):
        vote_all(study, links[1][0], links[1][1].rpartition("/")[2])
    commands.open_(str(study))
    assert vote_all(study, links[1][0], links[1][1].rpartition("/")[2]) == total


def test_deleting_a_rater_frees_the_seat(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.invite(str(study), count=3, base_url=BASE)
    label, link = capsys.readouterr().out.splitlines()[2].split(",")
    total = vote_all(study, label, link.rpartition("/")[2])
    with pytest.raises(BenchmarkError, match="--rater nobody: the study has no such rater"):
        commands.delete(str(study), "nobody")
    commands.delete(str(study), label)
    assert f"{label}: deleted with {total} votes" in capsys.readouterr().out
    store = open_study(study)
    assert store.votes() == []
    assert [rater.label for rater in store.raters()] == ["rater-01", "rater-03"]
    commands.invite(str(study), count=1, base_url=BASE)
    assert [rater.seat for rater in store.raters()] == [0, 1, 2]


def test_the_password_of_the_admin_page_comes_from_a_file(study: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short\n")
    with pytest.raises(BenchmarkError, match="12 characters"):
        commands.admin(str(study), str(tmp_path / "short"))
    (tmp_path / "good").write_text("correct horse battery\n")
    commands.admin(str(study), str(tmp_path / "good"))
    hashed = open_study(study).admin_hash
    assert hashed is not None
    assert check_password("correct horse battery", hashed)


def test_a_study_may_be_moved(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.invite(str(study), count=1, base_url=BASE)
    moved = shutil.move(study, tmp_path / "elsewhere")
    commands.status(moved)
    assert "rater-01" in capsys.readouterr().out
