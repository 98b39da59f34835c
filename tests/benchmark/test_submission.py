"""Submissions: made from a run, checked against their own items and the suite's, listed as a static site."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmark.analysis.submission import check, make
from benchmark.cli import submission as commands
from benchmark.core.item import BenchmarkError, Item, Loaded
from benchmark.evaluation.results import Outcome, Run, RunConfig
from benchmark.metrics.edit_success import EditHit
from benchmark.metrics.psnr import Psnr
from shards.files import write_json
from tests.browser import chromium, opened

METRICS = [Psnr("inside"), EditHit()]
LIST = hashlib.sha256(b"list").hexdigest()
METHODS = (("Fine <b>editor</b>", 4.0, 0.9), ("Plain", 0.0, 0.4), ("Plain, retrained", 0.1, 0.4))


def load() -> Loaded:
    raise NotImplementedError("nothing here looks at pixels")


class Tiny:
    """A suite of twenty edits of ten clips; no data."""

    name, version, sha256, metrics = "editversebench", 1, LIST, None
    references = ("source",)
    remarks: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.items = [
            Item(f"item{n}", "removal", "", "", "", f"clip{n // 2}", f"pair{n}", None, load)
            for n in range(20)
        ]


def run_folder(folder: Path, gain: float, rate: float) -> Path:
    """The files of a run whose rows are the copied source and `ours`."""
    random = np.random.default_rng(7)
    base, luck = random.normal(20, 2, 20), random.random(20)
    noise = np.random.default_rng(int(1000 * gain)).normal(0, 0.3, 20)
    suite = Tiny()
    outcomes = []
    for n, item in enumerate(suite.items):
        source = {METRICS[0].name: float(base[n]), METRICS[1].name: 0.0}
        ours = {METRICS[0].name: float(base[n] + gain + noise[n]), METRICS[1].name: float(luck[n] < rate)}
        outcomes.append(Outcome(item, {"source": source, "ours": ours}))
    results = folder / "results"
    (results / "a").mkdir(parents=True)
    (results / "a" / "item0.mp4").write_bytes(b"video")
    config = RunConfig("editversebench", "data", None, results={"ours": str(results)})
    run = Run(config, suite, list(METRICS), outcomes, ["source", "ours"], None, {})
    write_json(folder / "summary.json", run.summary() | {"made": {"date": "2026-11-30"}})
    write_json(folder / "items.json", run.items_out())
    write_json(folder / "config.json", {"results": {"ours": str(results)}})
    return folder


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three submissions, the second a folder."""
    place = tmp_path_factory.mktemp("submissions")
    for n, (name, gain, rate) in enumerate(METHODS):
        run = run_folder(tmp_path_factory.mktemp("run"), gain, rate)
        (run / "card.yaml").write_text(json.dumps({"name": name, "steps": 40, "base": "Wan 2.1 1.3B"}))
        make(run, "ours", run / "card.yaml", place / (f"s{n}" if n == 1 else f"s{n}.zip"))
    return place


def test_a_submission_is_what_the_run_says(handed_in: Path, tmp_path: Path) -> None:
    found = check(handed_in / "s0.zip", Tiny())
    assert found.means[METRICS[0].name].scored == 20
    assert found.manifest.results == {"a/item0.mp4": hashlib.sha256(b"video").hexdigest()}
    assert {row for item in found.items.values() for row in item.scores} == {"source", "ours"}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "item0.mp4").write_bytes(b"video")
    check(handed_in / "s1", results=tmp_path)
    (tmp_path / "a" / "item0.mp4").write_bytes(b"another")
    with pytest.raises(BenchmarkError, match=r"a/item0\.mp4 has another sha256"):
        check(handed_in / "s1", results=tmp_path)


def changed(place: Path, out: Path, change: Callable[[dict[str, Any]], None], rehash: bool = True) -> Path:
    """A copy of a submission in which something is different, with hashes that fit unless told otherwise."""
    with zipfile.ZipFile(place) as archive:
        held = {name: json.loads(archive.read(name)) for name in archive.namelist()}
    change(held)
    files = {name: json.dumps(value).encode() for name, value in held.items()}
    if rehash:
        sums = {n: hashlib.sha256(files[n]).hexdigest() for n in ("items.json", "summary.json")}
        files["submission.json"] = json.dumps(held["submission.json"] | {"files": sums}).encode()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out


def score(held: dict[str, Any], value: float) -> None:
    held["items.json"]["items"][3]["scores"]["ours"][METRICS[0].name] = value


def suites(held: dict[str, Any], **fields: Any) -> None:
    for name in ("submission.json", "summary.json"):
        held[name]["suite"].update(fields)


