"""A run over 24 edits that is killed three times ends in the files of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.benchmark import synthetic
from tests.benchmark.stub import Stub, said

EDITS, METRICS = 24, 6
GOOD = '{"instruction": 2, "preservation": 3, "quality": 1, "reason": "Redder."}'


def lines(out: Path) -> int:
    file = out / "scores.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    stub = Stub()
    stub.reply = lambda n, request: said(GOOD)
    data = synthetic.write_benchmark(tmp_path / "bench", EDITS)
    results = synthetic.write_results(tmp_path / "ours", EDITS)
    made = synthetic.write_networks(tmp_path / "networks")
    metrics = synthetic.write_metrics(tmp_path / "metrics.yaml", made, stub.url)

    def command(out: Path, workers: int = 1) -> list[str]:
        given = json.dumps({"ours": str(results)})
        what = ["--suite", "editversebench", "--data", str(data), "--results", given]
        more = ["--metrics", str(metrics), "--workers", str(workers), "--gallery", "0", "--out", str(out)]
        return [sys.executable, "-m", "benchmark", "run", *what, *more]

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(whole), check=True, capture_output=True, timeout=900)
    assert lines(whole) == EDITS * METRICS
    for wanted, workers in ((12, 2), (60, 1), (108, 1)):
        process = subprocess.Popen(
            command(broken, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        children = []
        while lines(broken) < wanted:
            assert process.poll() is None, "it ended before it could be killed"
            children = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        psutil.wait_procs(children, timeout=20)
        assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
    kept = lines(broken)
    assert 108 <= kept < EDITS * METRICS
    subprocess.run(command(broken), check=True, capture_output=True, timeout=900)
    counts = json.loads((broken / "summary.json").read_text())["counts"]
    assert counts["scores_computed"] == EDITS * METRICS - kept
    assert counts["scores_reused"] == kept
    assert (broken / "items.json").read_bytes() == (whole / "items.json").read_bytes()
    tables = [json.loads((out / "summary.json").read_text())["table"] for out in (whole, broken)]
    assert tables[0] == tables[1]
    # one line per score, whichever process it came from
    addresses = [json.loads(line)["address"] for line in (broken / "scores.jsonl").read_text().splitlines()]
    assert len(addresses) == len(set(addresses)) == EDITS * METRICS
    stub.server.shutdown()
