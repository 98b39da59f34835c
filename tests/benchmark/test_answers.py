"""A judge's answers and failures, run after run, through a real endpoint: what is kept, what is asked again.

Every fault loses the judge's score of that item and nothing else, and costs a bounded number of requests.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from benchmark.__main__ import evaluate_and_report
from benchmark.evaluation.results import Run, RunConfig
from benchmark.evaluation.runner import execute
from shards.files import InUseError
from tests import forked
from tests.benchmark import synthetic
from tests.benchmark.stub import GOOD, Reply, Stub, said

FRAMES, ATTEMPTS = 3, 3
PAGE = "<html><body>Sign in</body></html>"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One edit of five frames of 32x48, and its result."""
    root = tmp_path_factory.mktemp("bench")
    synthetic.write_benchmark(root / "data", 1, frames=5, side=32)
    synthetic.write_results(root / "ours", 1, frames=5, side=32)
    return root


@pytest.fixture
def stub() -> Iterator[Stub]:
    served = Stub()
    yield served
    served.server.shutdown()


def run(bench: Path, out: Path, stub: Stub, retry: int = 2, faulty: bool = False, **judge: Any) -> Run:
    """A run of the judge and of a metric of its own."""
    timeout = judge.pop("timeout", 5)
    url = {"url": stub.url, "model": "m", "timeout": timeout, "retries": 0, "patience": 0}
    models = {"judge": {"class_path": "curation.vlm.endpoint.Endpoint", "init_args": url}}
    entries = [
        {"class_path": "benchmark.judges.judge.Judge", "init_args": {"model": "judge", **judge}},
        {"class_path": "tests.benchmark.local.Brightness"},
        *([{"class_path": "tests.benchmark.local.Faulty"}] if faulty else []),
    ]
    file = bench / "metrics.yaml"
    file.write_text(yaml.safe_dump({"models": models, "metrics": entries}))
    results = {"ours": str(bench / "ours")}
    config = RunConfig("editversebench", str(bench / "data"), None, results=results, metrics=str(file))
    return execute(config, out, Console(quiet=True), gallery=0, retry=retry)


def stored(out: Path, metric: str = "judge") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    return [row for row in rows if row["metric"] == metric]


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "judge" / "answers.jsonl").read_text().splitlines()]


def late(n: int, request: dict[str, Any]) -> Reply:
    time.sleep(0.3)
    return said(GOOD)


def error(status: int, code: str) -> Callable[[int, dict[str, Any]], Reply]:
    body = json.dumps({"error": {"message": code.replace("_", " "), "code": code}})
    return lambda n, request: (status, JSON, body)