@pytest.mark.parametrize(
    ("change", "rehash", "words"),
    [
        (lambda held: score(held, 99.0), True, "mean .* the items have"),
        (lambda held: score(held, 99.0), False, "items.json: not the file whose sha256"),
        (lambda held: score(held, -5.0), True, r"item3: psnr_inside -5 is outside of \[0, inf\]"),
        (
            lambda held: held["items.json"]["items"][2].update(id="other"),
            True,
            "other: the suite has no such",
        ),
        (lambda held: held["items.json"]["items"][2].update(id="item3"), True, "an item is there twice"),
        (lambda held: held["items.json"]["items"][2].update(clip="c"), True, "item2: clip or pair is not"),
        (lambda held: suites(held, version=2), True, "suite.version is 2; --data has 1"),
        (lambda held: suites(held, sha256="0" * 64), True, "suite.sha256 is 0000"),
        (lambda held: suites(held, name="mine"), True, "suite: mine is not one of"),
        (lambda held: held["submission.json"].update(format=9), True, "format 9"),
        (
            lambda held: held["summary.json"]["metrics"][METRICS[0].name].update(range=[None, 1]),
            True,
            "summary.json: metrics.psnr_inside.range: .*lowest and the highest",
        ),
        (lambda held: held["submission.json"]["card"].update(claim="best"), True, "card.claim: Extra inputs"),
    ],
)
def test_what_does_not_fit_is_refused(
    handed_in: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], rehash: bool, words: str
) -> None:
    with pytest.raises(BenchmarkError, match=words):
        check(changed(handed_in / "s0.zip", tmp_path / "bad.zip", change, rehash), Tiny())


def test_an_item_left_out_is_refused_even_if_the_mean_fits(handed_in: Path, tmp_path: Path) -> None:
    """The worst item dropped and the mean computed again: only the suite's list tells."""

    def drop(held: dict[str, Any]) -> None:
        entries = held["items.json"]["items"]
        del entries[0]
        for metric, mean in held["summary.json"]["table"]["all"]["ours"].items():
            scores = [entry["scores"]["ours"][metric] for entry in entries]
            mean.update(value=float(np.mean(scores)), scored=len(scores))

    place = changed(handed_in / "s0.zip", tmp_path / "less.zip", drop)
    check(place)
    with pytest.raises(BenchmarkError, match="item0 and 0 more items are missing"):
        check(place, Tiny())


def test_a_run_without_the_row_or_a_card_with_a_wrong_field_is_named(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", 1.0, 0.5)
    (tmp_path / "card.yaml").write_text("name: A\nstep: 3\n")
    with pytest.raises(BenchmarkError, match="--row model: the run has source, ours"):
        make(run, "model", tmp_path / "card.yaml", tmp_path / "out.zip")
    with pytest.raises(BenchmarkError, match=r"card\.yaml: step: Extra inputs"):
        make(run, "ours", tmp_path / "card.yaml", tmp_path / "out.zip")
    (tmp_path / "out.zip").touch()
    with pytest.raises(BenchmarkError, match="is there already"):
        make(run, "ours", tmp_path / "card.yaml", tmp_path / "out.zip")
    with pytest.raises(BenchmarkError, match="no submission"):
        check(tmp_path / "out.zip")


@pytest.fixture(scope="module")
def site(handed_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    (handed_in / "broken.zip").write_bytes(b"no zip")
    commands.leaderboard(str(handed_in), str(out))
    (handed_in / "broken.zip").unlink()
    return out


def test_the_leaderboard_ranks_and_groups(site: Path) -> None:
    """Two methods that differ by 0.1 of 2 dB share a letter; the good one has its own; the rest is said."""
    page = (site / "editversebench.html").read_text()
    rows = re.findall(r'<th scope="row">([^<]+).*?class="letters">(\w+)<', page, re.S)
    assert [label.strip() for label, _ in rows[:1]] == ["Fine &lt;b&gt;editor&lt;/b&gt;"]
    letters = {label.strip(): found for label, found in rows}
    assert letters["Fine &lt;b&gt;editor&lt;/b&gt;"] == "a"
    assert letters["Plain"] == letters["Plain, retrained"]
    assert "<b>" not in page
    assert "As published: Editing quality" in page
    assert ">0.20<" in page  # the spread of EditVerse
    assert "<li>broken.zip: no submission" in (site / "index.html").read_text()
    assert page.index("psnr_inside</button>") < page.index("edit_hit</button>")  # as the run lists them


@pytest.mark.browser
def test_the_page_sorts_under_its_own_policy(site: Path) -> None:
    """The script runs by its hash, nothing else is asked for, and a phone's width is not exceeded."""
    url = (site / "editversebench.html").as_uri()
    with chromium() as browser, opened(browser, url, "file:", "data:") as page:
        names = "() => [...document.querySelectorAll('.board tbody th')].map((th) => th.textContent.trim())"
        assert page.evaluate(names)[0].startswith("Fine")
        page.locator(".board thead button").first.click()
        assert page.evaluate(names)[-1].startswith("Fine")
        page.locator(".board thead button").last.click()  # of hits, of which the copied source has none
        assert page.evaluate(names)[-1].startswith("Copy the source")
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