# name: what the endpoint does, the kind of the failure, requests of a run, runs that ask
FAULTS: dict[str, tuple[Callable[[int, dict[str, Any]], Reply], str, int, int]] = {
    "503": (error(503, "down"), "server", FRAMES, 3),
    "429, a limit": (error(429, "rate_limit"), "busy", FRAMES, 3),
    "429, a quota": (error(429, "insufficient_quota"), "quota", FRAMES, 3),
    "400, a filter": (error(400, "content_filter"), "filter", FRAMES, 2),
    "timeout": (late, "timeout", FRAMES, 3),
    "body drips": (lambda n, r: (200, {**JSON, "X-Drip": "body"}, said(GOOD)[2]), "timeout", FRAMES, 3),
    "headers drip": (lambda n, r: (200, {**JSON, "X-Drip": "headers"}, "{}"), "timeout", FRAMES, 3),
    "a page": (lambda n, r: (200, {"Content-Type": "text/html"}, PAGE), "answer", FRAMES, 3),
    "a page called JSON": (lambda n, r: (200, JSON, PAGE), "answer", FRAMES, 3),
    "JSON cut off": (lambda n, r: (200, JSON, said(GOOD)[2][:60]), "answer", FRAMES, 3),
    "deep nesting": (lambda n, r: (200, JSON, '{"choices":' + "[" * 9000), "answer", FRAMES, 3),
    "a refusal": (lambda n, r: said(None, refusal="No."), "refusal", FRAMES * ATTEMPTS, 2),
    "nothing": (lambda n, r: said(""), "answer", FRAMES * ATTEMPTS, 3),
    "another language": (lambda n, r: said('{"指示": 3, "保存": 2}'), "answer", FRAMES * ATTEMPTS, 3),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_asked_again_so_often_and_touches_nothing_else(
    name: str, bench: Path, stub: Stub, tmp_path: Path
) -> None:
    reply, kind, each, runs = FAULTS[name]
    stub.reply = reply
    quick = 0.2 if kind == "timeout" else 5
    begin = time.monotonic()
    for number in range(1, runs + 2):  # the last one asks no more
        done = run(bench, tmp_path, stub, timeout=quick)
        assert len(stub.requests) == each * min(number, runs)
        assert done.stopped is None
        assert [metric for _, _, metric, _ in done.failures()] == ["judge"]
    if kind == "timeout":
        assert time.monotonic() - begin < 3 * runs * quick * FRAMES + 3
    rows = stored(tmp_path)
    assert [(row["retry"], row["kind"]) for row in rows] == [(True, kind)] * runs
    assert len(stored(tmp_path, "brightness")) == 1
    assert done.failed_by_kind() == {kind: 1}
    exchanges = [row for row in log(tmp_path) if "rejected" not in row]
    assert len(exchanges) == each * runs
    assert all(row["item"] == "0" and row["row"] == "ours" and "frame" in row for row in exchanges)


@pytest.mark.parametrize("name", ["503", "429, a quota", "400, a filter", "timeout", "a page", "a refusal"])
def test_a_healthy_endpoint_later_gives_the_score(name: str, bench: Path, stub: Stub, tmp_path: Path) -> None:
    reply, kind, _, _ = FAULTS[name]
    # the first frame is judged at once: its answer is kept, the others' are asked for by the next run
    stub.reply = lambda n, request: said(GOOD) if n == 0 else reply(n, request)
    quick = 0.2 if kind == "timeout" else 5
    assert run(bench, tmp_path, stub, concurrency=1, timeout=quick).failures()
    never = len(stub.requests)
    assert run(bench, tmp_path, stub, retry=0, concurrency=1, timeout=quick).failures()
    assert len(stub.requests) == never
    stub.reply = lambda n, request: said(GOOD)
    assert run(bench, tmp_path, stub, concurrency=1, timeout=5).failures() == []
    assert len(stub.requests) == never + FRAMES - 1
    assert stored(tmp_path)[-1]["value"] == 6
    assert run(bench, tmp_path, stub, concurrency=1).counts["scores_computed"] == 0
    assert len(stub.requests) == never + FRAMES - 1


def test_a_long_reason_is_cut_and_loses_no_grade(bench: Path, stub: Stub, tmp_path: Path) -> None:
    told = json.loads(GOOD) | {"reason": "a" * 700}
    stub.reply = lambda n, request: said(json.dumps(told))
    assert run(bench, tmp_path, stub).failures() == []
    assert len(stub.requests) == FRAMES
    assert "a" * 600 + "\n" in stored(tmp_path)[0]["words"]


def test_what_was_answered_is_scored_again_without_a_request(bench: Path, stub: Stub, tmp_path: Path) -> None:
    """Another version, as after a mended parser, reads the kept answers, useless ones too."""
    stub.reply = lambda n, request: said(GOOD if n else "no JSON")
    assert run(bench, tmp_path, stub, concurrency=1).failures() == []
    asked = len(stub.requests)
    assert asked == FRAMES + 1
    again = run(bench, tmp_path, stub, concurrency=1, version=99)
    assert again.counts["scores_computed"] == 1
    assert again.usage() == {}
    assert len(stub.requests) == asked
    text = (tmp_path / "judge" / "answers.jsonl").read_text()
    assert "base64" not in text
    assert "sha256=" in text


def test_repeats_are_asked_apart_and_their_variance_is_told(bench: Path, stub: Stub, tmp_path: Path) -> None:
    grades = {0: 1, 1: 2, 2: 3}
    stub.reply = lambda n, request: said(json.dumps(dict.fromkeys(json.loads(GOOD), grades[request["seed"]])))
    done = run(bench, tmp_path, stub, repeats=3)
    assert len(stub.requests) == 3 * FRAMES
    item = done.items_out()["items"][0]
    assert item["scores"]["ours"]["judge"] == 6
    assert item["repeats"] == {"ours": {"judge": [3, 6, 9]}}
    own = done.summary()["judges"]["ours"]["judge"]
    assert own == {"variance": 9, "deviation": 3, "items": 1, "repeats": 3}
    assert run(bench, tmp_path, stub, repeats=3).items_out() == done.items_out()
    assert len(stub.requests) == 3 * FRAMES


def test_a_refused_key_stops_the_run_and_keeps_what_was_computed(
    bench: Path, stub: Stub, tmp_path: Path
) -> None:
    stub.reply = error(401, "invalid_api_key")
    done = run(bench, tmp_path, stub)
    assert "refuses the key" in str(done.stopped)
    assert len(stored(tmp_path, "brightness")) == 1
    assert stored(tmp_path) == []  # it was not asked, so nothing failed
    assert "stopped after 1 of 1 items" in done.remarks[0]
    assert done.summary()["stopped"]


def test_a_programming_error_loses_its_metric_alone_and_is_seen(
    bench: Path, stub: Stub, tmp_path: Path
) -> None:
    done = run(bench, tmp_path, stub, faulty=True)
    assert done.failures() == [("0", "ours", "faulty", "KeyError: 'sise'")]
    assert done.failed_by_kind() == {"error": 1}
    assert 'return {"size"' in (tmp_path / "errors.log").read_text()


def test_a_missing_source_fails_what_reads_it(bench: Path, stub: Stub, tmp_path: Path) -> None:
    data = tmp_path / "bench"
    synthetic.write_benchmark(data / "data", 1, frames=5, side=32)
    synthetic.write_results(data / "ours", 1, frames=5, side=32)
    next((data / "data" / "videos").iterdir()).unlink()
    done = run(data, tmp_path / "out", stub)
    assert [metric for _, _, metric, _ in done.failures()] == ["judge"]
    assert "is missing" in done.failures()[0][3]
    assert stub.requests == []


@pytest.mark.slow
def test_a_folder_has_one_run_at_a_time_and_an_interrupted_one_reports(
    bench: Path, stub: Stub, tmp_path: Path
) -> None:
    """A process, and this one; the first is in its second item when Ctrl-C ends it."""
    data = tmp_path / "bench"
    synthetic.write_benchmark(data / "data", 2, frames=5, side=32)
    synthetic.write_results(data / "ours", 2, frames=5, side=32)
    run(data, tmp_path / "other", stub, timeout=100)  # writes metrics.yaml
    asked = len(stub.requests)
    results, metrics = {"ours": str(data / "ours")}, str(data / "metrics.yaml")
    config = RunConfig("editversebench", str(data / "data"), None, results=results, metrics=metrics)
    pressed = threading.Event()
    stub.reply = lambda n, request: said(GOOD) if n < asked + FRAMES else (pressed.wait(100), said(GOOD))[1]
    what = ("--suite", config.suite, "--data", config.data, "--metrics", metrics, "--device", "cpu")
    given = ("--results", json.dumps(results), "--out", tmp_path / "out")
    first = forked.Forked("benchmark", "run", *what, *given)
    while len(stub.requests) <= asked + FRAMES:
        assert first.poll() is None
        time.sleep(0.02)
    with pytest.raises(InUseError, match="another run is using it"):
        evaluate_and_report(config, tmp_path / "out", None, 0)
    first.send_signal(signal.SIGINT)
    time.sleep(0.5)  # it is taken before the answers come
    pressed.set()
    assert first.wait(120) == 130, first.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["items"] == 1
    assert "stopped after 1 of 2 items: interrupted" in summary["remarks"]
    assert (tmp_path / "out" / "report.html").is_file()
